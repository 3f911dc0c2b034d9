"""What a broker has while it serves a node."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from wsrouter.brokers.base import Publication, Receiver, Target
from wsrouter.brokers.redis.cluster import Cluster
from wsrouter.brokers.redis.connections import ClusterConnectors, Connector, pack
from wsrouter.brokers.redis.heart import Heart
from wsrouter.brokers.redis.holes import Holes
from wsrouter.brokers.redis.link import Link
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.nodes import Nodes
from wsrouter.brokers.redis.orders import Orders
from wsrouter.brokers.redis.payloads import Payloads
from wsrouter.brokers.redis.presence import RedisPresence
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import OneServer, Servers
from wsrouter.brokers.redis.slots import RedisSlots
from wsrouter.brokers.redis.streams import RedisStreams
from wsrouter.brokers.redis.subscriptions import Incoming, Subscription
from wsrouter.brokers.redis.upkeep import Upkeep
from wsrouter.errors import BrokerError
from wsrouter.history import History

logger: Final = logging.getLogger("wsrouter")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, as `RedisBroker` takes them."""

    timeout: float
    ttl: float
    heartbeat: float


class RedisNode:
    """One node.

    Args:
        id: of the node.
        receiver: who gets what comes.
        connector: opens connections.
        names: of keys and channels.
        times: deadlines and the like.
        grace: seconds that an entry stays after its connection was dropped.
    """

    def __init__(
        self,
        id: str,
        receiver: Receiver,
        connector: Connector | ClusterConnectors,
        names: Names,
        times: Times,
        grace: float,
    ) -> None:
        self._id = id
        self._names = names
        self._receiver = receiver
        self._times = times
        scripts = Scripts(sharded=isinstance(connector, ClusterConnectors))
        self._payloads = payloads = Payloads(id)
        self.incoming = incoming = Incoming(
            payloads,
            receiver,
            beat=self._beat,
            missed_anywhere=self._missed_anywhere,
            others_have=self._others_have,
        )
        self.servers: Servers[Subscription] = self._connect(connector, scripts)
        servers = self.servers
        nodes = Nodes(id, times.ttl, times.heartbeat)
        self._heart = Heart(
            id,
            names,
            payloads,
            scripts,
            servers,
            nodes,
            ttl=times.ttl,
            heartbeat=times.heartbeat,
            timeout=times.timeout,
            departed=receiver.departed,
            forgotten=self._forgotten,
            beaten=self._beaten,
        )
        self._upkeep = Upkeep(lambda key, command: servers.publisher(key).send(command))
        self._holes = Holes(servers, names.everyone, payloads.hole())
        self._orders = Orders(names, payloads, scripts, servers, incoming)
        self.streams = RedisStreams(names, payloads, scripts, servers, incoming, self._upkeep, times.timeout)
        self.presence = RedisPresence(
            id,
            names,
            payloads,
            scripts,
            servers,
            incoming,
            nodes,
            self._heart.ask,
            self._upkeep,
            ttl=times.ttl,
            grace=grace,
        )
        self.slots = RedisSlots(id, names, scripts, servers, nodes, self._heart.ask, self._upkeep, times.ttl)
        self._tasks: list[asyncio.Task[None]] = []
        self._up: frozenset[Link[Subscription]] = frozenset()

    def _connect(self, connector: Connector | ClusterConnectors, scripts: Scripts) -> Servers[Subscription]:
        names, timeout = self._names, self._times.timeout
        everyone = {names.everyone: Subscription(names.everyone, None, "")}

        def link(connector: Connector, misplaced: Callable[[], None]) -> Link[Subscription]:
            return Link(
                connector,
                timeout,
                scripts,
                self.incoming.take,
                self._regained,
                self._changed,
                misplaced,
                sharded=scripts.sharded,
            )

        def own(number: int) -> bytes:
            return names.node(self._id, number)

        def owner(channel: bytes) -> Subscription:
            return Subscription(channel, None, self._id)

        if isinstance(connector, ClusterConnectors):
            return Cluster(connector, timeout, link, everyone, own, owner)
        channels = {**everyone, own(0): owner(own(0))}
        return OneServer(link(connector, lambda: None), timeout, channels, own(0))

    async def open(self) -> None:
        """Open the links, and begin to beat."""
        await self.servers.open()
        if any(link.publisher.up for link in self.servers.links):
            with suppress(BrokerError):
                await self._heart.ask()
        self._tasks = [
            asyncio.create_task(_watched(run), name=f"wsrouter redis {name}")
            for name, run in (
                ("heart", self._heart.run),
                ("upkeep", self._upkeep.run),
                ("orders", self._orders.run),
                ("slots", self.slots.run),
            )
        ]

    async def aclose(self) -> None:
        """Leave, and close the links."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            async with asyncio.timeout(self._times.timeout):
                await self._leave()
        except (BrokerError, TimeoutError) as exc:
            logger.warning("Redis was not told that this process leaves: %s", str(exc) or "no answer in time")
        finally:
            await self.servers.aclose()

    async def _leave(self) -> None:
        self._holes.tell()
        leaving = (self.presence.aclose(), self.slots.aclose(), self._heart.leave())
        for outcome in await asyncio.gather(*leaving, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def publish(self, publication: Publication, history: History | None) -> None:
        """Hand a publication to every node."""
        if publication.target == "disconnect":
            await self._orders.publish(publication)
            return
        if history is not None and publication.target == "room":
            await self.streams.publish(publication, history)
            return
        channel = self._names.channel(publication.target, publication.name)
        payload = self._payloads.message(publication)
        if self.servers.subject(channel) is not None:
            self._receiver.deliver(publication)
        try:
            if self._holes:
                self._holes.tell_before(channel)
            link = self.servers.of(channel)
            await link.publisher.send(pack(link.publish, channel, payload))
        except BaseException:
            self._holes.add(channel)
            raise

    async def subscribe(self, target: Target, name: str, history: History | None) -> None:
        """Subscribe to a room or a user."""
        channel = self._names.channel(target, name)
        subscription = Subscription(channel, target, name, history)
        await self.servers.reader(channel).subscribe(channel, subscription)
        if target == "user":
            try:
                await self._orders.take(subscription)
            except BaseException:
                self.servers.unsubscribe(channel)
                raise
        elif history is not None:
            self.streams.hold(name, history)

    def unsubscribe(self, target: Target, name: str) -> None:
        """Be subscribed to it no longer."""
        channel = self._names.channel(target, name)
        self.servers.unsubscribe(channel)
        if target == "room":
            self.streams.release(name)

    def _beat(self, number: int) -> None:
        self._heart.came(number)

    def _others_have(self, room: str, refs: Collection[str]) -> None:
        self.presence.forget(room, refs)

    def _regained(self, subscriptions: Sequence[Subscription]) -> None:
        self.incoming.lost(subscriptions)
        self._orders.missed(each for each in subscriptions if each.target == "user")

    def _missed_anywhere(self) -> None:
        """Take notice that another node could not publish somewhere; rooms with history know by their offsets."""
        for link in self.servers.links:
            self.incoming.lost(each for each in link.reader.channels.values() if each.history is None)

    def _forgotten(self) -> None:
        """Take notice that Redis has lost what it knew: who is here, and what was kept of rooms."""
        logger.warning("Redis has lost what it knew of this process, and is told again")
        self.slots.renew()
        rooms = {*self.presence.rooms}
        for link in self.servers.links:
            self.incoming.lost(
                each
                for each in link.reader.channels.values()
                if each.target == "room" and (each.history is not None or each.name in rooms)
            )

    def _changed(self) -> None:
        if self._tasks and any(link.publisher.up for link in self.servers.links):
            self._heart.soon()
            self.slots.renew()
            self._orders.again()
            self._holes.tell()
        before, self._up = self._up, frozenset(link for link in self.servers.links if link.up)
        if self._up - before:
            self._receiver.restored()

    def _beaten(self) -> None:
        self._holes.tell()
        if any(link.publisher.up for link in self.servers.links):
            self._orders.again()
            self.slots.again()


async def _watched(run: Callable[[], Awaitable[None]]) -> None:
    try:
        await run()
    except Exception:
        logger.exception("What keeps the link to Redis failed")
