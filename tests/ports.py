"""Ports for servers that run in processes of their own, or that are started again."""

import secrets
import socket
from contextlib import suppress


def free_port() -> int:
    """Return a port that is free, and that nobody gets meanwhile: below those that the system gives to whoever asks."""
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
