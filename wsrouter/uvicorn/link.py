"""One socket that speaks WebSocket (RFC 6455): reads in slices, answers pings, closes, and never waits for ever."""

import asyncio
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode
from websockets.frames import Frame as WireFrame

from wsrouter.codecs import Frame
from wsrouter.errors import cut_reason, is_close_code
from wsrouter.transports import framed
from wsrouter.uvicorn.arrivals import MAX_BYTES, Arrivals
from wsrouter.uvicorn.keepalive import Keepalive
from wsrouter.uvicorn.reader import FIN, FrameReader, Ping, Pong, Violation

HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384
"""Bytes that wait for the kernel: above the first nothing more is to be written, until they are below the second."""
SLICE: Final = 128
"""Frames that are handled before the event loop gets its turn."""
NO_STATUS: Final = 1005
"""Stands for a close frame without a code (RFC 6455, section 7.1.5)."""
COMPRESSED_FROM: Final = 1024
"""Bytes. A smaller message is not worth it: without context takeover there is nothing to refer to."""


class State(Enum):
    """How far a connection is."""

    CONNECTING = auto()
    """The handshake is not accepted yet."""
    OPEN = auto()
    CLOSING = auto()
    """Our close frame is written, the client's is awaited."""
    LOST = auto()
    """The client is gone. What it sent before is still to be received."""
    ENDED = auto()
    """Nothing is read or written any more."""


class Link(asyncio.Protocol):
    """A `DirectTransport`, and the reading half beside it.

    Args:
        loop: the event loop.
        max_size: bytes of a message, decompressed.
        ping_interval: seconds from one ping to the next, ``None`` for no pings.
        ping_timeout: seconds for a pong, ``None`` to wait for none.
    """

    close_timeout: float = 10.0
    max_fragments: int = 1024

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        max_size: int,
        ping_interval: float | None,
        ping_timeout: float | None,
    ) -> None:
        self.loop = loop
        self.transport: asyncio.Transport
        self.paused = True
        self.write: Callable[[bytes], None] = _drop
        self.window_bits: int | None = None
        self._state = State.CONNECTING
        self._lost = False
        self._max_size = max_size
        self._deflate: PerMessageDeflate | None = None
        self._reader: FrameReader | None = None
        self._arrivals = Arrivals(loop, self._unhold)
        self._flowing = True
        """Whether the socket is read, and what it gives is handled at once."""
        self._held = False
        """Whether the reader waits until the application has received what it has."""
        self._keepalive = Keepalive(loop, ping_interval, ping_timeout, ping=self._ping, expired=self._keepalive_expired)
        self._pings: list[bytes] = []
        """Payloads of those that are not answered yet."""
        self._resumed: Callable[[], object] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Over TLS, asyncio's own limit is 512 KiB.
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._stream_ended()
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def eof_received(self) -> None:
        # The transport closes now, once all has left that is written: with a client that does not read, never.
        self._stream_ended()
        self._abort_in(self.close_timeout)

    def data_received(self, data: bytes) -> None:
        if self._state is State.ENDED:
            return
        if self._reader is None:
            self._handshake(data)
        else:
            self._reader.feed(data)
            if self._flowing:
                self._advance()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        if self._state is not State.OPEN:
            return
        self.paused = False
        self._answer_pings()
        self._wake_senders()
        if self._resumed is not None:
            self._resumed()

    def _handshake(self, data: bytes) -> None:
        """Read the request, and answer it or have it answered."""
        raise NotImplementedError

    def _expect_frames(self, deflate: PerMessageDeflate | None) -> None:
        """Take what comes from now on for frames; they are handled when the link is open."""
        self._deflate = deflate
        self._reader = FrameReader(self._max_size, self.max_fragments, deflate)

    def _open(self) -> None:
        """Begin with frames, in both directions."""
        self._state = State.OPEN
        self.paused = False
        self.write = self.transport.write
        if self._deflate is not None:
            self.window_bits = self._deflate.local_max_window_bits
        self._keepalive.start()
        self.loop.call_soon(self._advance)

    # Reading

    def _advance(self) -> None:
        """Handle what was read, one slice of it before the event loop gets its turn."""
        reader, arrivals = self._reader, self._arrivals
        if reader is None or self._state is State.ENDED:
            return
        if self._state is State.CONNECTING:  # a client has to wait for our response; one that can't is let be
            if reader.unread > MAX_BYTES:
                self._stop_flow()
            return
        try:
            for _ in range(SLICE):
                received = reader.read()
                if received is None:
                    self._caught_up()
                    break
                if isinstance(received, str | bytes):
                    if self._state is not State.CLOSING:
                        arrivals.add(received)
                elif isinstance(received, Ping):
                    self._pings.append(received.payload)
                elif isinstance(received, Pong):
                    self._keepalive.answered(received.payload)
                else:
                    self._end(received)
                    return
                if arrivals.full and self._state is not State.CLOSING:
                    self._stop_flow()
                    self._held = True
                    break
            else:
                self._stop_flow()
                self.loop.call_soon(self._advance)
        except Violation as violation:
            self._end(Close(violation.code, violation.reason), linger=True)
            return
        self._answer_pings()

    def _caught_up(self) -> None:
        if self._state is State.LOST:
            self._end(Close(1006, ""))
        else:
            self._resume_flow()

    def _resume_flow(self) -> None:
        if not self._flowing:
            self._flowing = True
            self.transport.resume_reading()

    def _stop_flow(self) -> None:
        if self._flowing:
            self._flowing = False
            if not self._lost:
                self.transport.pause_reading()

    def _unhold(self) -> None:
        if self._held:
            self._held = False
            self.loop.call_soon(self._advance)

    # Writing

    def attach(self, resumed: Callable[[], object]) -> None:
        self._resumed = resumed

    def frame(self, frame: Frame) -> bytes:
        if self._deflate is None or len(frame) < COMPRESSED_FROM:
            return framed(frame)
        opcode, payload = (Opcode.TEXT, frame.encode()) if isinstance(frame, str) else (Opcode.BINARY, frame)
        compressed = WireFrame(opcode, payload).serialize(mask=False, extensions=[self._deflate])
        return compressed if len(compressed) < len(payload) else framed(frame)

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    async def _drain(self) -> None:
        """Return when more may be written, or never will be."""
        while self.paused and self._state is State.OPEN:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.wait([self._drained])

    def _wake_senders(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set_result(None)

    def _ping(self, payload: bytes) -> None:
        if not self.paused:
            self.write(_control(Opcode.PING, payload))

    def _answer_pings(self) -> None:
        """Answer every ping, or the last one if the client does not even take answers (RFC 6455, section 5.5.3)."""
        if not self._pings:
            return
        if self.paused:
            del self._pings[:-1]
        else:
            pongs = b"".join(_control(Opcode.PONG, payload) for payload in self._pings)
            self._pings.clear()
            self.write(pongs)

    # The end

    def close(self, code: int, reason: str, timeout: float) -> None:
        if self._state is not State.OPEN:
            return
        self._write_close(Close(code if is_close_code(code) else 1011, cut_reason(reason)))
        self._state = State.CLOSING
        self._abort_in(timeout)
        self._unhold()

    def abort(self) -> None:
        if not self._lost:
            self.transport.abort()

    def _end(self, close: Close, *, linger: bool = False) -> None:
        """End after the client's close frame, or instead of it: tell both sides, and let go of the socket."""
        if self._state is State.OPEN:
            self._write_close(close)
        self._arrivals.end(close.code, close.reason)
        self._hang_up(linger=linger)

    def _keepalive_expired(self) -> None:
        self._write_close(Close(1011, "keepalive ping timeout"))
        self._arrivals.end(1006, "keepalive ping timeout")
        self._hang_up()

    def _stream_ended(self) -> None:
        """Note that nothing more comes from the client, now or after what is still to be handled."""
        self._stop_sending()
        if self._state is State.OPEN and not self._flowing:
            self._state = State.LOST
        elif self._state is not State.LOST:
            self._state = State.ENDED
            self._arrivals.end(1006)

    def _hang_up(self, *, linger: bool = False) -> None:
        """Close the socket when all has left that is written; abort it if that takes too long.

        Args:
            linger: wait for the client to close, because it may be sending: what the kernel has received for a
                socket that is closed makes it forget what it has still to send, our last words.
        """
        self._state = State.ENDED
        self._stop_sending()
        if self._lost:
            return
        self._abort_in(self.close_timeout)
        if linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self._resume_flow()
        else:
            self.transport.close()

    def _write_close(self, close: Close) -> None:
        self._answer_pings()
        payload = b"" if close.code == NO_STATUS else struct.pack("!H", close.code) + close.reason.encode()
        self.write(_control(Opcode.CLOSE, payload))
        self._stop_sending()

    def _stop_sending(self) -> None:
        self._keepalive.stop()
        self.paused = True
        self.write = _drop
        self._pings.clear()
        self._wake_senders()

    def _abort_in(self, timeout: float) -> None:
        if self._abort_timer is None and not self._lost:
            self._abort_timer = self.loop.call_later(timeout, self.abort)


def _control(opcode: Opcode, payload: bytes) -> bytes:
    """Return a control frame."""
    return bytes((FIN | opcode, len(payload))) + payload


def _drop(data: bytes) -> None:
    """Take the place of a transport's ``write`` where nothing is to be written."""
