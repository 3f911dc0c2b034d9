"""Handshakes and HTTP requests as bytes, so that a client may send what no library would."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support import Server

Headers = Sequence[tuple[str, str | bytes]]

UPGRADE: Headers = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
)


@dataclass(frozen=True)
class Answer:
    """What a server answers; ``raw`` is all of it."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


async def handshake(server: Server, path: str, headers: Headers = ()) -> Answer:
    """Send the handshake of a WebSocket, and leave when it is answered."""
    return await request(server, path, [*UPGRADE, *headers])


async def request(server: Server, path: str, headers: Headers = (), method: str = "GET") -> Answer:
    """Send a request, and leave when it is answered.

    Raises:
        TimeoutError: no answer within 5 seconds.
        ConnectionError: the server hung up without one.
    """
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), f"Host: 127.0.0.1:{server.port}".encode()]
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in headers
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20, ssl=server.trust)
    try:
        async with asyncio.timeout(5):
            writer.write(b"\r\n".join([*lines, b"", b""]))
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                raise ConnectionError("the server hung up") from None
            first, *rest = head.decode("latin-1").strip().split("\r\n")
            found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            status = int(first.split()[1])
            length = 0 if status == 101 else int(found.get("content-length", "0"))
            body = await reader.readexactly(length)
            return Answer(status, found, body, head + body)
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
