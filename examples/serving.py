"""What the examples' commands share: the port, the address that is printed, and the origins of the page."""

import errno
import socket
from collections.abc import Sequence
from typing import NoReturn

import typer
from rich.console import Console

EVERYWHERE = ("0.0.0.0", "::")


def listen(host: str, port: int) -> socket.socket:
    """Take the port before anything else, so that one that is taken is told in one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"Port {port} on {host} is taken by another program; choose another with --port.")
        fail(f"Can't listen on {host}, port {port}: {error.strerror or error}.")
    # asyncio sets this only on sockets that it made itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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


def fail(sentence: str) -> NoReturn:
    """End the program with one sentence on the error stream and the exit code 1."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, style="red", markup=False)
    raise typer.Exit(1)


def _origin(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
