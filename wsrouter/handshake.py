"""Before accept: guards, the constructor, the dependencies of ``on_connect``, and the denial if one fails."""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import time
from typing import Any

from starlette.types import Send

from wsrouter._fastapi import overrides_of
from wsrouter.calls import Attempt, Call, Cause
from wsrouter.chain import Chain
from wsrouter.connection import ServerConnection
from wsrouter.denial import accept_and_close, closes, denial_of, refuse
from wsrouter.errors import Deny, cut_reason, denial_status
from wsrouter.frames import CloseInfo
from wsrouter.handler import WebSocketHandler, attach
from wsrouter.identity import AMBIENT, EXPIRED, end_of, found, settle
from wsrouter.inbox import Inbox
from wsrouter.outcome import unwind
from wsrouter.plans import ConnectionScope, Plan, nothing
from wsrouter.tasks import current_task, drive, is_from_outside, within
from wsrouter.transports import transport_of

logger = logging.getLogger("wsrouter")


@dataclass(slots=True)
class Admitted:
    """A connection that may be served."""

    handler: WebSocketHandler
    arguments: dict[str, Any]
    """Of ``on_connect``."""
    stack: AsyncExitStack | None
    """Closes what was opened for ``on_connect``."""


class Handshake:
    """Decides about one connection.

    Args:
        chain: the handler in its chain of routers.
        connection: the connection.
        scope: the connection scope.
        send: the ASGI ``send``.
        inbox: reads ahead when the handshake has to wait for something.
    """

    def __init__(
        self,
        chain: Chain,
        connection: ServerConnection,
        scope: ConnectionScope,
        send: Send,
        inbox: Inbox[Call],
    ) -> None:
        self._chain = chain
        self._connection = connection
        self._scope = scope
        self._send: Send = send
        self._inbox = inbox
        self._attempt = Attempt()
        self._attempt.task = current_task()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._left = False
        self._gone: asyncio.Future[None] | None = None

    def left(self) -> None:
        """Note that the client has left: what is under way ends."""
        self._left = True
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._interrupt("ended")

    async def run(self) -> Admitted | None:
        """Return what is needed to serve the connection, ``None`` if it was turned away or has left."""
        attempt = self._attempt
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + self._chain.limits.handshake
        try:
            admitted = await drive(self._prepare(), self._waits)
        except (Exception, asyncio.CancelledError) as exc:
            attempt.end()
            if attempt.cause is None and is_from_outside(exc):
                raise
            await self._turn_away(too_long() if attempt.cause else exc)
            return None
        finally:
            attempt.end()
            if self._timer is not None:
                self._timer.cancel()
            self._scope.checkpoint = nothing
        if self._connection.turned_away is not None:
            denial = _denial_of(self._connection.turned_away)
            await self._unwind(admitted.stack, denial)
            await self._turn_away(denial)
            return None
        try:
            if self._left:
                raise ConnectionResetError("the client left during the handshake")
            await self._connection.accept(self._connection.subprotocol, [])
        except BaseException as exc:
            await self._unwind(admitted.stack, exc)
            if not isinstance(exc, OSError):
                raise
            await self._hang_up()
            return None
        return admitted

    def _waits(self) -> None:
        """Listen to the client and look at the clock from here on: not everything was done at once."""
        self._timer = asyncio.get_running_loop().call_at(self._deadline, self._interrupt, "timeout")
        self._inbox.suspended()

    async def _prepare(self) -> Admitted:
        chain, scope, attempt = self._chain, self._scope, self._attempt
        attempt.begin()
        scope.checkpoint = self._go_on
        if chain.ambient:
            self._connection.scope[AMBIENT] = True
        await self._go_on()
        overrides = overrides_of(scope.app)
        guards = chain.plan_guards(overrides) if overrides else chain.guard_plan
        if not guards.empty:
            await self._pass(guards)
        attempt.begin()
        if self._connection.user_id is not None:
            settle(self._connection.scope)
        if chain.on_disconnect is not None:
            chain.on_disconnect.injected.current(scope).read_request(scope)
        handler = chain.table.cls.__new__(chain.table.cls)
        attach(handler, self._connection, chain.hub)
        plan = chain.construct.current(scope)
        # The constructor of exactly this class, called now that the handler has its connection.
        handler.__init__(**({} if plan.empty else await plan.solve(scope, None)))  # type: ignore[misc]
        attempt.begin()
        if chain.on_connect is None:
            await self._check()
            return Admitted(handler, {}, None)
        plan = chain.on_connect.injected.current(scope)
        stack = AsyncExitStack() if plan.yields else None
        try:
            arguments = {} if plan.empty else await plan.solve(scope, stack)
            attempt.begin()
            await self._check()
        except BaseException as exc:
            await self._unwind(stack, exc)
            raise
        return Admitted(handler, arguments, stack)

    async def _pass(self, plan: Plan) -> None:
        scope, attempt = self._scope, self._attempt
        stack = AsyncExitStack() if plan.yields else None
        try:
            await plan.solve(scope, stack)
        except BaseException as exc:
            await self._unwind(stack, exc)
            raise
        if stack is not None:
            attempt.end()
            await self._close(stack)

    async def _go_on(self) -> None:
        """Note who it is that a guard admits, and raise where the handshake is not to go on all the same."""
        self._attempt.begin()
        if self._connection.turned_away is not None:
            raise _denial_of(self._connection.turned_away)
        await self._chain.hub.node.recognise(self._connection)

    async def _check(self) -> None:
        """Settle who the user is, open what it takes to ask about them again, and deny if they have ended meanwhile."""
        asked = self._connection.scope
        settle(asked)
        for each in self._chain.revalidations:
            if each.authenticator in found(asked):
                await each.injected.current(self._scope).open_lasting(self._scope)
        self._attempt.begin()
        end = end_of(asked) if found(asked) else None
        if end is not None and end <= time():
            raise Deny(401, code=EXPIRED, reason="The credential has expired")

    def _interrupt(self, cause: Cause) -> None:
        if not self._failed:
            self._attempt.cancel(cause)

    async def _close(self, stack: AsyncExitStack) -> None:
        """Close what was opened for the guards: a client that leaves does not interrupt it, the deadline does."""
        deadline = asyncio.timeout_at(self._deadline)
        try:
            async with deadline:
                await stack.aclose()
        except TimeoutError:
            if deadline.expired():
                raise too_long() from None
            raise

    async def _unwind(self, stack: AsyncExitStack | None, exc: BaseException) -> None:
        self._failed = True
        self._attempt.end()
        if stack is None:
            return
        timeout = self._chain.limits.on_disconnect
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                await unwind(stack, exc)
        except TimeoutError:
            if not deadline.expired():
                raise
            logger.exception("%r: closing what the handshake opened took longer than %g s", self._connection, timeout)

    async def _turn_away(self, exc: BaseException) -> None:
        denial = denial_of(exc)
        if self._left:
            await self._hang_up()
            return
        connection = self._connection
        close = closes(self._chain.reject, connection.scope)
        if not close:
            await self._let_go(exc)
        try:
            if close:
                connection.closed = CloseInfo(denial.code, cut_reason(denial.reason), "server")
                timeout = self._chain.limits.close
                transport = transport_of(connection.scope) if self._chain.direct else None
                answer = accept_and_close(denial, self._send, connection.subprotocol, transport, timeout)
            else:
                answer = refuse(denial, connection.scope, self._send)
            await within(self._chain.limits.close, answer)
        except (OSError, RuntimeError):  # the second of a server that has closed it itself
            logger.debug("%r: the client left before it was denied", connection)
        except Exception as failure:  # of a server that has answered it itself, as uvicorn does when it ends
            logger.warning("%r: the server did not take the denial: %r", connection, failure)
        if close:
            await self._until_gone()
            await self._let_go(exc)

    async def _let_go(self, exc: BaseException) -> None:
        """Release what guards hold of a connection that is turned away."""
        stack, self._scope.stack = self._scope.stack, None
        try:
            await self._unwind(stack, exc)
        except (Exception, asyncio.CancelledError) as raised:
            if is_from_outside(raised):
                raise
            if raised is not exc:
                logger.exception("A guard failed while it let go of a denied connection")

    async def _until_gone(self) -> None:
        """Wait until the socket is gone: it counts against limits until then."""
        if not self._left:
            self._inbox.suspended()
            self._gone = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._gone], timeout=self._chain.limits.close)

    async def _hang_up(self) -> None:
        """Tell the server that nothing will be answered to a client that has left."""
        try:
            await self._send({"type": "websocket.close", "code": 1000, "reason": ""})
        except Exception as failure:
            logger.debug("%r: the client left during the handshake, and %r", self._connection, failure)


def _denial_of(close: CloseInfo) -> Deny:
    return Deny(denial_status(close.code), code=close.code, reason=close.reason)


def too_long() -> Deny:
    return Deny(503, reason="The handshake took too long")
