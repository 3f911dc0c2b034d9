"""``python -m examples.chat``: serves the chat until Ctrl+C."""

import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn
from rich.console import Console
from rich.text import Text

from examples.chat.app import create_app

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Database = Annotated[
    Path, typer.Option(dir_okay=False, help="SQLite file that keeps the lines; made if there is none.")
]

console = Console(highlight=False, soft_wrap=True)


def main(host: Host = "127.0.0.1", port: Port = 8000, database: Database = Path("chat.sqlite3")) -> None:
    """Serve the chat until Ctrl+C."""
    folder = database.absolute().parent
    if not folder.is_dir():
        fail(f"There is no folder {folder} for the database; make it, or choose another with --database.")
    listener = listen(host, port)
    # Without a timeout, a stop or a restart would wait for every open connection.
    config = uvicorn.Config(create_app(database), log_level="warning", timeout_graceful_shutdown=5)
    console.print("The chat is at", Text(address(listener), style="bold cyan"), "(Ctrl+C stops it).")
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that one that is taken is told in one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"Port {port} on {host} is taken by another program; choose another with --port.")
        fail(f"The chat can't listen on {host}, port {port}: {error.strerror or error}.")
    # asyncio sets this only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def fail(sentence: str) -> NoReturn:
    """End the program with one sentence on the error stream and the exit code 1."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, style="red", markup=False)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
