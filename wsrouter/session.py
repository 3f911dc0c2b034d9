"""The life of one connection: the handshake, the one loop that dispatches, the end."""

import asyncio
import logging
from contextlib import AsyncExitStack

from starlette.websockets import WebSocket

from wsrouter._fastapi import raw_channels
from wsrouter.calls import Call
from wsrouter.chain import Bound, Chain
from wsrouter.connection import Connection, message_encoder
from wsrouter.dispatch import Dispatcher
from wsrouter.errors import WebSocketError
from wsrouter.frames import CloseInfo
from wsrouter.handshake import Admitted, Handshake
from wsrouter.inbox import Inbox
from wsrouter.intake import Intake
from wsrouter.outcome import closing_of, unwind
from wsrouter.plans import ConnectionScope
from wsrouter.tasks import current_task, drive, first_of, insist, resume, shielded, wait_for_end

logger = logging.getLogger("wsrouter")


class Session:
    """Serves one connection, from the first guard to the last release.

    Args:
        chain: the handler in its chain of routers.
        websocket: what FastAPI gave to the endpoint; its ``receive`` was not called yet.
    """

    __slots__ = (
        "_chain",
        "_connection",
        "_current",
        "_drain",
        "_give_up",
        "_handshake",
        "_inbox",
        "_intake",
        "_scope",
        "_task",
        "_tasks",
    )

    def __init__(self, chain: Chain, websocket: WebSocket) -> None:
        receive, send = raw_channels(websocket)
        chain.conceal(websocket.scope)
        codec, subprotocol = chain.codec_for(websocket.scope.get("subprotocols") or ())
        self._chain = chain
        self._connection = Connection(
            websocket.scope,
            send,
            codec=codec,
            encode=chain.table.encode_raw if chain.table.raw else message_encoder(codec),
            limits=chain.limits,
            raw=chain.table.raw,
            subprotocol=subprotocol,
            on_close=self._closing,
        )
        self._scope = ConnectionScope(self._connection)
        self._intake = Intake(chain, self._connection, left=self._left, cancel=self._cancel)
        self._inbox: Inbox[Call] = Inbox(
            receive,
            self._intake.read,
            chain.limits,
            overflow=lambda: self._connection.start_close(4529, "messages come faster than they are handled"),
            failed=self._unreadable,
        )
        self._handshake: Handshake | None = Handshake(chain, self._connection, self._scope, send)
        self._task = current_task()
        self._current: Call | None = None
        self._tasks: dict[asyncio.Task[None], Call] | None = None
        self._drain: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the connection to its end."""
        handshake = self._handshake
        assert handshake is not None, "a session runs once"
        try:
            admitted = await handshake.run(self._inbox.suspended)
            self._handshake = None
            if admitted is not None:
                await self._serve(admitted)
        finally:
            await self._release()

    async def _serve(self, admitted: Admitted) -> None:
        chain, connection = self._chain, self._connection
        dispatcher = Dispatcher(chain, connection, self._scope, admitted.handler)
        cancelled: BaseException | None = None
        began = False
        try:
            await self._enter(admitted)
            began = True
            if chain.on_connect is None or await self._connect(dispatcher, chain.on_connect, admitted):
                await self._dispatch(dispatcher, chain.table.cls.max_in_flight)
            if connection.closed is None:
                connection.start_close(1000, "")
        except BaseException as exc:
            cancelled = None if isinstance(exc, Exception) else exc
            if cancelled is None:
                logger.exception("%r: the session failed", connection)
            connection.start_close(1011 if cancelled is None else 1012, "")
        self._end_calls()
        cancelled = await self._leave() or cancelled
        if began and chain.on_disconnect is not None:
            await self._disconnect(dispatcher, chain.on_disconnect)
        if cancelled is not None:
            raise cancelled

    async def _enter(self, admitted: Admitted) -> None:
        try:
            await self._chain.hub.enter(self._connection)
        except BaseException as exc:
            await unwind(admitted.stack, exc)
            raise

    async def _leave(self) -> BaseException | None:
        """Wait for what is under way and leave the hub, through cancellations; return the first of them."""
        cancelled: BaseException | None = None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._chain.limits.drain
        for task in list(self._tasks or ()):
            cancelled = await wait_for_end(task, deadline - loop.time()) or cancelled
            if not task.done():
                task.cancel()
                cancelled = await wait_for_end(task) or cancelled
        try:
            await self._connection.flushed()
        except asyncio.CancelledError as exc:
            cancelled = cancelled or exc
        try:
            await shielded(self._chain.hub.exit(self._connection), self._chain.limits.close)
        except asyncio.CancelledError as exc:
            cancelled = cancelled or exc
        except Exception:
            logger.exception("%r: leaving the hub failed", self._connection)
        return cancelled

    async def _connect(self, dispatcher: Dispatcher, bound: Bound, admitted: Admitted) -> bool:
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

    async def _dispatch(self, dispatcher: Dispatcher, most: int) -> None:
        """Handle messages until there are no more: one at a time here, or up to ``most`` in tasks."""
        inbox, done = self._inbox, self._intake.done
        while (call := await inbox.next()) is not None:
            if most > 1:
                await self._spawn(dispatcher, call)
                while self._tasks and len(self._tasks) >= most:
                    await drive(first_of(self._tasks), inbox.suspended)
                continue
            self._current = call
            call.task = self._task
            timer = self._limit(call)
            handling = dispatcher.handle(call, done)
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
            await drive(dispatcher.fail(call, exc, self._intake.done), self._inbox.suspended)
            return
        finally:
            self._current = None
        loop = asyncio.get_running_loop()
        call.task = task = loop.create_task(dispatcher.handle(call, self._intake.done), name="wsrouter call")
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

    def _cancel(self, call: Call) -> None:
        if self._inbox.remove(call):
            self._intake.done(call)
            error = WebSocketError("cancelled").as_data()
            self._connection.reply(self._connection.codec.control("$error", call.id, error=error))
        else:
            call.cancel("cancelled")

    def _left(self, close: CloseInfo) -> None:
        """Note that the client has left: what it sent before is still handled, for a while."""
        if not self._inbox.ended:
            self._connection.lost(close)
            self._wind_up()

    def _closing(self) -> None:
        """Note that this side closes: what waits is not handled any more."""
        self._drop_waiting()
        loop = asyncio.get_running_loop()
        self._give_up = loop.call_later(self._chain.limits.close, self._inbox.give_up)
        self._wind_up(still_listening=True)

    def _wind_up(self, *, still_listening: bool = False) -> None:
        if self._handshake is not None:
            self._handshake.left()
        if self._chain.table.cls.cancel_on_disconnect:
            self._end_calls()
        for call in self._running():
            if call.streams:
                call.cancel("ended")
        if self._drain is None:
            drain = self._chain.limits.drain
            self._drain = asyncio.get_running_loop().call_later(drain, self._end_calls, True)
        if not still_listening:
            self._inbox.end()

    def _unreadable(self, exc: Exception) -> None:
        logger.error("%r: receiving failed", self._connection, exc_info=exc)
        self._connection.lost(CloseInfo(1006))
        self._wind_up()

    def _running(self) -> list[Call]:
        running = [] if self._tasks is None else list(self._tasks.values())
        return running if self._current is None else [self._current, *running]

    def _end_calls(self, again: bool = False) -> None:
        self._drop_waiting()
        for call in self._running():
            call.cancel("ended", again=again)

    def _drop_waiting(self) -> None:
        for call in self._inbox.drop():
            self._intake.done(call)

    async def _disconnect(self, dispatcher: Dispatcher, bound: Bound) -> None:
        self._scope.close = self._connection.closed or CloseInfo(1006)
        timeout = self._chain.limits.on_disconnect
        cancelled: asyncio.CancelledError | None = None
        try:
            plan = bound.injected.current(self._scope)
            cancelled = await insist(lambda: plan.open_lasting(self._scope), timeout)
            await shielded(dispatcher.disconnect(bound), timeout)
        except TimeoutError:
            logger.exception("%s was cancelled: it took longer than %g s", bound.name, timeout)
        except Exception:
            logger.exception("%s failed", bound.name)
        if cancelled is not None:
            raise cancelled

    async def _release(self) -> None:
        for timer in (self._give_up, self._drain):
            if timer is not None:
                timer.cancel()
        try:
            await self._inbox.aclose()
            await self._connection.aclose()
        finally:
            if self._scope.stack is not None:
                await self._close_scope(self._scope.stack)
            # What refers back to this session would keep all of it for the garbage collector.
            self._connection.forget()
            self._inbox.forget()
            del self._intake

    async def _close_scope(self, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(self._chain.limits.on_disconnect):
                await stack.aclose()
        except Exception:
            logger.exception("%r: closing the connection scope failed", self._connection)
