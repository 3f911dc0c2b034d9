"""What a session handles at the moment: one message at a time in its own task, or several in tasks."""

import asyncio
import logging

from wsrouter.calls import Call
from wsrouter.chain import Bound, Chain
from wsrouter.connection import ServerConnection
from wsrouter.dispatch import Dispatcher
from wsrouter.errors import WebSocketError
from wsrouter.handshake import Admitted
from wsrouter.inbox import Inbox
from wsrouter.intake import Intake
from wsrouter.outcome import closing_of
from wsrouter.tasks import current_task, drive, first_of, resume, wait_for_end

logger = logging.getLogger("wsrouter")


class Work:
    """The calls of one connection, from the inbox to their end.

    Args:
        chain: the handler in its chain of routers.
        connection: the connection.
        inbox: where calls wait.
        intake: keeps the ids of those that wait.
    """

    __slots__ = ("_chain", "_connection", "_current", "_dispatching", "_inbox", "_intake", "_task", "_tasks")

    def __init__(self, chain: Chain, connection: ServerConnection, inbox: Inbox[Call], intake: Intake) -> None:
        self._chain = chain
        self._connection = connection
        self._inbox = inbox
        self._intake = intake
        self._task = current_task()
        self._current: Call | None = None
        self._tasks: dict[asyncio.Task[None], Call] | None = None
        self._dispatching = False

    @property
    def idle(self) -> bool:
        """Whether it waits for messages, and for nothing else."""
        return self._dispatching and self._current is None and not self._tasks and self._inbox.empty

    async def connect(self, bound: Bound, dispatcher: Dispatcher, admitted: Admitted) -> bool:
        """Run ``on_connect``; false if it failed and the connection is being closed."""
        call = self._begin(Call("", None, None, 0, bound))
        try:
            await drive(dispatcher.connect(bound, admitted.arguments, admitted.stack, call), self._inbox.suspended)
        except (Exception, asyncio.CancelledError) as exc:
            if self._cancelled_from_outside(call, exc):
                raise
            if call.cause is None:
                self._connection.start_close(*closing_of(exc, bound.name))
            return False
        finally:
            call.end()
            self._current = None
        return True

    async def dispatch(self, dispatcher: Dispatcher, most: int) -> None:
        """Handle messages until there are no more: one at a time here, or up to ``most`` in tasks."""
        inbox = self._inbox
        self._dispatching = True
        timed = self._chain.limits.message_timeout is not None
        while (call := await inbox.next()) is not None:
            if most > 1:
                await self._spawn(dispatcher, call)
                while self._tasks and len(self._tasks) >= most:
                    await drive(first_of(self._tasks), inbox.suspended)
                continue
            self._current = call
            call.task = self._task
            timer = self._limit(call) if timed else None
            handling = dispatcher.handle(call)
            try:  # `drive`, spelled out: every message pays for this
                yielded = handling.send(None)
                inbox.suspended()
                await resume(handling, yielded)
            except StopIteration:
                pass
            finally:
                self._current = None
                if timer is not None:
                    timer.cancel()
        while self._tasks:
            await drive(first_of(self._tasks), inbox.suspended)

    def cancel(self, call: Call) -> None:
        """Do what ``$cancel`` asks for: drop a call that waits, and answer it, or cancel one that runs."""
        if self._inbox.remove(call):
            self._intake.done(call)
            error = WebSocketError("cancelled").as_data()
            self._connection.reply(self._connection.codec.control("$error", call.id, error=error))
        else:
            call.cancel("cancelled")

    def wind_up(self) -> None:
        """Note that the connection ends: streams do at once, everything where the class says so."""
        if self._chain.table.cls.cancel_on_disconnect:
            self.end()
        for call in self._running():
            if call.streams:
                call.cancel("ended")

    def end(self, again: bool = False) -> None:
        """Drop what waits and cancel what runs; with ``again`` also what was cancelled before, and goes on."""
        self.drop_waiting()
        for call in self._running():
            call.cancel("ended", again=again)

    def drop_waiting(self) -> None:
        """Forget what waits: it is not handled any more."""
        for call in self._inbox.drop():
            self._intake.done(call)

    def abandon(self) -> None:
        """Cancel what still runs although it was cancelled, its clean-up too."""
        for call in self._running():
            place = "a message" if call.bound is None else call.bound.name
            logger.error("%r: %s did not end after the client had left, and is cancelled", self._connection, place)
            call.abandon()

    async def ended(self) -> asyncio.CancelledError | None:
        """Wait for what is under way, through cancellations; return the first of them."""
        cancelled: asyncio.CancelledError | None = None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._chain.limits.drain
        for task in list(self._tasks or ()):
            cancelled = await wait_for_end(task, deadline - loop.time()) or cancelled
            if not task.done():
                task.cancel()
                cancelled = await wait_for_end(task) or cancelled
        return cancelled

    def forget(self) -> None:
        """Let go of what refers back to it, when all is over; a task that was cancelled does by its traceback."""
        del self._task

    async def _spawn(self, dispatcher: Dispatcher, call: Call) -> None:
        """Handle a call in a task of its own, after what it needs of the connection scope was opened here."""
        timer = self._limit(call)
        try:
            await drive(dispatcher.open_lasting(self._begin(call)), self._inbox.suspended)
        except (Exception, asyncio.CancelledError) as exc:
            if self._cancelled_from_outside(call, exc):
                raise
            if timer is not None:
                timer.cancel()
            await drive(dispatcher.fail(call, exc), self._inbox.suspended)
            return
        finally:
            self._current = None
        loop = asyncio.get_running_loop()
        call.task = task = loop.create_task(dispatcher.handle(call), name="wsrouter call")
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = call
        task.add_done_callback(self._task_done)
        if timer is not None:
            task.add_done_callback(lambda _: timer.cancel())

    def _begin(self, call: Call) -> Call:
        call.task = self._task
        self._current = call
        if self._connection.closed is not None and self._chain.table.cls.cancel_on_disconnect:
            asyncio.get_running_loop().call_soon(call.cancel, "ended")
        return call

    def _limit(self, call: Call) -> asyncio.TimerHandle | None:
        timeout = self._chain.limits.message_timeout
        if timeout is None or call.streams:
            return None
        return asyncio.get_running_loop().call_later(timeout, call.cancel, "timeout")

    def _cancelled_from_outside(self, call: Call, exc: BaseException) -> bool:
        call.end()
        return isinstance(exc, asyncio.CancelledError) and call.cause is None and self._task.cancelling() > 0

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        if self._tasks is not None:
            self._tasks.pop(task, None)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("%r: handling a message failed", self._connection, exc_info=exc)

    def _running(self) -> list[Call]:
        running = [] if self._tasks is None else list(self._tasks.values())
        return running if self._current is None else [self._current, *running]
