"""The broker of many processes, on Redis."""

import re
from collections.abc import Sequence
from math import ceil
from secrets import token_urlsafe
from time import monotonic
from typing import Final

from redis.asyncio import Redis

from wsrouter.brokers.base import Broker, Entry, Link, Publication, Receiver, Slot, Target
from wsrouter.brokers.redis.connections import Connector, pack
from wsrouter.brokers.redis.link import Link as ServerLink
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.payloads import Payloads
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.streams import RedisStreams
from wsrouter.brokers.redis.subscriptions import MOST_ORDERS, Incoming, Subscription
from wsrouter.errors import BrokerError, ConfigurationError
from wsrouter.history import History, Position, Recovery

_ORDERS_KEPT: Final = 60.0
"""Seconds that an order to disconnect a user is kept for nodes that subscribe to the user later."""

_NODE: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class RedisBroker(Broker):
    """Connects processes by Redis 6.2 or newer.

    It opens two connections of its own: one for commands, one for what is published.

    Args:
        url: such as ``redis://127.0.0.1:6379/0``, as redis-py takes it.
        client: in place of ``url``: a client whose options are used for our own connections. It is not used itself.
        prefix: begins every key and channel: 1 to 64 letters, digits and signs. Applications that share a server need
            different ones.
        timeout: seconds for one command, and for opening a connection.
        ttl: seconds after which a node that is not heard of is taken for dead.
        heartbeat: seconds between two heartbeats.
        grace: seconds that an entry whose connection was dropped stays.

    Raises:
        ConfigurationError: an address that redis-py does not take, or another argument that is not as described.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Redis | None = None,
        prefix: str = "wsrouter:",
        timeout: float = 2.0,
        ttl: float = 60.0,
        heartbeat: float = 2.0,
        grace: float = 15.0,
    ) -> None:
        if (url is None) is (client is None):
            raise ConfigurationError("RedisBroker(): expected either an address, or client=")
        for name, value in (("timeout", timeout), ("heartbeat", heartbeat), ("grace", grace)):
            if not value > 0:
                raise ConfigurationError(f"RedisBroker({name}={value!r}): expected seconds above zero")
        if not ttl >= 3 * heartbeat:
            raise ConfigurationError(f"RedisBroker(ttl={ttl!r}): expected at least three heartbeats ({heartbeat!r} s)")
        if url is not None:
            self._connector = Connector.of_url(url, timeout)
        else:
            assert client is not None
            self._connector = Connector.of_client(client, timeout)
        self._names = Names(prefix, self._connector.database)
        self._timeout = timeout
        self._running: _Running | None = None

    async def start(self, node: str, receiver: Receiver) -> None:
        if self._running is not None:
            raise ConfigurationError("this RedisBroker serves another hub already: every hub needs one of its own")
        if not _NODE.fullmatch(node):
            raise ConfigurationError(f"start(node={node!r}): expected at most 32 letters, digits, '-' and '_'")
        self._running = _Running(self._connector, self._names, self._timeout, node, receiver)
        await self._running.link.open()

    async def aclose(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.link.aclose()

    def link(self) -> Link:
        if self._running is None:
            return Link("down")
        link = self._running.link
        return Link("up" if link.up else "down", monotonic() - link.since, gaps=self._running.incoming.gaps)

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        await self._started().publish(publication, history)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        await self._started().subscribe(target, name, history)

    async def unsubscribe(self, target: Target, name: str) -> None:
        if self._running is not None:
            self._running.unsubscribe(target, name)

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        running = self._started()
        return await running.streams.recover(running.link.publisher, room, history, since)

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        raise NotImplementedError

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        raise NotImplementedError

    async def entries(self, room: str) -> Sequence[Entry]:
        raise NotImplementedError

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        raise NotImplementedError

    async def release(self, name: str, holder: str) -> None:
        raise NotImplementedError

    def _started(self) -> "_Running":
        if self._running is None:
            raise BrokerError("this RedisBroker was not started, or is closed")
        return self._running


class _Running:
    """What a broker has while it serves a node."""

    def __init__(self, connector: Connector, names: Names, timeout: float, node: str, receiver: Receiver) -> None:
        self._names = names
        self._receiver = receiver
        self._scripts = Scripts()
        self._payloads = Payloads(node)
        self.incoming = Incoming(self._payloads, receiver)
        self.streams = RedisStreams(names, self._payloads, self._scripts, self.incoming, timeout)
        self.link: ServerLink[Subscription] = ServerLink(
            connector, timeout, self._scripts, self.incoming.take, self._regained, self._came_back
        )

    async def publish(self, publication: Publication, history: History | None) -> None:
        publisher = self.link.publisher
        if publication.target == "disconnect":
            await self._disconnect(publication)
            return
        channel = self._names.channel(publication.target, publication.name)
        subscription = self.link.reader.channels.get(channel)
        if history is not None and publication.target == "room":
            await self.streams.publish(publisher, channel, publication, history, subscription)
            return
        payload = self._payloads.message(publication)
        if subscription is not None:
            self._receiver.deliver(publication)
        await publisher.call(pack("PUBLISH", channel, payload))

    async def _disconnect(self, order: Publication) -> None:
        id = token_urlsafe(9)
        channel = self._names.channel("user", order.name)
        payload = self._payloads.disconnect(order, id)
        subscription = self.link.reader.channels.get(channel)
        if subscription is not None:
            self.incoming.order(subscription, id, order)
        keys = [self._names.key("orders", order.name), channel]
        await self.link.publisher.call(
            self._scripts.disconnect.call(keys, payload, ceil(_ORDERS_KEPT * 1000), MOST_ORDERS)
        )

    async def subscribe(self, target: Target, name: str, history: History | None) -> None:
        channel = self._names.channel(target, name)
        subscription = Subscription(channel, target, name, history)
        await self.link.reader.subscribe(channel, subscription)
        if target == "user":
            try:
                await self._take_kept_orders(subscription)
            except BaseException:
                self.link.reader.unsubscribe(channel)
                raise

    def unsubscribe(self, target: Target, name: str) -> None:
        self.link.reader.unsubscribe(self._names.channel(target, name))

    async def _take_kept_orders(self, subscription: Subscription) -> None:
        now, entries = await self.link.publisher.call(
            self._scripts.orders.call([self._names.key("orders", subscription.name)])
        )
        self.incoming.kept_orders(subscription, int(now), entries)

    def _regained(self, subscriptions: Sequence[Subscription]) -> None:
        self.incoming.regained(subscriptions)

    def _came_back(self) -> None:
        pass
