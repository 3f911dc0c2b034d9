"""How one message is handled: middleware, call scope, method, the fate of an exception, the reply."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import Any, Final

from starlette.exceptions import HTTPException, WebSocketException

from wsrouter.calls import Call
from wsrouter.chain import Bound, Chain
from wsrouter.codecs import Frame
from wsrouter.connection import ServerConnection
from wsrouter.errors import BrokerError, Disconnect, WebSocketError, from_http, is_close_code
from wsrouter.handler import WebSocketHandler
from wsrouter.injection import Injected
from wsrouter.intake import Intake
from wsrouter.kinds import Kind
from wsrouter.messages import Envelope, Message
from wsrouter.outcome import answerable, closing_of, strongest, unwind
from wsrouter.plans import ConnectionScope
from wsrouter.tasks import in_thread, is_from_outside

logger = logging.getLogger("wsrouter")

TURN_SECONDS: Final = 0.005
"""A stream gives the loop back so often: neither it nor the server need ever suspend."""


class Dispatcher:
    """Handles the messages of one connection.

    Args:
        chain: the handler in its chain of routers.
        connection: the connection.
        scope: the connection scope.
        handler: the instance that serves it.
        intake: keeps the id of a message until its terminal reply is about to be sent, or there is none.
    """

    __slots__ = ("_chain", "_codec", "_connection", "_handler", "_intake", "_raw", "_scope")

    def __init__(
        self,
        chain: Chain,
        connection: ServerConnection,
        scope: ConnectionScope,
        handler: WebSocketHandler,
        intake: Intake,
    ) -> None:
        self._chain = chain
        self._codec = connection.codec
        self._raw = chain.table.raw
        self._connection = connection
        self._scope = scope
        self._handler = handler
        self._intake = intake

    async def handle(self, call: Call) -> None:
        """Handle a message in the current task, from its middleware to its reply."""
        bound = call.bound
        reply: Frame | None
        try:
            if bound is None:
                assert call.failure is not None, "a message without a method has a failure"
                reply = self._failed(call, call.failure)
            elif bound.direct and (bound.plan.empty or not self._scope.overrides()):
                if call.cause is not None:
                    call.begin()
                call.open = True
                result = await bound.call(self._handler, call.data)
                call.open = False
                if call.cause is not None:
                    call.end()
                reply = self._reply(call, result)
            elif not self._chain.middleware:
                reply = await self._in_scope(bound, call, (call.data,))
            else:
                reply = await self._through_middleware(bound, call)
        except (Exception, asyncio.CancelledError) as exc:
            reply = await self._fate(call, exc)
        finally:
            if call.id is not None:
                self._intake.done(call)
        if reply is not None:
            await self._connection.write(reply)

    async def fail(self, call: Call, exc: BaseException) -> None:
        """Answer a call that could not begin."""
        reply = await self._fate(call, exc)
        self._intake.done(call)
        if reply is not None:
            await self._connection.write(reply)

    async def open_lasting(self, call: Call) -> None:
        """Open what a call needs of the connection scope, in the session's task, before the call has a task."""
        if call.bound is not None:
            call.begin()
            chain = self._chain
            for injected in (call.bound.injected, *chain.middleware, *chain.exception_handlers.values()):
                plan = injected.current(self._scope)
                if plan.lasting:
                    await plan.open_lasting(self._scope)
            call.end()

    async def connect(self, bound: Bound, arguments: dict[str, Any], stack: AsyncExitStack | None, call: Call) -> None:
        """Run ``on_connect``, whose dependencies were opened before accept, and send what it returns."""
        reply = await self._in_scope(bound, call, (), (arguments, stack))
        call.end()
        if reply is not None:
            await self._connection.write(reply)

    async def disconnect(self, bound: Bound) -> None:
        """Run ``on_disconnect`` in a call scope of its own."""
        await self._in_scope(bound, Call("", None, None, 0, bound), ())

    async def _through_middleware(self, bound: Bound, call: Call) -> Frame | None:
        reply: Frame | None = None
        plain = self._raw or (bound is self._chain.on_message and self._chain.table.reads == "envelope")

        async def step(depth: int, message: Any) -> Any:
            nonlocal reply
            if depth == len(self._chain.middleware):
                reply = await self._in_scope(bound, call, (message if plain else message.data,))
                return None
            injected = self._chain.middleware[depth]
            plan = injected.current(self._scope)

            async def call_next(message: Any) -> Any:
                return await step(depth + 1, message)

            async with AsyncExitStack() as stack:
                arguments = await plan.solve(self._scope, stack)
                returned = await injected.needs.call(message, self._connection, call_next, **arguments)
                if inspect.iscoroutine(returned):
                    returned.close()
                    raise TypeError(f"{injected.needs.owner} returned a coroutine; write await call_next(message)")

        call.begin()
        await step(0, call.data if plain else Envelope(call.type, call.data, call.id))
        return self._reply(call, None) if reply is None else reply

    async def _in_scope(
        self,
        bound: Bound,
        call: Call,
        payload: tuple[Any, ...],
        opened: tuple[dict[str, Any], AsyncExitStack | None] | None = None,
    ) -> Frame | None:
        """Call a method within a call scope, and return the reply when the scope is closed.

        Args:
            bound: the method.
            call: what it is called for.
            payload: what is passed by position.
            opened: arguments and stack, where the dependencies were opened before.
        """
        stack: AsyncExitStack | None = None
        try:
            if opened is not None:
                arguments, stack = opened
                call.begin()
            else:
                call.begin()
                plan = bound.injected.current(self._scope)
                if plan.yields:
                    stack = AsyncExitStack()
                arguments = {} if plan.empty else await plan.solve(self._scope, stack)
            if bound.streams:
                returned = bound.function(self._handler, *payload, **arguments)
                reply = self._reply(call, await self._streamed(returned, call))
            elif bound.threaded:
                reply = self._reply(call, await in_thread(bound.function, self._handler, *payload, **arguments))
            else:
                reply = self._reply(call, await bound.function(self._handler, *payload, **arguments))
        except BaseException as exc:
            call.end()
            await unwind(stack, exc)
            raise
        call.end()
        if stack is not None:
            await stack.aclose()
        return reply

    async def _streamed(self, returned: Any, call: Call) -> Any:
        """Send what a method yields; return the value of one whose decorator gives a value instead."""
        if inspect.isasyncgen(returned):
            return await self._stream(returned, call)
        return await returned if inspect.isawaitable(returned) else returned

    async def _stream(self, items: AsyncGenerator[Any, Any], call: Call) -> None:
        pulling = False
        connection = self._connection
        if connection.closed is not None:
            asyncio.get_running_loop().call_soon(call.cancel, "ended")
        turn = monotonic()
        try:
            while True:
                pulling = True
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                pulling = False
                if call.cause is None and connection.closed is not None:
                    call.cause = "ended"
                if call.cause is not None:
                    raise asyncio.CancelledError(call.cause)
                await connection.write(self._item(call, item))
                if call.cause is not None:
                    raise asyncio.CancelledError(call.cause)
                if monotonic() - turn > TURN_SECONDS:
                    await asyncio.sleep(0)
                    turn = monotonic()
        except asyncio.CancelledError as exc:
            if not pulling:
                await _throw(items, exc)
            raise
        finally:
            await items.aclose()

    def _item(self, call: Call, item: Any) -> Frame:
        if self._raw or (not call.type and isinstance(item, Message)):
            return self._connection.encode(item)
        return self._codec.control("$item", call.id, data=item)

    def _reply(self, call: Call, result: Any) -> Frame | None:
        if result is None:
            return None if call.id is None else self._codec.control("$ok", call.id)
        if self._raw:
            return self._connection.encode(result)
        if isinstance(result, Message):
            return self._codec.message(result, call.id)
        return self._codec.control("$ok", call.id, data=result)

    def _failed(self, call: Call, error: WebSocketError) -> Frame:
        try:
            return self._codec.control("$error", call.id, error=error.as_data())
        except Exception:
            logger.exception("%s: an error can't be written, and is masked", self._place(call))
            return self._codec.control("$error", call.id, error=WebSocketError("internal", "Internal error").as_data())

    async def _fate(self, call: Call, exc: BaseException) -> Frame | None:
        """Return the frame that answers an exception, if there is one; the one place that decides."""
        cause, task = call.cause, call.task
        call.end()
        if isinstance(exc, asyncio.CancelledError):
            if task is not None and task.cancelling():
                raise exc
            if cause is not None:
                if cause == "timeout" and self._raw:
                    self._connection.start_close(1011, "handling the message took too long")
                if cause == "ended" or self._raw:
                    return None
                return self._failed(call, WebSocketError(cause))
        exc = strongest(exc)
        if isinstance(exc, BrokerError):
            logger.info("%s failed: %s", self._place(call), exc)
        if isinstance(exc, Exception) and not isinstance(exc, Disconnect):
            handler = self._chain.exception_handler(exc)
            if handler is not None:
                try:
                    message = await self._handled(handler, exc)
                    if message is not None:
                        return self._reply(call, message)
                except Exception as raised:
                    exc = strongest(raised)
                except asyncio.CancelledError as raised:
                    call.end()
                    if is_from_outside(raised):
                        raise
                    if call.cause is not None:
                        return None
                    exc = raised
        exc = answerable(exc)
        if isinstance(exc, Disconnect) or (isinstance(exc, WebSocketException) and is_close_code(exc.code)):
            self._connection.start_close(exc.code, exc.reason)
            return None
        if self._raw:
            self._connection.start_close(*closing_of(exc, self._place(call)))
            return None
        if isinstance(exc, WebSocketError):
            return self._failed(call, exc)
        if isinstance(exc, HTTPException):
            return self._failed(call, from_http(exc))
        logger.error("%s failed", self._place(call), exc_info=exc)
        if self._chain.table.cls.close_on_error:
            self._connection.start_close(1011, "internal error")
            return None
        return self._failed(call, WebSocketError("internal", "Internal error"))

    async def _handled(self, handler: Injected, exc: Exception) -> Any:
        plan = handler.current(self._scope)
        async with AsyncExitStack() as stack:
            arguments = await plan.solve(self._scope, stack)
            if handler.needs.kind is Kind.ASYNC:
                return await handler.needs.call(exc, **arguments)
            return await in_thread(handler.needs.call, exc, **arguments)

    def _place(self, call: Call) -> str:
        return "a message" if call.bound is None else call.bound.name


async def _throw(items: AsyncGenerator[Any, Any], exc: BaseException) -> None:
    """Throw a cancellation into a generator that waits at its ``yield``."""
    with suppress(asyncio.CancelledError, StopAsyncIteration):
        await items.athrow(exc)
