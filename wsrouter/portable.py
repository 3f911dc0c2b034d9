"""A connection on any ASGI server: everything goes through ``send``."""

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import islice
from typing import Any, Final

from starlette.types import Message as Event

from wsrouter.codecs import Frame
from wsrouter.connection import ServerConnection
from wsrouter.frames import CloseInfo, Send, event_of, size_of
from wsrouter.outbox import Gap
from wsrouter.runs import Run
from wsrouter.tasks import resume, wait_for_end
from wsrouter.writer import TURN_SENDS

BARE: Final = ("uvicorn.protocols.websockets.", "wsrouter.uvicorn.")
"""The modules of servers whose ``send`` is as simple as that."""


class PortableConnection(ServerConnection):
    """Whoever finds nothing waiting sends for itself; everybody else queues.

    A *writer* task sends what is queued; it is started when it is first needed, and then parked. Publications for
    a client that keeps up are handed to it as they are, and enter the outbox only if it is still at work. Where
    ``send`` is the server's own, not wrapped by any middleware, they need no task: it is called at once, and only
    if it has to wait the writer goes on with it.
    """

    __slots__ = ("_bare", "_begun", "_gone", "_handed_over", "_wake_writer", "_writer", "_writing")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bare = is_bare(self._send)
        self._begun: tuple[Coroutine[Any, Any, None], Any] | None = None
        """A ``send`` that has to wait, and what for."""
        self._gone = False
        self._writing = False
        self._handed_over: Sequence[Run] = ()
        self._writer: asyncio.Task[None] | None = None
        self._wake_writer: asyncio.Future[None] | None = None

    async def accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        self._writing = True
        await super().accept(subprotocol, headers)
        self._writing = False
        if self._outbox:
            self._wake()

    async def write(self, frame: Frame) -> None:
        if self.closed is not None:
            await asyncio.sleep(0)  # a loop that does nothing but send would hold up everybody else
            return
        if not self._accepted:
            raise RuntimeError("The connection is not accepted yet: guards and constructors can't send; on_connect can")
        event: Event = {"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}
        self.take_along()
        if self.cork:
            self._enqueue_cork()
        if self._writing or self._outbox or self._handed_over:
            if self._put(event, size_of(frame)):
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
            self.failed(exc)
        finally:
            self._writing = False
            if self._outbox:
                self._wake()

    def reply(self, frame: Frame) -> None:
        self.take_along()
        self._enqueue_cork()
        if not self._accepted:
            return
        if self._writing and self._outbox is not None and self._outbox.full:
            self.too_slow()
        else:
            self._put(event_of(frame), size_of(frame))

    def flush(self) -> bool:
        runs = self.cork
        if not runs:
            return False
        if self.closed is not None or self._writing or self._outbox or self._handed_over:
            self._enqueue_cork()
            return False
        self.cork = []
        for run in runs:
            run.open = False
        if self._bare:
            self._begin(*runs)
            return False
        try:
            for run in runs:
                run.events(self.codec)
        except Exception as exc:
            self.unwritable(exc)
            return False
        self._handed_over = runs
        self._wake()
        return True

    def take(self, run: Run) -> bool:
        waits = self.cork or self._writing or self._outbox or self._handed_over
        if waits or not self._bare or self.closed is not None:
            return super().take(run)
        self._begin(run)
        return False

    async def flushed(self) -> None:
        if self._writer is not None and self._writer is not asyncio.current_task():
            await asyncio.wait([self._writer], timeout=self.limits.close)

    def lost(self, close: CloseInfo) -> None:
        super().lost(close)
        self._gone = True
        if self._writer is not None:
            self._wake()

    async def aclose(self) -> None:
        if self.closed is None:
            self.closed = CloseInfo(1006, by="server")
        if self._begun is not None:
            self._begun[0].close()
        if self._writer is not None:
            self._writer.cancel()
            cancelled = await wait_for_end(self._writer, self.limits.close)
            if cancelled is not None:
                raise cancelled

    def _send_close(self, code: int, reason: str) -> None:
        self._queue({"type": "websocket.close", "code": code, "reason": reason}, 0)
        self._wake()

    def _discard(self) -> None:
        super()._discard()
        self._handed_over = ()

    def _begin(self, *runs: Run) -> None:
        """Send publications, as long as the server takes them at once."""
        for number, run in enumerate(runs, 1):
            try:
                events = run.events(self.codec)
            except Exception as exc:
                self.unwritable(exc)
                return
            place = 0
            for event, _ in events:
                place += 1
                sending = self._send(event)
                try:
                    yielded = sending.send(None)
                except StopIteration:
                    continue
                except Exception as exc:
                    self.failed(exc)
                    return
                self._begun = sending, yielded
                self._writing = True
                self._enqueue(run, place)
                for later in runs[number:]:
                    self._enqueue(later)
                self._wake()
                return

    def _enqueue_cork(self) -> None:
        """Move what is corked into the outbox, before what comes next."""
        runs, self.cork = self.cork, []
        for run in runs:
            self._enqueue(run)
        if runs and not self._writing:
            self._wake()

    def _enqueue(self, run: Run, first: int = 0) -> None:
        """Put publications into the outbox, those before ``first`` left out.

        Policies are for a client that holds its sender back. While the writer has merely not had its turn, nobody is
        slow, however much one iteration of the event loop brings.
        """
        run.open = False
        if self.closed is not None or not self._accepted:
            return
        try:
            events = run.events(self.codec)
        except Exception as exc:
            self.unwritable(exc)
            return
        for (event, size), prepared in islice(zip(events, run.prepared, strict=True), first, None):
            if not self._writing:
                self._queue(event, size)
            elif not self._offer(run, event, size, prepared.key):
                return

    def _put(self, event: Event, size: int) -> bool:
        """Queue an event of this connection's own; true if the outbox is full now."""
        if self.closed is not None:
            return False
        full = self._queue(event, size).full
        if not self._writing:
            self._wake()
        return full

    async def _finish(self, sending: Coroutine[Any, Any, None], yielded: Any) -> None:
        try:
            async with asyncio.timeout(self.limits.send):
                await resume(sending, yielded)
        except TimeoutError:
            self.too_slow()

    def _wake(self) -> None:
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="wsrouter writer")
        elif self._wake_writer is not None and not self._wake_writer.done():
            self._wake_writer.set_result(None)

    async def _write(self) -> None:
        """Send what is handed over and what is queued, for as long as the connection lives."""
        loop = asyncio.get_running_loop()
        while True:
            if self._begun is not None:
                begun, self._begun = self._begun, None
                await self._go_on(*begun)
            if not self._writing:
                for run in self._handed_over:
                    for event, _ in run.events(self.codec):
                        if self._handed_over:  # else it was discarded meanwhile
                            await self._transmit(event)
                self._handed_over = ()
            outbox = self._outbox
            while outbox and not self._writing:
                item = outbox.pop()
                try:
                    event = event_of(self._gap(item)) if isinstance(item, Gap) else item
                except Exception as exc:
                    self.unwritable(exc)
                    continue
                await self._transmit(event)
                if not outbox.full:
                    self._release_senders()
                if event["type"] == "websocket.close":
                    return
            if self._gone:
                return
            if self._outbox is not outbox:
                continue
            self._wake_writer = loop.create_future()
            await self._wake_writer

    async def _transmit(self, event: Event) -> None:
        self._writing = True
        try:
            sending = self._send(event)
            yielded = sending.send(None)
        except StopIteration:
            self._writing = False
        except Exception as exc:
            self._writing = False
            self.failed(exc)
        else:
            await self._go_on(sending, yielded)

    async def _go_on(self, sending: Coroutine[Any, Any, None], yielded: Any) -> None:
        """Wait for the end of a ``send`` that was begun."""
        try:
            await self._finish(sending, yielded)
        except Exception as exc:
            self.failed(exc)
        finally:
            self._writing = False


def is_bare(send: Send) -> bool:
    """Whether a ``send`` is the method of a server's that is known to wait for nothing but the client.

    Such a coroutine may be begun outside of a task and ended in another: it sets no context variable and enters no
    cancel scope, which middleware may do.
    """
    owner: object = getattr(send, "__self__", None)
    return type(owner).__module__.startswith(BARE)
