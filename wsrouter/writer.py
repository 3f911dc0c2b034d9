"""What goes out on one socket: in order, bounded, every frame with a deadline."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.types import Message as Event

from wsrouter.codecs import Frame
from wsrouter.errors import cut_reason, is_close_code
from wsrouter.frames import CloseInfo, Send, event_of, size_of
from wsrouter.limits import Limits
from wsrouter.outbox import Outbox
from wsrouter.tasks import resume, wait_for_end, within

logger = logging.getLogger("wsrouter")

SLOW_CONSUMER: Final = 4508
LOST: Final = CloseInfo(1006)
"""What is known of a client to which nothing can be sent, until the server tells more."""
TURN_SENDS: Final = 256
"""After so many sends that the server took at once, whoever sends gives the loop back."""


class Writer:
    """The sending half of a connection.

    Whoever finds nothing waiting sends for itself. Everybody else queues, and a *writer* task sends what is
    queued; it is started when it is first needed.

    Args:
        send: the ASGI ``send``.
        limits: bounds and deadlines.
        on_close: called when this side begins to close.
    """

    __slots__ = (
        "_accepted",
        "_below_bound",
        "_gone",
        "_outbox",
        "_send",
        "_sends",
        "_wake_writer",
        "_writer",
        "_writing",
        "closed",
        "limits",
        "on_close",
        "turned_away",
    )

    def __init__(self, send: Send, limits: Limits, on_close: Callable[[], object]) -> None:
        self.limits = limits
        self.on_close = on_close
        self.turned_away: CloseInfo | None = None
        """How it is to be denied, although no guard did: somebody ended it before it was accepted."""
        self._send = send
        self._accepted = False
        self.closed: CloseInfo | None = None
        """How it ended or is being ended, ``None`` while it is open."""
        self._gone = False
        self._sends = 0
        self._outbox: Outbox[Event] | None = None
        self._writing = False
        self._writer: asyncio.Task[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None
        self._below_bound: asyncio.Future[None] | None = None

    async def accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        """Accept the handshake.

        Raises:
            OSError: the client has left, or the server does not take it within ``Limits.send`` (`TimeoutError`).
        """
        # The first message may come before this returns: what it makes us send waits until then.
        self._accepted = self._writing = True
        event: Event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
        await within(self.limits.send, self._send(event))
        self._writing = False
        if self._outbox:
            self._wake()

    async def write(self, frame: Frame) -> None:
        """Send a frame; see `Connection.send`."""
        if self.closed is not None:
            await asyncio.sleep(0)  # a loop that does nothing but send would hold up everybody else
            return
        if not self._accepted:
            raise RuntimeError("The connection is not accepted yet: guards and constructors can't send; on_connect can")
        event: Event = {"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}
        if self._writing or self._outbox:
            self._queue(event, size_of(frame))
            if self._outbox is not None and self._outbox.full:
                await self._wait_below_bound()
            return
        self._writing = True
        try:
            sending = self._send(event)
            try:
                yielded = sending.send(None)
            except StopIteration:
                self._sends += 1
                if self._sends % TURN_SENDS == 0:
                    await asyncio.sleep(0)
                return
            await self._finish(sending, yielded)
        except Exception as exc:
            self._failed(exc)
        finally:
            self._writing = False
            if self._outbox:
                self._wake()

    def reply(self, frame: Frame) -> None:
        """Queue an answer that nobody can wait for. A full outbox closes the connection with 4508."""
        self.publish(event_of(frame), size_of(frame))

    def publish(self, event: Event, size: int) -> None:
        """Queue a publication; it never waits. A full outbox closes the connection with 4508."""
        if self.closed is not None or not self._accepted:
            return
        if self._outbox is not None and self._outbox.full:
            self.start_close(SLOW_CONSUMER, "slow consumer", discard=True)
        else:
            self._queue(event, size)

    def start_close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Queue the close frame; nothing is sent after it. The first close counts, later ones do nothing."""
        if not is_close_code(code):
            raise ValueError(f"close({code}): no endpoint may send that close code; use 1000 or 3000 to 4999")
        if self.closed is not None:
            return
        if not self._accepted:
            raise RuntimeError("The connection is not accepted yet: raise Deny to turn it away")
        reason = cut_reason(reason)
        self.closed = CloseInfo(code, reason, "server")
        if discard and self._outbox is not None:
            self._outbox.clear()
        self._release_senders()
        self._queue({"type": "websocket.close", "code": code, "reason": reason}, 0)
        self._wake()
        self.on_close()

    def turn_away(self, code: int, reason: str) -> None:
        """Close, or if the handshake is not through yet see to it that it is denied; for who ends it from outside."""
        if self._accepted:
            self.start_close(code, reason)
        elif self.turned_away is None:
            self.turned_away = CloseInfo(code, cut_reason(reason), "server")

    async def flushed(self) -> None:
        """Wait until what is queued is sent, for at most ``Limits.close`` seconds."""
        if self._writer is not None and self._writer is not asyncio.current_task():
            await asyncio.wait([self._writer], timeout=self.limits.close)

    def lost(self, close: CloseInfo) -> None:
        """Note that the client has left: nothing can be sent any more."""
        if self.closed is None or self.closed is LOST:
            self.closed = close
        self._gone = True
        if self._outbox is not None:
            self._outbox.clear()
        self._release_senders()
        if self._writer is not None:
            self._wake()

    async def aclose(self) -> None:
        """End the writer."""
        if self.closed is None:
            self.closed = CloseInfo(1006, by="server")
        if self._writer is not None:
            self._writer.cancel()
            cancelled = await wait_for_end(self._writer, self.limits.close)
            if cancelled is not None:
                raise cancelled

    def forget(self) -> None:
        """Let go of the callback, when all is over."""
        self.on_close = lambda: None

    async def _transmit(self, event: Event) -> None:
        """Hand one event to the server."""
        try:
            await within(self.limits.send, self._send(event))
        except TimeoutError:
            self._stalled()
        except Exception as exc:
            self._failed(exc)

    async def _finish(self, sending: Coroutine[Any, Any, None], yielded: Any) -> None:
        try:
            async with asyncio.timeout(self.limits.send):
                await resume(sending, yielded)
        except TimeoutError:
            self._stalled()

    def _failed(self, exc: Exception) -> None:
        if isinstance(exc, OSError | RuntimeError):
            logger.debug("%r: sending failed, the client is taken for gone", self, exc_info=exc)
            self.lost(LOST)
            return
        logger.error("%r: sending failed", self, exc_info=exc)
        if self.closed is None:
            self.start_close(1011, "internal error", discard=True)
        else:
            self.lost(LOST)

    def _stalled(self) -> None:
        if self.closed is None:
            self.start_close(SLOW_CONSUMER, "slow consumer", discard=True)

    def _queue(self, event: Event, size: int) -> None:
        if self._outbox is None:
            self._outbox = Outbox(self.limits.outbox_bytes, self.limits.outbox_frames)
        self._outbox.push(event, size)
        if not self._writing:
            self._wake()

    def _wake(self) -> None:
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_queued(), name="wsrouter writer")
        elif self._wake_writer is not None and not self._wake_writer.done():
            self._wake_writer.set_result(None)

    async def _write_queued(self) -> None:
        outbox = self._outbox
        assert outbox is not None, "the writer is started by the first event that is queued"
        loop = asyncio.get_running_loop()
        while True:
            while outbox and not self._writing:
                event = outbox.pop()
                self._writing = True
                try:
                    await self._transmit(event)
                finally:
                    self._writing = False
                if not outbox.full:
                    self._release_senders()
                if event["type"] == "websocket.close":
                    return
            if self._gone:
                return
            self._wake_writer = loop.create_future()
            await self._wake_writer

    async def _wait_below_bound(self) -> None:
        if self._below_bound is None:
            self._below_bound = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.limits.send):
                await asyncio.shield(self._below_bound)
        except TimeoutError:
            self._stalled()

    def _release_senders(self) -> None:
        if self._below_bound is not None:
            self._below_bound.set_result(None)
            self._below_bound = None
