"""What the examples share: the port, the address that is printed, the origins of the page, and how it is served."""

import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import typer
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from rich.console import Console
from rich.text import Text

EVERYWHERE = ("0.0.0.0", "::")
SHARED = Path(__file__).with_name("shared")
"""What several pages are made of."""


def listen(host: str, port: int, *, send_buffer: int | None = None) -> socket.socket:
    """Take the port before anything else, so that one that is taken is told in one sentence.

    Args:
        host: address.
        port: 0 takes a free one.
        send_buffer: bytes that the kernel keeps for a client that does not read (``SO_SNDBUF``); by default that is up
            to it, and may be megabytes. What lies there can be neither taken back nor superseded.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"Port {port} on {host} is taken by another program; choose another with --port.")
        fail(f"Can't listen on {host}, port {port}: {error.strerror or error}.")
    # asyncio sets this only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    return f"{_origin('localhost' if host in EVERYWHERE else host, port)}/"


def origins(listener: socket.socket, public: Sequence[str] = ()) -> list[str]:
    """Return the origins that pages of this server have.

    Args:
        listener: where it listens.
        public: those by which others reach it, such as ``https://chat.example`` through a proxy. Without them the page
            is for this machine: the names of its loopback interface, and the address that it listens on.
    """
    if public:
        return [*public]
    host, port = listener.getsockname()[:2]
    hosts = ["127.0.0.1", "localhost"] if host in (*EVERYWHERE, "127.0.0.1", "localhost") else [host]
    return [_origin(each, port) for each in hosts]


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve the page of an example.

    Args:
        app: the application.
        folder: what is served under ``/static``; its ``index.html`` is the page itself, at ``/``.
    """
    app.mount("/static", StaticFiles(directory=folder), name="static")
    app.mount("/shared", StaticFiles(directory=SHARED), name="shared")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(folder / "index.html")


def run(app: FastAPI, listener: socket.socket, where: str, *notes: str) -> None:
    """Print the address and serve until Ctrl+C.

    Args:
        app: the application.
        listener: where it listens.
        where: what is printed before the address.
        notes: sentences that are printed after it, each on a line of its own.
    """
    # Without a timeout, a stop or a restart would wait for every open connection.
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=5, ws="wsrouter.uvicorn:WebSocketProtocol"
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(where, Text(address(listener), style="bold cyan"), "(Ctrl+C stops it).")
    for note in notes:
        console.print(note)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def fail(sentence: str) -> NoReturn:
    """End the program with one sentence on the error stream and the exit code 1."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, style="red", markup=False)
    raise typer.Exit(1)


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
