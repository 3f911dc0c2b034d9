"""A cluster: many servers, each with some of the slots that keys and channels belong to."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeVar

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from wsrouter.brokers.redis.connections import Address, ClusterConnectors, Connector, ask, hang_up, pack, say
from wsrouter.brokers.redis.link import Link
from wsrouter.brokers.redis.servers import Servers
from wsrouter.errors import BrokerError

logger: Final = logging.getLogger("wsrouter")

T = TypeVar("T")

_LOOK_EVERY: Final = 10.0
"""Seconds between two looks at who has which slots, while all is well."""

_LOOK_AGAIN: Final = 0.5
"""Seconds until the next, while it is not."""


class Cluster(Servers[T]):
    """Knows which server has which slots, and moves subscriptions with them.

    Args:
        connectors: open connections.
        timeout: seconds for one command.
        link: makes the link to a server, given what connects to it and what is called when something is not there.
        channels: that are subscribed to from the beginning, each with what it stands for.
        own: makes a channel where heartbeats are published, given a number.
        owner: what such a channel stands for, given the channel.
    """

    def __init__(
        self,
        connectors: ClusterConnectors,
        timeout: float,
        link: Callable[[Connector, Callable[[], None]], Link[T]],
        channels: Mapping[bytes, T],
        own: Callable[[int], bytes],
        owner: Callable[[bytes], T],
    ) -> None:
        self._connectors = connectors
        self._timeout = timeout
        self._make_link = link
        self._unplaced = dict(channels)
        """What is subscribed to as soon as there is a server for it."""
        self._own = own
        self._owner = owner
        self._by_address: dict[Address, Link[T]] = {}
        self._by_slot: list[Link[T] | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._up = False
        self._since = monotonic()
        self._silent = False
        """Whether no server tells of the cluster."""

    async def open(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._look()
                await asyncio.gather(*(link.tried() for link in self.links))
        self._task = asyncio.create_task(self._keep_looking(), name="wsrouter redis cluster")

    async def aclose(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.gather(*(link.aclose() for link in self.links))

    @property
    def up(self) -> bool:
        self._judge()
        return self._up

    @property
    def since(self) -> float:
        self._judge()
        return self._since

    @property
    def links(self) -> Collection[Link[T]]:
        return [*self._by_address.values()]

    def of(self, key: bytes) -> Link[T]:
        link = self._by_slot[key_slot(key)]
        if link is None:
            self._wanted.set()
            raise BrokerError("no server of the Redis cluster is known to have it")
        return link

    def subject(self, channel: bytes) -> T | None:
        link = self._by_slot[key_slot(channel)]
        found = None if link is None else link.reader.channels.get(channel)
        return self._unplaced.get(channel) if found is None else found

    def unsubscribe(self, channel: bytes) -> None:
        self._unplaced.pop(channel, None)
        for link in self.links:
            link.reader.unsubscribe(channel)

    def _judge(self) -> None:
        up = (
            all(self._by_slot) and all(link.up and not link.reader.astray for link in self.links) and not self._unplaced
        )
        if up is not self._up:
            self._up, self._since = up, monotonic()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY if self.up else _LOOK_AGAIN):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._look()
            except Exception:
                logger.exception("What the Redis cluster said of its slots could not be taken")
            await asyncio.sleep(_LOOK_AGAIN * random.uniform(0.2, 0.4))

    async def _look(self) -> None:
        """Ask the servers, one after the other until one answers, who has which slots."""
        failure: Exception = BrokerError("it has no slots")
        for address in self._addresses():
            connection = self._connectors.at(address).new()
            try:
                async with asyncio.timeout(self._timeout / 2):
                    await connection.connect()
                    (slots,) = await ask(connection, pack("CLUSTER", "SLOTS"))
            except (RedisError, OSError, TimeoutError) as exc:
                failure = exc
            else:
                if slots:
                    self._tell(None)
                    await self._place(address, slots)
                    return
            finally:
                await hang_up(connection)
        self._tell(failure)

    def _tell(self, failure: Exception | None) -> None:
        """Say that no server tells of the cluster, or that one does again."""
        silent = failure is not None
        if silent is self._silent:
            return
        self._silent = silent
        if failure is None:
            logger.info("The Redis cluster is there again")
        else:
            level = logging.ERROR if isinstance(failure, ResponseError | AuthenticationError) else logging.WARNING
            logger.log(level, "No server of the Redis cluster tells of its slots: %s", say(failure))

    def _addresses(self) -> list[Address]:
        known = [*self._by_address]
        random.shuffle(known)
        return [*known, *(each for each in self._connectors.seeds if each not in self._by_address)]

    async def _place(self, asked: Address, slots: list[Any]) -> None:
        """Have a link to every server that has slots, and to no other, and each channel subscribed to at its own."""
        by_slot: list[Link[T] | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        by_address: dict[Address, Link[T]] = {}
        for first, last, master, *_ in slots:
            host = master[0].decode() if master[0] else asked[0]
            address = self._connectors.remap((host, int(master[1])))
            link = by_address.get(address) or self._by_address.get(address)
            if link is None:
                link = self._make_link(self._connectors.at(address), self._wanted.set)
                link.open()
            by_address[address] = link
            by_slot[first : last + 1] = [link] * (last + 1 - first)
        gone = [link for address, link in self._by_address.items() if address not in by_address]
        self._by_slot, self._by_address = by_slot, by_address
        self._move([*gone, *by_address.values()])
        self._choose_own()
        await asyncio.gather(*(link.aclose() for link in gone))

    def _move(self, links: Collection[Link[T]]) -> None:
        moved: dict[Link[T], dict[bytes, T]] = {}
        for link in links:
            reader = link.reader
            for channel in [*reader.channels]:
                home = self._by_slot[key_slot(channel)]
                if home is not link or channel in reader.astray:
                    subject = reader.channels[channel]
                    if home is not link or channel == link.channel:
                        reader.unsubscribe(channel)
                    if channel == link.channel:
                        link.channel = None
                    elif home is None:
                        self._unplaced[channel] = subject
                    else:
                        moved.setdefault(home, {})[channel] = subject
        for channel, subject in [*self._unplaced.items()]:
            home = self._by_slot[key_slot(channel)]
            if home is not None:
                moved.setdefault(home, {})[channel] = subject
                del self._unplaced[channel]
        for link, channels in moved.items():
            link.reader.adopt(channels)

    def _choose_own(self) -> None:
        """Choose a channel for the heartbeats of every link that has none, in a slot that it has."""
        lacking = {link for link in self.links if link.channel is None}
        for number in range(REDIS_CLUSTER_HASH_SLOTS):
            if not lacking:
                return
            channel = self._own(number)
            link = self._by_slot[key_slot(channel)]
            if link in lacking:
                lacking.discard(link)
                link.reader.adopt({channel: self._owner(channel)})
                link.channel = channel
