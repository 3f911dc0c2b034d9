"""What the tests of the protocol class share: applications that keep a record, clients that write bytes, and TLS."""

import asyncio
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any, Final, Self

from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send
from websockets.utils import apply_mask

from tests.support import Server
from tests.wire import RawClient
from wsrouter.transports import EXTENSION, DirectTransport

OURS: Final = "wsrouter.uvicorn:WebSocketProtocol"
STOCK: Final = "websockets-sansio"


@dataclass
class Recorder:
    """An application that accepts, and keeps what it receives until the client is gone; it echoes on demand."""

    echoes: bool = False
    accepts: bool = True
    events: list[Event] = field(default_factory=list[Event])
    scope: Scope = field(default_factory=dict[str, Any])
    transport: DirectTransport | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            self.scope = scope
            await send({"type": "websocket.accept"})
            extension: Any = scope["extensions"].get(EXTENSION)
            self.transport = extension["transport"] if extension else None
            self.opened.set()
            while True:
                event = await receive()
                self.events.append(event)
                if event["type"] == "websocket.disconnect":
                    return
                if self.echoes:
                    data = {key: event[key] for key in ("text", "bytes") if key in event}
                    await send({"type": "websocket.send", **data})
        finally:
            self.ended.set()

    @property
    def direct(self) -> DirectTransport:
        """The transport of the last connection."""
        assert self.transport is not None
        return self.transport


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\1\2\3\4"
) -> bytes:
    """Return a frame of a client: masked, unless ``mask`` is ``None``."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0 if mask is None else 0x80
    if len(payload) < 126:
        head = bytes([first, masked | len(payload)])
    elif len(payload) < 65_536:
        head = bytes([first, masked | 126]) + struct.pack("!H", len(payload))
    else:
        head = bytes([first, masked | 127]) + struct.pack("!Q", len(payload))
    if mask is None:
        return head + payload
    return head + mask + apply_mask(payload, mask)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a client's close frame."""
    return frame(8, b"" if code is None else struct.pack("!H", code) + reason)


async def frames_until_end(client: RawClient) -> list[tuple[int, bytes]]:
    """Return opcode and payload of all frames that come until the server ends the connection."""
    data = await client.end()
    found: list[tuple[int, bytes]] = []
    while data:
        length, begin = data[1], 2
        if length == 126:
            length, begin = int.from_bytes(data[2:4]), 4
        elif length == 127:
            length, begin = int.from_bytes(data[2:10]), 10
        found.append((data[0], data[begin : begin + length]))
        data = data[begin + length :]
    return found


class StalledClient(RawClient):
    """A client that reads nothing of its own accord, and takes little from the network; over TLS if it is told to."""

    def __init__(self, server: Server, trust: ssl.SSLContext | None = None) -> None:
        super().__init__(server)
        self._port = server.port
        self._trust = trust

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._trust, limit=1024)
        return self

    async def read(self, number: int) -> bytes:
        """Return so many bytes."""
        async with asyncio.timeout(20):
            return await self._reader.readexactly(number)

    async def drain(self) -> None:
        """Wait until the server has taken what was sent, as far as it takes any."""
        await self._writer.drain()

    @property
    def unsent(self) -> int:
        """Bytes that the server does not take."""
        return self._writer.transport.get_write_buffer_size()

    def half_close(self) -> None:
        """Send FIN, and nothing more."""
        self._writer.write_eof()


async def turns(number: int = 50) -> None:
    """Let server and client, which share the event loop, have their turns: what was sent by now has arrived."""
    for _ in range(number):
        await asyncio.sleep(0)


def fill(transport: DirectTransport, frame: bytes) -> int:
    """Write a frame again and again until the transport is paused, and return how often."""
    count = 0
    while not transport.paused:
        transport.write(frame)
        count += 1
    return count
