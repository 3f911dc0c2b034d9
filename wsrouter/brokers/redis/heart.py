"""Heartbeats: to all nodes that this one is there, and to itself that what is published comes."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import ceil
from time import monotonic
from typing import Final

from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import pack
from wsrouter.brokers.redis.link import Link
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.nodes import Nodes
from wsrouter.brokers.redis.payloads import Payloads
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import Subscription
from wsrouter.errors import BrokerError

logger: Final = logging.getLogger("wsrouter")


class Heart:
    """Beats while it runs.

    A server that is frozen, or lost behind a network that drops everything, looks like one where nothing happens. The
    publisher misses the answer to a heartbeat. The reader misses the heartbeat itself: it is published to a channel of
    this node's own.

    Args:
        node: id of this node.
        names: of channels.
        payloads: of this node.
        scripts: that are used.
        servers: where.
        nodes: is told which nodes are there.
        ttl: seconds after which a node that is not heard of is gone.
        heartbeat: seconds between two.
        timeout: seconds for a command.
        departed: called with a node that is gone.
        forgotten: called when Redis has lost what it knew, though it went on.
        beaten: called after each.
    """

    def __init__(
        self,
        node: str,
        names: Names,
        payloads: Payloads,
        scripts: Scripts,
        servers: Servers[Subscription],
        nodes: Nodes,
        *,
        ttl: float,
        heartbeat: float,
        timeout: float,
        departed: Callable[[str], None],
        forgotten: Callable[[], None],
        beaten: Callable[[], None],
    ) -> None:
        self._node = node
        self._names = names
        self._payloads = payloads
        self._scripts = scripts
        self._servers = servers
        self._nodes = nodes
        self._ttl = ttl
        self._heartbeat = heartbeat
        self._patience = timeout / 2
        self._departed = departed
        self._forgotten = forgotten
        self._beaten = beaten
        self._run: str | None = None
        """Of the server that was told of this node."""
        self._refused = False
        """Whether Redis refused to be told."""
        self._numbers = count(1)
        self._under_way: dict[int, tuple[Link[Subscription], float]] = {}
        self._alarms: set[Alarm] = set()
        self._wanted = asyncio.Event()

    def soon(self) -> None:
        """Beat now."""
        self._wanted.set()

    async def run(self) -> None:
        """Beat until this is cancelled."""
        try:
            while True:
                self._wanted.clear()
                await asyncio.gather(self._tell_all(), *(self._publish(link) for link in self._servers.links))
                self._beaten()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rest()):
                        await self._wanted.wait()
        finally:
            for alarm in self._alarms:
                alarm.cancel()

    async def ask(self) -> None:
        """Tell Redis that this node is there, and hear which others are.

        Raises:
            BrokerError: it did not answer.
        """
        key = self._names.nodes
        publisher = self._servers.publisher(key)
        new, time, listed = await publisher.call(self._scripts.beat.call([key], self._node, ceil(self._ttl * 1000)))
        known, self._run = self._run, publisher.run
        forgotten = new == 1 and known is not None
        ages = {
            node.decode(errors="replace"): max(0.0, (float(time) - float(at)) / 1000)
            for node, at in zip(listed[::2], listed[1::2], strict=True)
        }
        for node in self._nodes.heard(ages, monotonic(), forgotten=forgotten):
            self._departed(node)
        if forgotten and known == publisher.run:  # after a restart its readers notice by themselves
            self._forgotten()

    async def leave(self) -> None:
        """Tell Redis that this node is gone.

        Raises:
            BrokerError: it did not answer.
        """
        await self._servers.publisher(self._names.nodes).call(pack("ZREM", self._names.nodes, self._node))

    def came(self, number: int) -> None:
        """Take a heartbeat that was published."""
        link, sent_at = self._under_way.pop(number, (None, 0.0))
        if link is not None:
            link.beaten(sent_at)

    def _rest(self) -> float:
        """Return the seconds until the next heartbeat, which comes earlier if a node's time is over before it."""
        due = self._nodes.due
        left = self._heartbeat if due is None else due - monotonic()
        return left if 0 < left < self._heartbeat else self._heartbeat

    async def _tell_all(self) -> None:
        try:
            await self.ask()
        except BrokerError as exc:
            if not self._refused and any(link.publisher.up for link in self._servers.links):
                logger.warning("Redis was not told that this process lives: %s", exc)
                self._refused = True
        else:
            self._refused = False

    async def _publish(self, link: Link[Subscription]) -> None:
        if link.channel is None:
            return
        number = next(self._numbers)
        self._under_way[number] = link, monotonic()
        try:
            await link.publisher.call(pack(link.publish, link.channel, self._payloads.beat(number)))
        except BrokerError:
            self._under_way.pop(number, None)
        if number in self._under_way:
            alarm = Alarm(self._patience, lambda: self._overdue(number, alarm))
            self._alarms.add(alarm)

    def _overdue(self, number: int, alarm: Alarm) -> None:
        self._alarms.discard(alarm)
        link, sent_at = self._under_way.pop(number, (None, 0.0))
        if link is not None and link.reader.read_at < sent_at:  # else there is more than it can read in time
            link.reader.break_off(f"a heartbeat did not come within {self._patience:g} s")
