"""The life of one connection: the handshake, the one loop that dispatches, the end."""

import asyncio
import logging
from functools import partial

from starlette.types import Receive, Scope, Send

from wsrouter.calls import Call
from wsrouter.chain import Bound, Chain
from wsrouter.connection import ServerConnection
from wsrouter.credentials import Credentials
from wsrouter.direct import DirectConnection
from wsrouter.dispatch import Dispatcher
from wsrouter.frames import CloseInfo
from wsrouter.handshake import Admitted, Handshake
from wsrouter.identity import found
from wsrouter.inbox import Inbox
from wsrouter.intake import Intake
from wsrouter.outcome import let_go, unwind
from wsrouter.plans import ConnectionScope
from wsrouter.portable import PortableConnection
from wsrouter.tasks import insist, is_from_outside, is_stop, is_taken_back, shielded
from wsrouter.transports import transport_of
from wsrouter.work import Work
from wsrouter.writer import LOST

logger = logging.getLogger("wsrouter")


class Session:
    """What there is while one connection is served; it belongs to the task that makes it.

    There may be very many, so its parts call it, and not callbacks that would be made for each.

    Args:
        chain: the handler in its chain of routers.
        scope: the ASGI scope.
        receive: the ASGI ``receive``.
        send: the ASGI ``send``.
    """

    __slots__ = (
        "_chain",
        "_connection",
        "_credentials",
        "_dispatcher",
        "_drain",
        "_give_up",
        "_handshake",
        "_inbox",
        "_intake",
        "_scope",
        "_work",
    )

    def __init__(self, chain: Chain, scope: Scope, receive: Receive, send: Send) -> None:
        chain.conceal(scope)
        codec, subprotocol = chain.codec_for(scope.get("subprotocols") or ())
        self._chain = chain
        transport = transport_of(scope) if chain.direct else None
        make = PortableConnection if transport is None else partial(DirectConnection, transport)
        self._connection: ServerConnection = make(
            scope,
            send,
            codec=codec,
            encode=chain.encoder(codec),
            limits=chain.limits,
            raw=chain.table.raw,
            subprotocol=subprotocol,
            owner=self,
        )
        self._scope = ConnectionScope(self._connection)
        self._intake = Intake(chain, self._connection, self)
        self._inbox: Inbox[Call] = Inbox(receive, self._intake, chain.limits, self)
        self._work = Work(chain, self._connection, self._inbox, self._intake)
        self._credentials: Credentials | None = None
        if chain.sources:
            self._watch()
        self._handshake: Handshake | None = None
        self._dispatcher: Dispatcher | None = None
        self._drain: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None

    @classmethod
    async def serve(cls, chain: Chain, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from the first guard to the last release, in the current task.

        It waits here for as long as the connection lives, and does so in as few coroutines as can be.

        Args:
            chain: the handler in its chain of routers.
            scope: the ASGI scope.
            receive: the ASGI ``receive``, a coroutine function; ``websocket.connect`` has come from it.
            send: the ASGI ``send``, a coroutine function.

        Raises:
            ConfigurationError: the hub connects processes, and was not started.
        """
        chain.hub.node.check_started()
        self = cls(chain, scope, receive, send)
        cancelled: BaseException | None = None
        try:
            self._handshake = Handshake(chain, self._connection, self._scope, send, self._inbox)
            admitted = await self._handshake.run()
            self._handshake = None
            if admitted is None:
                return
            connection = self._connection
            self._dispatcher = Dispatcher(chain, connection, self._scope, admitted.handler, self._intake)
            began = False
            try:
                await self._enter(admitted)
                began = True
                if self._credentials is None and found(connection.scope):  # by an authenticator a guard called by hand
                    self._watch()
                if self._credentials is not None:
                    self._credentials.begin()
                if chain.on_connect is None or await self._work.connect(chain.on_connect, self._dispatcher, admitted):
                    admitted = None
                    await self._work.dispatch(self._dispatcher, chain.table.cls.max_in_flight)
                if connection.closed is None:
                    connection.start_close(1000, "")
            except BaseException as exc:
                cancelled = None if isinstance(exc, Exception) else exc
                if cancelled is None:
                    logger.exception("%r: the session failed", connection)
                if is_stop(exc):
                    connection.start_close(1012, "")
                else:
                    connection.start_close(1011, "internal error")
            admitted = None
            self._work.end()
            cancelled = await self._leave() or cancelled
            if began and chain.on_disconnect is not None:
                await self._disconnect(self._dispatcher, chain.on_disconnect)
        finally:
            await self._release()
        try:
            # A task group among the connection's dependencies takes its cancellation back when it is closed.
            if cancelled is not None and not is_taken_back(cancelled):
                raise cancelled
        finally:
            del cancelled  # its traceback has this frame

    def _watch(self) -> None:
        self._credentials = Credentials(self._chain, self._connection, self._scope, self._intake)

    async def _enter(self, admitted: Admitted) -> None:
        try:
            await self._chain.hub.node.enter(self._connection)
        except BaseException as exc:
            await unwind(admitted.stack, exc)
            raise

    async def _leave(self) -> BaseException | None:
        """Wait for what is under way and leave the hub, through cancellations; return the first of them."""
        cancelled = await self._work.ended()
        try:
            await self._connection.flushed()
        except asyncio.CancelledError as exc:
            cancelled = cancelled or exc
        return await self._leave_hub() or cancelled

    async def _leave_hub(self) -> BaseException | None:
        node, connection = self._chain.hub.node, self._connection
        try:
            emptied = node.exit(connection)
            if emptied:
                await shielded(node.release(emptied), self._chain.limits.close)
        except asyncio.CancelledError as exc:
            return exc
        except Exception:
            logger.exception("%r: leaving the hub failed", connection)
        return None

    def cancel(self, call: Call) -> None:
        """Do what ``$cancel`` asks for."""
        self._work.cancel(call)

    def renew(self, call: Call) -> None:
        """Do what ``$auth`` asks for."""
        assert self._credentials is not None, "somebody authenticates"
        self._credentials.renew(call)

    def left(self, close: CloseInfo) -> None:
        """Note that the client has left: what it sent before is still handled, for a while."""
        if not self._inbox.ended:
            self._connection.lost(close)
            self._wind_up()

    def closing(self) -> None:
        """Note that this side closes: what waits is not handled any more."""
        if self._connection.closed is LOST:
            self._cut_off()
            return
        self._work.drop_waiting()
        loop = asyncio.get_running_loop()
        self._give_up = loop.call_later(self._chain.limits.close, self._inbox.give_up)
        self._wind_up(still_listening=True)

    def _cut_off(self) -> None:
        """Note that nothing can be sent any more: what the client sent before is still to be heard, and how it left."""
        self._wind_up(still_listening=True)
        self._begin_drain()

    def _wind_up(self, *, still_listening: bool = False) -> None:
        if self._handshake is not None:
            self._handshake.left()
        self._work.wind_up()
        if not self._work.idle:
            self._begin_drain()
        if not still_listening:
            self._inbox.end()

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._drain = asyncio.get_running_loop().call_later(self._chain.limits.drain, self._end_drain)

    def _end_drain(self) -> None:
        self._work.end(again=True)
        if self._connection.closed is LOST:  # and the server does not say how
            self._inbox.give_up()
        self._drain = asyncio.get_running_loop().call_later(self._chain.limits.on_disconnect, self._work.abandon)

    def overflowed(self) -> None:
        """Close a connection whose client does not wait for its messages to be handled."""
        self._connection.start_close(4529, "messages come faster than they are handled")

    def unreadable(self, exc: Exception) -> None:
        """Take the client for gone, since the server could not say what comes from it."""
        if self._inbox.ended:
            return
        logger.error("%r: receiving failed", self._connection, exc_info=exc)
        self._connection.lost(CloseInfo(1006))
        self._wind_up()

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
        except (Exception, asyncio.CancelledError) as exc:
            if is_from_outside(exc):
                raise
            logger.exception("%s failed", bound.name)
        if cancelled is not None:
            raise cancelled

    async def _release(self) -> None:
        """Let go of all that the connection held, of the handler first: it may use the rest until then."""
        self._dispatcher = None
        self._inbox.end()  # whatever the server still says, nothing begins any more
        cancelled = await self._leave_hub()
        ends = [self._inbox.aclose, self._connection.aclose]
        if self._credentials is not None:
            ends.append(self._credentials.aclose)
        for end in ends:
            try:
                await end()
            except asyncio.CancelledError as exc:
                cancelled = cancelled or exc
        for timer in (self._give_up, self._drain):
            if timer is not None:
                timer.cancel()
        self._intake.end()
        try:
            failure = "%r: closing the connection scope failed"
            await let_go(self._scope.stack, None, self._chain.limits.on_disconnect, failure, self._connection)
        finally:
            # What refers back to this session would keep all of it for the garbage collector.
            self._connection.forget()
            self._inbox.forget()
            self._work.forget()
            del self._intake, self._work, self._credentials
        if cancelled is not None:
            raise cancelled
