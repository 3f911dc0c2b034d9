"""Ports for servers that run in processes of their own, or that are started again."""

import secrets
import socket
import sys
from collections import deque
from typing import Final

HELD: Final = 64
"""More than one test needs at a time."""

_held: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a port that is free, and that nobody gets meanwhile: below those that the system gives to whoever asks.

    On Linux it is held until this has been called 64 times more. A server can listen on it, since servers set
    ``SO_REUSEADDR``, and can be started again; who looks for a free port, as this does, finds it taken all the while,
    so that no other process of tests is given it before the server listens, or while it is down.
    """
    while True:
        port = 12_000 + secrets.randbelow(20_000)
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:
            holder.close()
            continue
        if sys.platform == "linux":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _held.append(holder)
            if len(_held) > HELD:
                _held.popleft().close()
        else:
            holder.close()
        return port
