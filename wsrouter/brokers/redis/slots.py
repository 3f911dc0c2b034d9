"""Slots that are held across all nodes: a sorted set for each name, of nodes and holders by the time they came."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import ceil
from time import monotonic
from typing import Any, Final

from wsrouter.brokers.base import Slot
from wsrouter.brokers.redis.connections import Part, pack
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.nodes import Nodes
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import Subscription
from wsrouter.brokers.redis.upkeep import Upkeep
from wsrouter.errors import BrokerError

_LIFE: Final = 3
"""For how many times the ``ttl`` of nodes a key is kept after it was used last."""

_MOST_AT_ONCE: Final = 256
"""Holders that one script is told of, and names of which Redis is told together."""


class RedisSlots:
    """Takes slots and gives them back.

    Args:
        node: id of this node.
        names: of the keys.
        scripts: that are used.
        servers: where.
        nodes: which nodes are there, as far as was heard.
        ask_for_nodes: has ``nodes`` heard what Redis knows.
        upkeep: of the keys.
        ttl: seconds after which a node that is not heard of is gone.
    """

    def __init__(
        self,
        node: str,
        names: Names,
        scripts: Scripts,
        servers: Servers[Subscription],
        nodes: Nodes,
        ask_for_nodes: Callable[[], Awaitable[object]],
        upkeep: Upkeep,
        ttl: float,
    ) -> None:
        self._node = node
        self._names = names
        self._scripts = scripts
        self._servers = servers
        self._nodes = nodes
        self._ask_for_nodes = ask_for_nodes
        self._upkeep = upkeep
        self._ttl = ttl
        self._life = ceil(ttl * 1000 * _LIFE)
        self._holders: dict[str, dict[str, bool]] = {}
        """Of each name those who hold a slot, and those who do not any more, which Redis may not know yet."""
        self._untold: dict[str, None] = {}
        """Names of which Redis is to be told again."""
        self._wanted = asyncio.Event()

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        """Take a slot.

        Raises:
            BrokerError: it is not known whether there was one; none is held.
        """
        try:
            reply = await self._acquire(name, holder, most, "try")
            if not reply[0]:
                await self._ask_for_nodes()
                reply = await self._acquire(name, holder, most, "replace" if replace else "free")
        except BaseException:
            self._return(name, holder)
            raise
        if not reply[0]:
            return Slot(False)
        self._holders.setdefault(name, {})[holder] = True
        key = self._names.key("slots", name)
        self._upkeep.hold(key, self._ttl, pack("PEXPIRE", key, self._life))
        replaced: bytes | None = reply[1]
        return Slot(True, None if replaced is None else replaced.partition(b" ")[2].decode())

    async def release(self, name: str, holder: str) -> None:
        """Give a slot back, now or when Redis is there again."""
        if holder not in self._holders.get(name, {}):
            return
        told = self._return(name, holder)
        if told is not None:
            await asyncio.wait([told])

    def renew(self) -> None:
        """Tell Redis again what is held and what is not: it may have forgotten one, and never heard of the other."""
        self._untold.update(dict.fromkeys(self._holders))
        self.again()

    def again(self) -> None:
        """Try again to tell what Redis could not be told, or refused to take."""
        if self._untold:
            self._wanted.set()

    async def run(self) -> None:
        """Tell what is to be told again, until this is cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            names = [*self._untold]
            for begin in range(0, len(names), _MOST_AT_ONCE):
                some = names[begin : begin + _MOST_AT_ONCE]
                await asyncio.gather(*map(self._tell_all, some), return_exceptions=True)

    async def aclose(self) -> None:
        """Give all slots back.

        Raises:
            BrokerError: some are not.
        """
        for holders in self._holders.values():
            holders.update(dict.fromkeys(holders, False))
        await asyncio.gather(*map(self._tell_all, [*self._holders]))

    async def _acquire(self, name: str, holder: str, most: int, mode: str) -> Any:
        key = self._names.key("slots", name)
        alive = () if mode == "try" else self._nodes.alive(monotonic())
        return await self._servers.publisher(key).call(
            self._scripts.acquire.call([key], self._member(holder), most, self._life, mode, *alive)
        )

    def _return(self, name: str, holder: str) -> "asyncio.Future[Any] | None":
        self._holders.setdefault(name, {})[holder] = False
        return self._tell(name, {holder: False})

    async def _tell_all(self, name: str) -> None:
        """Tell Redis who holds slots of a name, and who does not.

        Raises:
            BrokerError: it did not take all of it.
        """
        self._untold.pop(name, None)
        holders = [*self._holders.get(name, {}).items()]
        for begin in range(0, len(holders), _MOST_AT_ONCE):
            told = self._tell(name, dict(holders[begin : begin + _MOST_AT_ONCE]))
            if told is not None:
                await told

    def _tell(self, name: str, holders: Mapping[str, bool]) -> "asyncio.Future[Any] | None":
        """Tell Redis of some holders of a name; where this fails, `again` does so."""
        key = self._names.key("slots", name)
        arguments: list[Part] = [self._life]
        for holder, holds in holders.items():
            arguments += [self._member(holder), int(holds)]
        try:
            told = self._servers.publisher(key).send(self._scripts.renew.call([key], *arguments))
        except BrokerError:
            self._untold[name] = None
            return None
        told.add_done_callback(partial(self._told, name, holders))
        return told

    def _told(self, name: str, told: Mapping[str, bool], done: "asyncio.Future[Any]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._untold[name] = None
            return
        holders = self._holders.get(name, {})
        for holder, holds in told.items():
            if not holds and holders.get(holder) is False:
                del holders[holder]
        if not holders and self._holders.pop(name, None) is not None:
            self._upkeep.release(self._names.key("slots", name))

    def _member(self, holder: str) -> str:
        return f"{self._node} {holder}"
