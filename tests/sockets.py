"""A hub without a server: connections whose sockets keep a record of what is written to them."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

from starlette.types import Message as Event
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as WireFrame
from websockets.protocol import State
from websockets.uri import parse_uri

from wsrouter import Hub, Limits
from wsrouter.codecs import Codec, Frame, JSONCodec
from wsrouter.connection import ServerConnection, message_encoder
from wsrouter.direct import DirectConnection
from wsrouter.portable import PortableConnection
from wsrouter.transports import DirectTransport, framed
from wsrouter.writer import Owner

JSON = JSONCodec()


class Socket:
    """A `DirectTransport` that keeps what is written, and reads it back as a client would.

    Args:
        window_bits: what was negotiated for compression.
        capacity: bytes that may wait to be taken by `take`; with more it is paused.
        seconds: how long a write holds the event loop.
    """

    def __init__(self, window_bits: int | None = None, *, capacity: int | None = None, seconds: float = 0.0) -> None:
        self.paused = True
        self.write: Callable[[bytes], None] = self._write
        self.window_bits = window_bits
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.accepted = False
        self._capacity = capacity
        self._waiting = 0
        self._seconds = seconds
        self._resumed: Callable[[], object] | None = None
        self._paused: Callable[[], object] | None = None

    def open(self) -> None:
        """Begin to take what is written, as after accept."""
        self.accepted = True
        self.paused = False

    def _write(self, data: bytes) -> None:
        assert self.accepted, "written before accept"
        if self.closed is not None or self.aborted:
            return
        until = perf_counter() + self._seconds
        self.writes.append(data)
        self._waiting += len(data)
        if self._capacity is not None and self._waiting >= self._capacity:
            self.pause()
        while perf_counter() < until:
            pass

    def attach(self, resumed: Callable[[], object], paused: Callable[[], object]) -> None:
        self._resumed, self._paused = resumed, paused

    @property
    def ended(self) -> bool:
        return self.closed is not None or self.aborted

    def pause(self) -> None:
        """Read nothing any more."""
        self.paused = True
        if self._paused is not None:
            self._paused()

    def take(self) -> None:
        """Read all that waits, as a client that reads again."""
        self._waiting = 0
        if self.closed is None and not self.aborted:
            self.paused = False
            assert self._resumed is not None
            self._resumed()

    def frame(self, frame: Frame) -> bytes:
        return framed(frame)

    def buffered(self) -> int:
        return self._waiting

    def close(self, code: int, reason: str, timeout: float) -> None:
        # As of a real one: there is nothing to close before accept.
        if self.closed is None and self.accepted:
            self.closed = code, reason
            self.pause()

    def abort(self) -> None:
        self.aborted = True
        self.pause()

    def frames(self) -> list[WireFrame]:
        """Return the frames as they are on the wire."""
        return frames_of(b"".join(self.writes), deflates=self.window_bits is not None)

    def texts(self) -> list[str]:
        """Return the texts of all frames."""
        return [bytes(frame.data).decode() for frame in self.frames()]


def frames_of(data: bytes, *, deflates: bool = False) -> list[WireFrame]:
    """Return the frames that a client reads, decompressed; it fails if they can't be read."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    if deflates:
        client.extensions = [PerMessageDeflate(True, True, 12, 12)]
    client.receive_data(data)
    events = client.events_received()
    assert client.parser_exc is None
    return [event for event in events if isinstance(event, WireFrame)]


@dataclass
class Member:
    """A connection on a socket."""

    connection: ServerConnection
    socket: Socket


async def member_of(
    hub: Hub,
    *rooms: str,
    codec: Codec | None = None,
    limits: Limits | None = None,
    user: str | None = None,
    socket: Socket | None = None,
    **options: Any,  # of the socket
) -> Member:
    """Return a connection that was accepted and has joined some rooms."""
    socket = Socket(**options) if socket is None else socket

    async def send(event: Event) -> None:
        assert event["type"] == "websocket.accept"
        socket.open()

    connection = direct(socket, send, codec=codec, limits=limits, user=user)
    await connection.accept(None, [])
    await hub.node.enter(connection)
    for room in rooms:
        await hub.join(connection, room)
    return Member(connection, socket)


@dataclass
class _User:
    id: str


def _scope(user: str | None) -> dict[str, Any]:
    return {"type": "websocket", "path": f"/{os.urandom(3).hex()}", **({"user": _User(user)} if user else {})}


def direct(
    transport: DirectTransport,
    send: Any,
    *,
    codec: Codec | None = None,
    limits: Limits | None = None,
    user: str | None = None,
    owner: Owner | None = None,
) -> DirectConnection:
    """Return a connection straight to a transport, not accepted yet."""
    codec = codec or JSON
    return DirectConnection(
        transport,
        _scope(user),
        send,
        codec=codec,
        encode=message_encoder(codec),
        limits=limits or Limits(),
        owner=owner,
    )


def portable(
    send: Any,
    *,
    codec: Codec | None = None,
    limits: Limits | None = None,
    user: str | None = None,
    owner: Owner | None = None,
) -> PortableConnection:
    """Return a connection that goes through an ASGI ``send``, not accepted yet."""
    codec = codec or JSON
    return PortableConnection(
        _scope(user),
        send,
        codec=codec,
        encode=message_encoder(codec),
        limits=limits or Limits(),
        owner=owner,
    )


@asynccontextmanager
async def gone(*connections: ServerConnection, hub: Hub | None = None) -> AsyncGenerator[None]:
    """Let go of connections at the end of the block, as their sessions would."""
    try:
        yield
    finally:
        for connection in connections:
            if hub is not None:
                await hub.node.release(hub.node.exit(connection))
            await connection.aclose()


async def turns(count: int = 1) -> None:
    """Let the event loop go around."""
    for _ in range(count):
        await asyncio.sleep(0)


class Busiest:
    """How far a count rises at most from one turn of the event loop to the next: ``async with Busiest(count)``.

    It is not a time, which on a busy machine says more about the machine.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self.turn = 0
        self.turns = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        await turns()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await turns(2)
        self._task.cancel()

    async def _watch(self) -> None:
        before = self._count()
        while True:
            await asyncio.sleep(0)
            now = self._count()
            self.turn = max(self.turn, now - before)
            self.turns += 1
            before = now
