"""The link to one server: a connection for commands and one for what is published, and how they are."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Generic, TypeVar

from wsrouter.brokers.redis.connections import Connector
from wsrouter.brokers.redis.publisher import Publisher
from wsrouter.brokers.redis.reader import Reader
from wsrouter.brokers.redis.scripts import Scripts

logger: Final = logging.getLogger("wsrouter")

T = TypeVar("T")


class Link(Generic[T]):
    """Both connections to a server.

    Args:
        connector: opens connections.
        timeout: seconds for one command.
        scripts: the scripts that are used.
        deliver: see `Reader`.
        regained: see `Reader`.
        came_back: called when both are up.
        sharded: whether it is one of a cluster.
    """

    def __init__(
        self,
        connector: Connector,
        timeout: float,
        scripts: Scripts,
        deliver: Callable[[T, bytes], None],
        regained: Callable[[Sequence[T]], None],
        came_back: Callable[[], None],
        *,
        sharded: bool = False,
    ) -> None:
        self.up = False
        self.since = monotonic()
        """When it came up or went down."""
        self.publisher = Publisher(connector, timeout, self._changed, scripts.all, sharded=sharded)
        self.reader: Reader[T] = Reader(connector, timeout, self._changed, deliver, regained, sharded=sharded)
        self._address = connector.address
        self._timeout = timeout
        self._came_back = came_back
        self._told = False
        self._closed = False

    async def open(self) -> None:
        """Open both; where that can't be done in time, go on trying."""
        self.publisher.open()
        self.reader.open()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self.publisher.tried.wait()
                await self.reader.tried.wait()

    async def aclose(self) -> None:
        """Close both."""
        self._closed = True
        await self.reader.aclose()
        await self.publisher.aclose()
        self._changed()

    def _changed(self) -> None:
        up = self.publisher.up and self.reader.up
        if up and self.publisher.run != self.reader.run:  # one is still at the master of before
            self.publisher.break_off("the reader is at another server")
            self.reader.break_off("the publisher is at another server")
            return
        if up is not self.up:
            self.up, self.since = up, monotonic()
        if self._closed:
            return
        if up:
            if self._told:
                self._told = False
                logger.info("Redis at %s is there again", self._address)
            self._came_back()
        elif not self._told:
            down = next((line for line in (self.publisher, self.reader) if line.tried.is_set() and not line.up), None)
            if down is not None:
                self._told = True
                logger.warning("The %s of Redis at %s is down: %s", down.role, self._address, down.reason)
