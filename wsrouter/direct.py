"""A connection on a server whose protocol class offers the way straight to the socket."""

import asyncio
from typing import Any, Final

from wsrouter.codecs import Frame
from wsrouter.connection import ServerConnection
from wsrouter.frames import CloseInfo
from wsrouter.outbox import Gap
from wsrouter.runs import Run
from wsrouter.transports import DirectTransport
from wsrouter.writer import TURN_SENDS

LOOK_SENDS: Final = 4
"""After so many sends it is looked whether the socket is gone: a loop of sends may give nobody a turn to say so."""
CHUNK: Final = 64 * 1024
"""Bytes of waiting frames that are joined for one write."""


class DirectConnection(ServerConnection):
    """Writes whole frames to the transport; no task and no hop for a client that keeps up.

    What the kernel does not take soon waits in the outbox, where policies apply, not in the transport.

    Args:
        transport: the way to the socket.
    """

    __slots__ = ("_attached", "_close", "_deadline", "_drained", "_transport")

    def __init__(self, transport: DirectTransport, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transport = transport
        self._attached = False
        """Whether accept is through: until then the transport takes nothing, a close frame neither."""
        self._deadline: asyncio.TimerHandle | None = None
        """Until then the client has to take something, or what waits before the close frame."""
        self._drained: asyncio.Future[None] | None = None
        self._close: tuple[int, str] | None = None
        """Code and reason of a close frame that waits for what was sent before it."""

    async def accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        await super().accept(subprotocol, headers)
        self._transport.attach(self._resumed, self._paused)
        self._attached = True
        self._resumed()
        if self._transport.ended:
            self._paused()

    @property
    def pending_bytes(self) -> int:
        return super().pending_bytes + (self._transport.buffered() if self._accepted else 0)

    async def write(self, frame: Frame) -> None:
        if self.closed is not None:
            await asyncio.sleep(0)  # a loop that does nothing but send would hold up everybody else
            return
        if not self._accepted:
            raise RuntimeError("The connection is not accepted yet: guards and constructors can't send; on_connect can")
        transport = self._transport
        try:
            data = transport.frame(frame)
        except ValueError as exc:
            self.unwritable(exc)
            return
        if self.shared.lone is not None:
            self.take_along()
        if self.cork:
            self._flush(data)
        elif transport.paused or self._outbox:
            self._put(data)
        else:
            transport.write(data)
        if self._outbox is not None and self._outbox.full:
            await self._wait_below_bound()
        else:
            self._sends += 1
            if not self._sends % LOOK_SENDS and transport.ended:
                self._paused()
            if not self._sends % TURN_SENDS:
                await asyncio.sleep(0)

    def reply(self, frame: Frame) -> None:
        if self.closed is not None or not self._accepted:
            return
        if self._outbox is not None and self._outbox.full:
            self.too_slow()
        else:
            self.take_along()
            self._flush(self._transport.frame(frame))

    def flush(self) -> bool:
        cork = self.cork
        if not cork:
            return False
        transport = self._transport
        if len(cork) > 1 or transport.paused or self._outbox or self.closed is not None:
            self._flush()
            return False
        run = cork[0]
        run.open = False
        cork.clear()
        try:
            data = run.wire(self.codec, transport.window_bits)
        except Exception as exc:
            self.unwritable(exc)
        else:
            transport.write(data)
        return False

    async def flushed(self) -> None:
        if self._outbox and self.closed is not None:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=self.limits.close)

    def lost(self, close: CloseInfo) -> None:
        super().lost(close)
        self._all_drained()

    async def aclose(self) -> None:
        if self.closed is None:
            self.closed = CloseInfo(1006, by="server")
        self.straight = None
        if self._outbox:
            self._discard()
            self._transport.abort()
        self._all_drained()

    def _flush(self, last: bytes | None = None) -> None:
        """Send on what is corked, and then a frame of this connection's own, with as few writes as can be."""
        runs, self.cork = self.cork, []
        transport, codec = self._transport, self.codec
        chunk: list[bytes] = []
        size = 0
        for run in runs:
            run.open = False
            if self.closed is not None or not self._accepted:
                continue
            try:
                if transport.paused or self._outbox:
                    self._offer_all(run)
                    continue
                chunk.append(run.wire(codec, transport.window_bits))
            except Exception as exc:
                self.unwritable(exc)
                continue
            size += len(chunk[-1])
            if size >= CHUNK:
                transport.write(b"".join(chunk))
                chunk, size = [], 0
        if last is not None and self.closed is None and (transport.paused or self._outbox):
            self._put(last)
        elif last is not None and self.closed is None:
            chunk.append(last)
        if chunk:
            transport.write(b"".join(chunk))

    def _offer_all(self, run: Run) -> None:
        frames = run.frames(self.codec, self._transport.window_bits)
        for frame, prepared in zip(frames, run.prepared, strict=True):
            if not self._offer(run, frame, len(frame), prepared.key):
                return
        self._expect_progress()

    def _put(self, data: bytes) -> None:
        self._queue(data, len(data))
        self._expect_progress()

    def _expect_progress(self) -> None:
        if self._deadline is None and self._outbox:
            self._deadline = asyncio.get_running_loop().call_later(self.limits.send, self._stalled)

    def _stalled(self) -> None:
        self._deadline = None
        self.too_slow()

    def _paused(self) -> None:
        self.straight = None
        if self.closed is None and self._transport.ended:
            self.cut_off()

    def _resumed(self) -> None:
        """Write what waits, as much as the transport takes."""
        outbox, transport = self._outbox, self._transport
        if self._deadline is not None and self.closed is None:
            self._deadline.cancel()
            self._deadline = None
        while outbox and not transport.paused:
            chunk: list[bytes] = []
            size = 0
            while outbox and size < CHUNK:
                item = outbox.pop()
                try:
                    chunk.append(transport.frame(self._gap(item)) if isinstance(item, Gap) else item)
                except Exception as exc:
                    self.unwritable(exc)
                    continue
                size += len(chunk[-1])
            transport.write(b"".join(chunk))
        if outbox:
            if self.closed is None:
                self._expect_progress()
            if not outbox.full:
                self._release_senders()
            return
        if self.closed is None and not transport.paused:
            self.straight = transport.write
        self._release_senders()
        self._all_drained()
        if self._close is not None:
            self._transport.close(*self._close, self.limits.close)
            self._close = None

    def _send_close(self, code: int, reason: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._outbox or not self._attached:
            self._close = code, reason
            self._deadline = asyncio.get_running_loop().call_later(self.limits.close, self._give_up)
        else:
            self._transport.close(code, reason, self.limits.close)

    def _give_up(self) -> None:
        """Drop a client that has not taken in time what was sent before the close frame."""
        self._discard()
        self._transport.abort()
        self._all_drained()

    def _all_drained(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
