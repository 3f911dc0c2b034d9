"""A connection that is kept open: opened again whenever it is lost, and read and written by tasks of its own."""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from wsrouter.brokers.redis.connections import Connection, Connector, hang_up, say
from wsrouter.tasks import drive

logger: Final = logging.getLogger("wsrouter")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_SLICE: Final = 0.005
"""Seconds that replies are taken at most before the loop is given back."""


class Unusable(Exception):
    """A server that can't serve, whatever one tries: the text says what to do."""


class Unasked(RedisError):
    """A reply to nothing that was asked: there is no telling what the next ones are to."""


class Line(ABC):
    """Keeps one connection open.

    Args:
        role: what it is for, for the log.
        connector: opens connections.
        timeout: seconds for opening one.
        changed: called when it is up, and when it is down.
    """

    def __init__(self, role: str, connector: Connector, timeout: float, changed: Callable[[], None]) -> None:
        self.role = role
        self.up = False
        """Whether it can be used, as far as is known."""
        self.reason = "it is not open yet"
        """Why it is down."""
        self.read_at = 0.0
        """When something was read last."""
        self.run = ""
        """What the server's process is known by, from when it was asked."""
        self._connector = connector
        self._timeout = timeout
        self._changed = changed
        self.tried = asyncio.Event()
        """Set when it was opened, or could not be."""
        self._told = ""
        """What stands in the way of its being used, as it was logged."""
        self._broken: asyncio.Future[RedisError] | None = None
        self._wanted: asyncio.Future[None] | None = None
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to open it."""
        self._task = asyncio.create_task(self._keep_open(), name=f"wsrouter redis {self.role}")

    async def aclose(self) -> None:
        """Close it for good."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def break_off(self, why: str | RedisError) -> None:
        """Give the connection up, and open another one."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(RedisError(why) if isinstance(why, str) else why)

    def hurry(self) -> None:
        """Make the next attempt now, if it is waited for."""
        self._hurried.set()

    @abstractmethod
    async def _greet(self, connection: Connection) -> None:
        """Ask a new connection what has to be known."""

    @abstractmethod
    def _opened(self) -> None:
        """Begin to use a new connection, and call `_came_up` some time."""

    @abstractmethod
    def _lost(self) -> None:
        """Let go of what waits for replies that don't come."""

    @abstractmethod
    def _outgoing(self) -> bytes:
        """Return what is to be written now; `_write_more` has it called again."""

    @abstractmethod
    def _take(self, reply: Any) -> None:
        """Take a reply, or a refusal.

        Raises:
            Unasked: it is none to what was asked.
        """

    def _came_up(self) -> None:
        self.up = True
        self._told = ""
        self.tried.set()
        self._changed()

    def _write_more(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def _keep_open(self) -> None:
        attempts = 0
        while True:
            began = monotonic()
            connection = self._connector.new()
            why = "it ended"
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.connect()
                    await self._greet(connection)
                await self._use(connection)
            except (Unusable, AuthenticationError, NoPermissionError) as exc:
                why = say(exc)
                if why != self._told:
                    logger.error("Redis at %s can't be used: %s", self._connector.address, why)
                self._told = why
            except (RedisError, OSError, TimeoutError) as exc:
                why = say(exc)
            except Exception as exc:
                why = say(exc)
                logger.exception("Redis at %s: the %s failed", self._connector.address, self.role)
            finally:
                await hang_up(connection)
            lasted = monotonic() - began
            attempts = 0 if self.up and lasted > _LONGEST_PAUSE else attempts + 1
            self.up, self.reason = False, why
            self._lost()
            self.tried.set()
            self._changed()
            pause = min(_FIRST_PAUSE * 2 ** min(attempts, 10), _LONGEST_PAUSE) * random.uniform(0.5, 1)
            await self._rest(max(pause - lasted, _FIRST_PAUSE / 2))

    async def _rest(self, seconds: float) -> None:
        self._hurried.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    async def _use(self, connection: Connection) -> None:
        """Read and write until the connection is lost.

        Raises:
            RedisError: why.
        """
        self._broken = broken = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(self._read(connection), name=f"wsrouter redis {self.role} reads")
        writing = asyncio.create_task(self._write(connection), name=f"wsrouter redis {self.role} writes")
        try:
            self._opened()
            await asyncio.wait([reading, writing, broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._broken = None
            reading.cancel()
            writing.cancel()
            await asyncio.wait([reading, writing])
        if broken.done():
            raise broken.result()
        for task in (reading, writing):
            if not task.cancelled():
                task.result()

    async def _write(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if outgoing := self._outgoing():
                await connection.send_packed_command(outgoing)
            else:
                self._wanted = loop.create_future()
                await self._wanted

    async def _read(self, connection: Connection) -> None:
        suspended = False

        def suspend() -> None:
            nonlocal suspended
            suspended = True

        since = self.read_at = monotonic()
        while True:
            try:
                reply = await drive(connection.read_response(timeout=inf, disconnect_on_error=False), suspend)
            except ResponseError as exc:
                reply = exc
            now = self.read_at = monotonic()
            if suspended:
                suspended, since = False, now
            try:
                self._take(reply)
            except Unasked as exc:
                self.break_off(exc)
            except Exception:
                logger.exception("What came from Redis at %s could not be taken", self._connector.address)
            if now - since > _SLICE:
                await asyncio.sleep(0)
                since = monotonic()
