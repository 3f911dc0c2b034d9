"""One socket that speaks WebSocket (RFC 6455): reads in slices, and ends in every case."""

import asyncio
import select
import socket
import struct
import sys
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode

from wsrouter.errors import cut_reason, is_close_code
from wsrouter.uvicorn.arrivals import MAX_BYTES, Arrivals
from wsrouter.uvicorn.keepalive import Keepalive
from wsrouter.uvicorn.reader import FrameReader, Ping, Pong, Violation
from wsrouter.uvicorn.sending import Sender, control

LOOK_EVERY: Final = 0.25
"""Seconds after which a client that is not read is looked for."""
SLICE: Final = 128
"""Frames that are handled before the event loop gets its turn."""
_RESET: Final = struct.pack("ii", 1, 0)
"""Closing resets the connection (``SO_LINGER`` of no seconds), as RFC 9293, section 3.10.5, has it for an abort."""
NO_STATUS: Final = 1005
"""Stands for a close frame without a code (RFC 6455, section 7.1.5)."""


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


class Link(Sender):
    """Reads what a client sends, keeps the connection alive, and ends it.

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
        super().__init__(loop)
        self._state = State.CONNECTING
        self._lost = False
        self._max_size = max_size
        self._reader: FrameReader | None = None
        self._arrivals = Arrivals(loop, self._unhold)
        self._flowing = True
        """Whether the socket is read, and what it gives is handled at once."""
        self._held = False
        """Whether the reader waits until the application has received what it has."""
        self._keepalive = Keepalive(loop, ping_interval, ping_timeout, ping=self._ping, expired=self._keepalive_expired)
        self._abort_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._stream_ended()
        for timer in (self._abort_timer, self._look_timer):
            if timer is not None:
                timer.cancel()

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

    def _handshake(self, data: bytes) -> None:
        """Read the request, and answer it or have it answered."""
        raise NotImplementedError

    def _expect_frames(self, deflate: PerMessageDeflate | None) -> None:
        """Take what comes from now on for frames; they are handled when the link is open."""
        self._reader = FrameReader(self._max_size, self.max_fragments, deflate)

    def _open(self, deflate: PerMessageDeflate | None) -> None:
        """Begin with frames, in both directions."""
        self._state = State.OPEN
        self._start_sending(deflate)
        self._keepalive.start()
        self._advance()

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
                if isinstance(received, (str, bytes)):
                    if self._state is not State.CLOSING:
                        arrivals.add(received)
                elif isinstance(received, Ping):
                    self._pings.append(received.payload)
                elif isinstance(received, Pong):
                    self._keepalive.answered(received.payload)
                elif isinstance(received, Close):
                    self._end(received)
                    return
                if arrivals.full and self._state is not State.CLOSING:
                    self._hold()
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

    def _hold(self) -> None:
        """Read no more until the application has received what there is; whether the client is there is looked at."""
        self._stop_flow()
        self._held = True
        if self._look_timer is None:
            self._look_timer = self.loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        """Find out that a client is gone whose socket is not read: what it sent before is still to be received."""
        self._look_timer = None
        if self._held and self._sending:
            if has_hung_up(self.transport.get_extra_info("socket")):
                super()._stop_sending()
            else:
                self._look_timer = self.loop.call_later(LOOK_EVERY, self._look)

    def _unhold(self) -> None:
        if self._held:
            self._held = False
            self.loop.call_soon(self._advance)

    def close(self, code: int, reason: str, timeout: float) -> None:
        if self._state is not State.OPEN:
            return
        self._write_close(Close(code if is_close_code(code) else 1011, cut_reason(reason)))
        self._state = State.CLOSING
        self._abort_in(timeout)
        self._unhold()

    def abort(self) -> None:
        if self._lost:
            return
        # Without it the kernel keeps the socket, with what the client did not take, for as long as it does not answer.
        end = self.transport.get_extra_info("socket")
        if end is not None:
            with suppress(OSError, ValueError):  # of a platform that has it otherwise, or a socket that is closed
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _end(self, close: Close, *, linger: bool = False) -> None:
        """End after the client's close frame, or instead of it: tell both sides, and let go of the socket."""
        if self._state is State.OPEN:
            self._write_close(close)
        self._arrivals.end(close.code, close.reason)
        self._hang_up(linger=linger)

    def _ping(self, payload: bytes) -> None:
        if not self.paused or self._keepalive.waits:
            self.write(control(Opcode.PING, payload))

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
        self.write(control(Opcode.CLOSE, payload))
        self._stop_sending()

    def _stop_sending(self) -> None:
        self._keepalive.stop()
        super()._stop_sending()

    def _abort_in(self, timeout: float) -> None:
        if self._abort_timer is None and not self._lost:
            self._abort_timer = self.loop.call_later(timeout, self.abort)


def has_hung_up(end: socket.socket | None) -> bool:
    """Whether a client has closed its socket, or reset it, whatever of it is still unread.

    Where the platform does not tell of an end behind unread bytes (``POLLRDHUP`` is Linux's), resets are found.
    """
    if sys.platform == "win32" or end is None or end.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(end.fileno(), select.POLLRDHUP if sys.platform == "linux" else 0)
    return bool(poll.poll(0))
