"""The writing half of a socket: whole frames, compressed where that pays, and held back while the client is slow."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from wsrouter.codecs import Frame
from wsrouter.transports import framed
from wsrouter.uvicorn.reader import FIN

HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384
"""Bytes that wait for the kernel: above the first nothing more is to be written, until they are below the second."""
UNSENT: Final = 131_072
"""Bytes that the kernel takes before it can send them (``TCP_NOTSENT_LOWAT``). By itself it takes some MiB, which get
old where no policy sees them, and more only when a third of them has left: a slow client seems to take nothing."""
_OVER_TCP: Final = (socket.AF_INET, socket.AF_INET6)
COMPRESSED_FROM: Final = 1024
"""Bytes. A smaller message is not worth it: without context takeover there is nothing to refer to."""


class Sender(asyncio.Protocol):
    """What writes to a socket; nothing leaves before `_start_sending` and after `_stop_sending`.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport
        self.paused = True
        self.write: Callable[[bytes], None] = _drop
        self.window_bits: int | None = None
        self._sending = False
        self._deflate: PerMessageDeflate | None = None
        self._resumed: Callable[[], object] | None = None
        self._paused: Callable[[], object] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._pings: list[bytes] = []
        """Payloads of those that are not answered yet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Over TLS, asyncio's own limit is 512 KiB.
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        # asyncio does so itself, but not for a socket that uvicorn has bound (--workers, --fd). There a frame that
        # follows another would wait until the client has acknowledged that one: 40 ms.
        end = self.transport.get_extra_info("socket")
        if end is not None and end.family in _OVER_TCP:
            with suppress(OSError):  # it is closed already
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def pause_writing(self) -> None:
        self._pause()

    def resume_writing(self) -> None:
        if not self._sending:
            return
        self.paused = False
        self._answer_pings()
        if not self.paused:
            self._wake_senders()
            if self._resumed is not None:
                self._resumed()

    @property
    def ended(self) -> bool:
        # The transport knows before `connection_lost` is called, and a write to it is logged from the fifth on.
        return not self._sending or self.transport.is_closing()

    def attach(self, resumed: Callable[[], object], paused: Callable[[], object]) -> None:
        if self._sending:
            self._resumed, self._paused = resumed, paused

    def frame(self, frame: Frame) -> bytes:
        if self._deflate is None or len(frame) < COMPRESSED_FROM:
            return framed(frame)
        opcode, payload = (Opcode.TEXT, frame.encode()) if isinstance(frame, str) else (Opcode.BINARY, frame)
        compressed = WireFrame(opcode, payload).serialize(mask=False, extensions=[self._deflate])
        return compressed if len(compressed) < len(payload) else framed(frame)

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def _start_sending(self, deflate: PerMessageDeflate | None) -> None:
        self._sending = True
        self.paused = False
        self.write = self.transport.write
        self._deflate = deflate
        self.window_bits = None if deflate is None else deflate.local_max_window_bits

    def _stop_sending(self) -> None:
        self._sending = False
        self._pause()
        self.write = _drop
        self._resumed = self._paused = None  # or what was sent and who sent it would keep each other
        self._pings.clear()
        self._wake_senders()

    def _pause(self) -> None:
        self.paused = True
        if self._paused is not None:
            self._paused()

    async def _drain(self) -> None:
        """Return when more may be written, or nothing ever will be."""
        while self.paused and self._sending:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.wait([self._drained])

    def _wake_senders(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set_result(None)

    def _answer_pings(self) -> None:
        """Answer every ping, or the last one if the client does not even take answers (RFC 6455, section 5.5.3)."""
        if not self._pings:
            return
        if self.paused:
            del self._pings[:-1]
        else:
            pongs = b"".join(control(Opcode.PONG, payload) for payload in self._pings)
            self._pings.clear()
            self.write(pongs)


def control(opcode: Opcode, payload: bytes) -> bytes:
    """Return a control frame; its payload has at most 125 bytes."""
    return bytes((FIN | opcode, len(payload))) + payload


def _drop(data: bytes) -> None:
    """Take the place of a transport's ``write`` where nothing is to be written."""
