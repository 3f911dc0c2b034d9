"""Handshakes written byte by byte, for what no client library would send, and for a thousand at little cost."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from tests.support import Server

CLOSE: Final = bytes([0x88, 0x82, 0, 0, 0, 0]) + struct.pack("!H", 1000)
"""A close frame with the code 1000, masked with zeros."""

Headers = Iterable[tuple[str, str | bytes]]


def request(path: str = "/", headers: Headers = ()) -> bytes:
    """Return the handshake for a path; headers go in as they are given, text as latin-1."""
    lines = [
        f"GET {path} HTTP/1.1".encode(),
        b"Host: 127.0.0.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    ]
    for name, value in headers:
        lines.append(name.encode() + b": " + (value.encode("latin-1") if isinstance(value, str) else value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def text(payload: str) -> bytes:
    """Return a text frame of at most 125 bytes, masked with zeros."""
    data = payload.encode()
    assert len(data) <= 125
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data


class RawClient:
    """One TCP connection: ``async with RawClient(server) as client``."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.status = 0
        """Of the response to the handshake."""
        self.head = b""
        """The response to the handshake, in lower case."""

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._server.port, ssl=self._server.trust
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()

    def send(self, data: bytes) -> None:
        """Write bytes, without a wait."""
        self._writer.write(data)

    async def handshake(self, path: str = "/", headers: Headers = ()) -> int:
        """Send a handshake and return the status of its response."""
        self.send(request(path, headers))
        return await self.answer()

    async def answer(self) -> int:
        """Return the status of the response to the handshake."""
        async with asyncio.timeout(20):
            self.head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        self.status = int(self.head.split()[1])
        return self.status

    async def end(self) -> bytes:
        """Return all that comes until the server ends the connection."""
        async with asyncio.timeout(20):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        async with asyncio.timeout(20):
            first, length = await self._reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            return first & 0x0F, await self._reader.readexactly(length)

    async def close_code(self) -> int:
        """Return the code of the close frame that comes after whatever else."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return int.from_bytes(payload[:2])

    def drop(self) -> None:
        """End the connection with FIN."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection with RST, as a machine that is gone."""
        transport_socket: socket.socket = self._writer.get_extra_info("socket")
        transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def status_of(server: Server, path: str = "/", headers: Headers = ()) -> int:
    """Return the status of a handshake's response."""
    async with RawClient(server) as client:
        return await client.handshake(path, headers)
