"""The link to one server: a connection for commands and one for what is published, and how they are."""

import logging
from collections.abc import Callable, Sequence
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
        changed: called when one of them is up, or down.
        misplaced: called when keys or channels may not be on this server any more.
        sharded: whether it is one of a cluster.
    """

    def __init__(
        self,
        connector: Connector,
        timeout: float,
        scripts: Scripts,
        deliver: Callable[[T, bytes], None],
        regained: Callable[[Sequence[T]], None],
        changed: Callable[[], None],
        misplaced: Callable[[], None],
        *,
        sharded: bool = False,
    ) -> None:
        self.up = False
        self.since = monotonic()
        """When it came up or went down."""
        self.publish = "SPUBLISH" if sharded else "PUBLISH"
        """The command that publishes."""
        self.channel: bytes | None = None
        """Where heartbeats are published, once it is subscribed to."""
        self.beaten_at: float | None = None
        """When a heartbeat came last."""
        self.lag: float | None = None
        """Seconds that it took."""
        self.publisher = Publisher(
            connector, timeout, self._changed, self._silent, misplaced, scripts.all, sharded=sharded
        )
        self.reader: Reader[T] = Reader(
            connector, timeout, self._changed, deliver, regained, misplaced, sharded=sharded
        )
        self._address = connector.address
        self._tell_changed = changed
        self._misplaced = misplaced
        self._told = False
        self._closed = False
        self._were_up: set[Publisher | Reader[T]] = set()

    def open(self) -> None:
        """Begin to open both."""
        self.publisher.open()
        self.reader.open()

    async def tried(self) -> None:
        """Wait until both were opened, or could not be."""
        await self.publisher.tried.wait()
        await self.reader.tried.wait()

    async def aclose(self) -> None:
        """Close both."""
        self._closed = True
        await self.reader.aclose()
        await self.publisher.aclose()
        self._changed()

    def beaten(self, sent_at: float) -> None:
        """Take notice that a heartbeat came."""
        self.beaten_at = monotonic()
        self.lag = self.beaten_at - sent_at

    def _silent(self, why: str) -> None:
        """Take a server that does not answer in time for lost: nobody knows what it was to publish, and did not."""
        self.publisher.break_off(why)
        self.reader.break_off(why)

    def _changed(self) -> None:
        for line, other in ((self.publisher, self.reader), (self.reader, self.publisher)):
            if line.up and line not in self._were_up:
                other.hurry()
        self._were_up = {line for line in (self.publisher, self.reader) if line.up}
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
        elif not self._told:
            down = next((line for line in (self.publisher, self.reader) if line.tried.is_set() and not line.up), None)
            if down is not None:
                self._told = True
                self._misplaced()
                logger.warning("The %s of Redis at %s is down: %s", down.role, self._address, down.reason)
        self._tell_changed()
