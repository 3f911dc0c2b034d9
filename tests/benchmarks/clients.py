"""Clients that cost little: they count the messages that come, and look into none of them."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar, cast

from tests.benchmarks.servers import Running

T = TypeVar("T", bound="Client")

PATIENCE: Final = 30.0
"""Seconds for a handshake."""
DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def handshake(path: str, *, deflate: bool = False) -> bytes:
    """Return the request for a path."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{DEFLATE if deflate else ''}\r\n"
    ).encode()


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """Return a frame, a text if nothing else is said, masked with zeros."""
    if len(payload) < 126:
        return bytes((first, 0x80 | len(payload), 0, 0, 0, 0)) + payload
    return bytes((first, 0x80 | 126)) + len(payload).to_bytes(2) + bytes(4) + payload


class Frames:
    """Finds the ends of messages in a server's stream, however it is cut.

    Args:
        pong: called with the payload of each ping.
    """

    def __init__(self, pong: Callable[[bytes], object]) -> None:
        self._pong = pong
        self._rest = b""
        """Of a frame whose header, or payload if it is a control frame, is not whole."""
        self._ahead = 0
        """Bytes of a message's last frame that are still to come..."""
        self._counts = False
        """...and whether a message ends with it."""

    def feed(self, data: bytes) -> int:
        """Return how many messages end in the next piece of the stream.

        Raises:
            ConnectionError: the server closes the connection.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        begin, end, whole = self._ahead, len(data), 0
        if begin and begin <= end:
            whole += self._counts
        while end - begin >= 2:
            size, length = 2, data[begin + 1]
            if length > 125:
                size = 4 if length == 126 else 10
                if end - begin < size:
                    break
                length = int.from_bytes(data[begin + 2 : begin + size])
            first, after = data[begin], begin + size + length
            if first & 0x08:
                if after > end:
                    break
                self._control(first, data[begin + size : after])
            else:
                self._counts = first >= 0x80
                if after <= end:
                    whole += self._counts
            begin = after
        if begin < end:
            self._rest, begin = data[begin:], end
        self._ahead = begin - end
        return whole

    def _control(self, first: int, payload: bytes) -> None:
        if first == 0x88:
            raise ConnectionError(f"the server closed with {int.from_bytes(payload[:2])}")
        if first == 0x89:
            self._pong(payload)


class Client(asyncio.Protocol):
    """One connection.

    Args:
        path: of the server.
        deflate: whether to negotiate permessage-deflate.
        failed: called with the reason when the server ends the connection.
    """

    def __init__(
        self, path: str, *, deflate: bool = False, failed: Callable[[ConnectionError], object] | None = None
    ) -> None:
        self._request = handshake(path, deflate=deflate)
        self._deflate = deflate
        self._failed = failed
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._frames = Frames(lambda payload: self.write(masked(payload, 0x8A)))
        self._closing = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self.opened.done():
            data = self._answer(data)
        try:
            count = self._frames.feed(data)
        except ConnectionError as reason:
            self._fail(reason)
        else:
            if count:
                self.received(count)

    def _answer(self, data: bytes) -> bytes:
        """Read the response to the handshake, and return what comes behind it."""
        self._head += data
        head, found, data = self._head.partition(b"\r\n\r\n")
        if not found:
            return b""
        if b" 101 " not in head.split(b"\r\n")[0]:
            self._fail(ConnectionError(f"the server answered {head!r}"))
        elif self._deflate and b"permessage-deflate" not in head:
            self._fail(ConnectionError("the server does not compress"))
        else:
            self.opened.set_result(None)
            return data
        return b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._fail(ConnectionError("the server ended the connection"))

    def _fail(self, reason: ConnectionError) -> None:
        self.close()
        if not self.opened.done():
            self.opened.set_exception(reason)
        elif self._failed is not None:
            self._failed(reason)

    def received(self, count: int) -> None:
        """Do what is to be done when so many messages have come."""

    def write(self, frame: bytes) -> None:
        """Send a frame."""
        assert self._transport is not None
        self._transport.write(frame)

    def close(self) -> None:
        """Leave."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()


async def connect(server: Running, make: Callable[[], T]) -> T:
    """Open a connection.

    Raises:
        ConnectionError: the server refuses it.
        TimeoutError: it does not answer.
    """
    async with asyncio.timeout(PATIENCE):
        _, client = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", server.port)
        await client.opened
    return client


async def connect_all(server: Running, make: Callable[[], T], count: int, at_once: int = 100) -> list[T]:
    """Open connections, at most so many handshakes at a time."""
    places = asyncio.Semaphore(at_once)

    async def one() -> T:
        async with places:
            return await connect(server, make)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
    return [task.result() for task in tasks]
