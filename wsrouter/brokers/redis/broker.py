"""The broker of many processes, on Redis."""

import asyncio
import re
from collections.abc import Awaitable, Sequence
from math import inf
from time import monotonic
from typing import Final, TypeVar, cast

from redis.asyncio import Redis, RedisCluster

from wsrouter.brokers.base import Broker, Entry, Link, Publication, Receiver, Slot, Target
from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import ClusterConnectors, Connector
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.node import RedisNode, Times
from wsrouter.errors import BrokerError, ConfigurationError
from wsrouter.history import History, Position, Recovery

_MORE: Final = 0.1
"""Seconds that a call of more than one command has beyond the time of one, so that a command which is not answered is
noticed first: that tells that the server is silent."""

T = TypeVar("T")

_NODE: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class RedisBroker(Broker):
    """Connects processes by Redis 6.2 or newer.

    It opens two connections of its own: one for commands, one for what is published. It starts though Redis is away,
    and is there as soon as Redis is. One broker serves one hub, in one event loop.

    Args:
        url: such as ``redis://127.0.0.1:6379/0``, as redis-py takes it.
        client: in place of ``url``: a client of ``redis.asyncio`` whose options are used for our own connections; one
            that Sentinel gave, or of a cluster of Redis 7.0 or newer, too. It is not used itself, and not closed.
        prefix: begins every key and channel: 1 to 64 letters, digits and signs. Applications that share a server need
            different ones.
        timeout: seconds for one command, and for opening a connection. Nothing is tried twice.
        ttl: seconds after which a process that is not heard of is gone, with its entries and slots; at least three
            heartbeats.
        heartbeat: seconds between two heartbeats.

    Raises:
        ConfigurationError: an address that redis-py does not take, or another argument that is not as described.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Redis | RedisCluster | None = None,
        prefix: str = "wsrouter:",
        timeout: float = 2.0,
        ttl: float = 60.0,
        heartbeat: float = 2.0,
    ) -> None:
        if (url is None) is (client is None):
            raise ConfigurationError("RedisBroker(): expected either an address, or client=")
        if not isinstance(cast(object, client), Redis | RedisCluster | None):
            raise ConfigurationError(f"RedisBroker(client={type(client).__name__}): expected one of redis.asyncio")
        for name, value in (("timeout", timeout), ("heartbeat", heartbeat)):
            if not 0 < value < inf:
                raise ConfigurationError(f"RedisBroker({name}={value!r}): expected seconds above zero")
        if not 3 * heartbeat <= ttl < inf:
            raise ConfigurationError(f"RedisBroker(ttl={ttl!r}): expected at least three heartbeats ({heartbeat!r} s)")
        self._connector = _connector(url, client, timeout)
        self._names = Names(prefix, self._connector.database)
        self._times = Times(timeout, ttl, heartbeat)
        self._node: RedisNode | None = None

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        if self._node is not None:
            raise ConfigurationError("this RedisBroker serves another hub already: every hub needs one of its own")
        if not _NODE.fullmatch(node):
            raise ConfigurationError(f"start(node={node!r}): expected at most 32 letters, digits, '-' and '_'")
        self._node = RedisNode(node, receiver, self._connector, self._names, self._times, grace)
        try:
            await self._node.open()
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            await node.aclose()

    def link(self) -> Link:
        if self._node is None:
            return Link("down")
        now = monotonic()
        servers, links = self._node.servers, self._node.servers.links
        beats = [link.beaten_at for link in links if link.beaten_at is not None]
        return Link(
            "up" if servers.up else "down",
            now - servers.since,
            now - min(beats) if beats and len(beats) == len(links) else None,
            max((link.lag for link in links if link.lag is not None), default=None),
            self._node.incoming.gaps,
        )

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        await self._started().publish(publication, history)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        subscribing = self._started().subscribe(target, name, history)
        await (self._in_time(subscribing) if target == "user" else subscribing)

    async def unsubscribe(self, target: Target, name: str) -> None:
        if self._node is not None:
            self._node.unsubscribe(target, name)

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return await self._started().streams.recover(room, history, since)

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        return await self._started().presence.announce(room, entries)

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        await self._started().presence.withdraw(room, refs)

    async def entries(self, room: str) -> Sequence[Entry]:
        return await self._in_time(self._started().presence.entries(room))

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        return await self._in_time(self._started().slots.acquire(name, holder, most, replace=replace))

    async def release(self, name: str, holder: str) -> None:
        if self._node is not None:
            await self._node.slots.release(name, holder)

    async def _in_time(self, work: Awaitable[T]) -> T:
        """Await what takes more than one command, all in the time of one.

        Raises:
            BrokerError: it was not done in time.
        """
        loop, deadline = asyncio.get_running_loop(), asyncio.timeout(None)
        alarm = Alarm(self._times.timeout + _MORE, lambda: deadline.reschedule(loop.time()))
        try:
            async with deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise
            raise BrokerError(f"Redis did not do it within {self._times.timeout:g} s") from None
        finally:
            alarm.cancel()

    def _started(self) -> RedisNode:
        if self._node is None:
            raise BrokerError("this RedisBroker was not started, or is closed")
        return self._node


def _connector(url: str | None, client: Redis | RedisCluster | None, timeout: float) -> Connector | ClusterConnectors:
    if isinstance(client, RedisCluster):
        return ClusterConnectors(client, timeout)
    if client is not None:
        return Connector.of_client(client, timeout)
    assert url is not None
    return Connector.of_url(url, timeout)
