"""The life of a credential: it expires, a fresh one takes its place, and whether it still holds is asked again."""

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from time import time
from typing import Any, Final

from starlette.exceptions import HTTPException, WebSocketException

from wsrouter._fastapi import overrides_of
from wsrouter.calls import Call
from wsrouter.chain import Chain, Revalidation
from wsrouter.codecs import is_object
from wsrouter.connection import ServerConnection, identity_of
from wsrouter.containers import is_pending
from wsrouter.errors import Disconnect, WebSocketError, from_http
from wsrouter.identity import EXPIRED, Authenticator, end_of, found, on_trial, remember, watch
from wsrouter.injection import GuardKey
from wsrouter.intake import Intake
from wsrouter.kinds import Kind
from wsrouter.outcome import closing_of, let_go, strongest
from wsrouter.plans import ConnectionScope
from wsrouter.tasks import current_task, in_thread, is_from_outside, wait_for_end

logger = logging.getLogger("wsrouter")

LONGEST_WAIT: Final = 60.0
"""Seconds after which the clock on the wall, by which tokens expire, is looked at again: it may have been set."""


class Credentials:
    """Watches over the user of one connection.

    Args:
        chain: the handler in its chain of routers; it has an authenticator.
        connection: the connection.
        scope: the connection scope.
        intake: keeps the id of an ``$auth`` until it is answered.
    """

    __slots__ = (
        "_chain",
        "_connection",
        "_expiry",
        "_hold",
        "_intake",
        "_put_off",
        "_renewal",
        "_scope",
        "_tasks",
        "_timers",
    )

    def __init__(self, chain: Chain, connection: ServerConnection, scope: ConnectionScope, intake: Intake) -> None:
        self._chain = chain
        self._connection = connection
        self._intake = intake
        self._scope = scope
        self._expiry: asyncio.TimerHandle | None = None
        self._put_off: asyncio.TimerHandle | None = None
        self._timers: dict[Revalidation, asyncio.TimerHandle] = {}
        self._tasks: dict[asyncio.Task[None], bool] = {}
        """Mapping of a task to whether it is cancelled at the end."""
        self._renewal: asyncio.Task[None] | None = None
        self._hold: asyncio.Event | None = None

    def begin(self) -> None:
        """Watch from here on, also who is found later."""
        watch(self._connection.scope, self._look_after)
        self._look_after()

    def renew(self, call: Call) -> None:
        """Do what ``$auth`` asks for, and answer it."""
        token = call.data.get("token") if is_object(call.data) else None
        if not isinstance(token, str) or not token:
            self._answer(call, WebSocketError("invalid", "$auth carries {'token': a text that is not empty}"))
        elif self._renewal is not None:
            self._answer(call, WebSocketError("conflict", "One $auth at a time", retry=True))
        elif not self._expire():
            self._renewal = self._start(self._renew(call, token), "wsrouter auth")

    async def aclose(self) -> None:
        """End all that is under way, and let go of what guards that ran again hold."""
        watch(self._connection.scope, None)
        for timer in (self._expiry, self._put_off, *self._timers.values()):
            if timer is not None:
                timer.cancel()
        if self._hold is not None:
            self._hold.set()
        cancelled: asyncio.CancelledError | None = None
        for task in list(self._tasks):
            if self._tasks.get(task):
                task.cancel()
            cancelled = await wait_for_end(task, self._chain.limits.on_disconnect) or cancelled
            if not task.done():
                task.cancel()
                cancelled = await wait_for_end(task) or cancelled
        if cancelled is not None:
            raise cancelled

    def _start(self, work: Any, name: str) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = True
        task.add_done_callback(lambda _: self._tasks.pop(task))
        return task

    def _look_after(self) -> None:
        """See to the end of whom authenticators have found so far, and to what is to be asked about them."""
        self._watch_expiry()
        for each in self._chain.revalidations:
            if each not in self._timers and each.authenticator in found(self._connection.scope):
                self._ask_later(each)

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        remaining = self._remaining()
        if remaining is not None and self._connection.closed is None:
            wait = min(max(remaining, 0.0), LONGEST_WAIT)
            self._expiry = asyncio.get_running_loop().call_later(wait, self._look_at_clock)

    def _remaining(self) -> float | None:
        """Return the seconds until the connection has to end, ``None`` if it has not to."""
        try:
            end = end_of(self._connection.scope)
        except Exception:
            logger.exception("%r: nobody can say when its credential ends", self._connection)
            return 0.0
        return None if end is None else end - time()

    def _look_at_clock(self) -> None:
        self._expiry = None
        remaining = self._remaining()
        if remaining is None or remaining > 0:
            self._watch_expiry()
        elif self._renewal is None:
            self._expire()
        elif self._put_off is None:  # it came in time, so what comes of it decides, if that does not take long
            self._put_off = asyncio.get_running_loop().call_later(self._chain.limits.close, self._expire)

    def _expire(self) -> bool:
        """Close if the credential has ended; whether it has."""
        remaining = self._remaining()
        if remaining is None or remaining > 0:
            return False
        self._connection.start_close(EXPIRED, "the credential has expired")
        return True

    async def _renew(self, call: Call, token: str) -> None:
        held: AsyncExitStack | None = None
        try:
            with on_trial(self._connection):
                held = await self._pass_guards(*await self._fresh_user(token))
        except WebSocketError as exc:
            self._answer(call, exc.with_traceback(None))  # its frames have it, and would keep the connection with it
        except Disconnect as exc:
            self._connection.start_close(exc.code, exc.reason)
        except Exception:
            logger.exception("%r: renewing its credential failed", self._connection)
            self._connection.start_close(1011, "internal error")
        else:
            if self._hold is not None:
                self._hold.set()
                self._hold = None
            self._answer(call, None)
        finally:
            self._renewal = None
            if self._put_off is not None:
                self._put_off.cancel()
                self._put_off = None
            if not self._expire():
                self._look_after()
        if held is not None:
            await self._keep(held)

    async def _fresh_user(self, token: str) -> tuple[Authenticator, Any]:
        """Return whom a token speaks for, and who says so; raise the error that answers one that does not renew this.

        Each authenticator that takes fresh tokens and has found somebody here is asked, first the one whose user it is.
        One that is overridden is not: in its place stands the override, which runs again with the guards.
        """
        connection = self._connection
        results = dict(found(connection.scope))
        asked = sorted(
            (each for each in reversed(self._chain.renewable) if each in results),
            key=lambda each: results[each] is not connection.user,
        )
        refusal = WebSocketError("invalid", "This connection takes no fresh token")
        for place, authenticator in enumerate(asked):
            if authenticator in overrides_of(self._scope.app):
                return authenticator, None
            try:
                user = await self._looked_at(authenticator, token)
                if identity_of(user) != identity_of(results[authenticator]):
                    raise WebSocketError("forbidden", "The token is another subject's")
                if results[authenticator] is connection.user:
                    connection.scope["user"] = user
                return authenticator, user
            except WebSocketError as exc:
                refusal = exc if place == 0 else refusal
        raise refusal

    async def _looked_at(self, authenticator: Authenticator, token: str) -> Any:
        deadline = asyncio.timeout(self._chain.limits.handshake)
        try:
            async with deadline:
                return await authenticator.renew(self._connection.http, token)
        except (Exception, asyncio.CancelledError) as exc:
            if is_from_outside(exc):
                raise
            if deadline.expired():
                raise WebSocketError("timeout", "Looking at the token took too long") from None
            raise self._verdict(exc) from None

    def _verdict(self, exc: BaseException) -> WebSocketError:
        ruling = strongest(exc)
        if isinstance(ruling, HTTPException):
            return from_http(ruling)
        if isinstance(ruling, WebSocketError):
            return ruling
        logger.error("%r: looking at a fresh token failed", self._connection, exc_info=exc)
        return WebSocketError("internal", "Internal error")

    async def _pass_guards(self, authenticator: Authenticator, user: Any) -> AsyncExitStack | None:
        """Put a fresh user in place and run again the guards that depend on it; return what closes those that hold.

        Args:
            authenticator: who found the user.
            user: ``None`` where an override takes the authenticator's place, which then runs again itself.

        Raises:
            Disconnect: one of them denies, fails or takes too long, or it is another user now.
        """
        chain, scope = self._chain, self._scope
        before = self._connection.user_id
        if user is not None:
            remember(self._connection.scope, authenticator, user)
        guards = chain.guards_of(authenticator)
        again = {guard.needs.call for guard in guards}
        fresh = ConnectionScope(self._connection)
        fresh.no_user = None if user is None or self._connection.user is user else authenticator
        for key, value in scope.values.items():
            guard = key if isinstance(key, GuardKey) else None
            if guard is not None and guard.guard is authenticator and user is not None and not guard.listing.scopes:
                fresh.values[key] = user
            elif guard is None or guard.guard not in again:
                fresh.values[key] = value
        plan = chain.plan_guards(overrides_of(scope.app), guards, fresh.values.keys())
        deadline = asyncio.timeout(chain.limits.handshake)
        try:
            async with deadline, AsyncExitStack() as stack:
                await plan.solve(fresh, stack)
            if self._connection.user_id != before:
                raise Disconnect(4403, "another user")
        except BaseException as exc:
            await self._close(fresh.stack, exc)
            if not isinstance(exc, Exception | asyncio.CancelledError) or is_from_outside(exc):
                raise
            if deadline.expired():
                raise Disconnect(4503, "the guards took too long") from None
            raise Disconnect(*closing_of(exc, "a guard that ran again")) from None
        scope.values.update(fresh.values)
        return fresh.stack

    async def _keep(self, held: AsyncExitStack) -> None:
        """Hold what guards that ran again hold, until the connection ends or they run once more."""
        self._hold = release = asyncio.Event()
        self._tasks[current_task()] = False
        try:
            await release.wait()
        finally:
            await self._close(held, None)

    async def _close(self, stack: AsyncExitStack | None, exc: BaseException | None) -> None:
        failure = "%r: letting go of what a guard held failed"
        await let_go(stack, exc, self._chain.limits.on_disconnect, failure, self._connection)

    def _ask_later(self, each: Revalidation) -> None:
        if self._connection.closed is None:
            wait = each.interval * random.uniform(0.9, 1.1)
            self._timers[each] = asyncio.get_running_loop().call_later(wait, self._ask_soon, each)

    def _ask_soon(self, each: Revalidation) -> None:
        self._start(self._ask_again(each), "wsrouter revalidation")

    async def _ask_again(self, each: Revalidation) -> None:
        """Ask whether the connection may go on; who can't say lets it go on."""
        needs, connection = each.injected.needs, self._connection
        try:
            async with asyncio.timeout(self._chain.limits.handshake), AsyncExitStack() as stack:
                arguments = await each.injected.current(self._scope).solve(self._scope, stack)
                if needs.kind is Kind.ASYNC:
                    holds = await needs.call(**arguments)
                else:
                    holds = await in_thread(needs.call, **arguments)
                if is_pending(holds):  # of a plain function that returns what another one is to await
                    holds = await holds
            if holds is False:
                raise Disconnect(4403, "no longer allowed")
        except (Exception, asyncio.CancelledError) as exc:
            if is_from_outside(exc):
                raise
            ruling = strongest(exc)
            unsure = isinstance(ruling, HTTPException) and ruling.status_code >= 500
            if isinstance(ruling, Disconnect | HTTPException | WebSocketError | WebSocketException) and not unsure:
                connection.start_close(*closing_of(exc, needs.owner))
            else:
                logger.exception("%s failed, %r goes on", needs.owner, connection)
        self._ask_later(each)

    def _answer(self, call: Call, error: WebSocketError | None) -> None:
        self._intake.done(call)
        codec = self._connection.codec
        if error is not None:
            self._connection.reply(codec.control("$error", call.id, error=error.as_data()))
        elif call.id is not None:
            self._connection.reply(codec.control("$ok", call.id))
