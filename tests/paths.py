"""Both ways from a connection to its socket, over real servers, and clients that can cease to read."""

import asyncio
import socket
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection

from tests.support import Server, connect
from wsrouter import Connection, Hub
from wsrouter.direct import DirectConnection

DIRECT: Final = "wsrouter.uvicorn:WebSocketProtocol"
PORTABLE: Final = "websockets-sansio"

each_path = pytest.mark.parametrize("ws", [DIRECT, PORTABLE], ids=["direct", "portable"])

KIB: Final = 1024
SEND_BUFFER: Final = 16 * KIB
"""Of the server's sockets, so that a client that does not read is noticed soon."""


async def connect_with_small_buffer(server: Server, path: str = "/", **options: Any) -> ClientConnection:
    """Connect as a client for which the kernel takes little, and that reads nothing until somebody calls `recv`."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", server.port))
    options = {"max_queue": 1, "compression": None, "ping_interval": None, "close_timeout": 1, **options}
    return await connect(server, path, sock=end, max_size=None, **options)


def connection_at(hub: Hub, path: str) -> Connection:
    """Return the one connection at a path."""
    (connection,) = (each for each in hub.connections.values() if each.scope["path"] == path)
    return connection


def is_direct(connection: Connection) -> bool:
    """Whether a connection goes straight to its socket."""
    return isinstance(connection, DirectConnection)
