"""Start, end, and nodes that vanish."""

import asyncio
from unittest import SkipTest

from wsrouter.brokers.base import Entry
from wsrouter.errors import ConfigurationError
from wsrouter.testing.brokers.peer import Departed, Peer
from wsrouter.testing.brokers.setting import HISTORY, Setting, same


class Life(Setting):
    """A broker starts whatever its server does, leaves nothing when it is closed, and misses a node that is gone."""

    async def test_aclose_can_be_called_again(self) -> None:
        """The second time it does nothing; before `start` it does nothing either."""
        async with self.cold(2) as (a, b):
            await a.broker.aclose()
            for peer in (a, b):
                await peer.start()
            await self.up(a)
            for _ in range(2):
                async with self.in_time("aclose"):
                    await a.broker.aclose()

    async def test_a_closed_broker_is_silent(self) -> None:
        """When `aclose` has returned, nothing is delivered any more, and none of its tasks is left."""
        async with self.cold(2) as (a, b):
            await b.start()
            await self.up(b)
            before = asyncio.all_tasks()
            await a.start()
            await self.up(a)
            for peer in (a, b):
                await peer.subscribe("room")
            await b.publish("room", 1)
            await a.hears("room", [1])
            await a.broker.aclose()
            await b.until(lambda: not asyncio.all_tasks() - before, "the tasks of a closed broker to end")
            await b.publish("room", 2)
            await b.hears("room", [1, 2])
            same(a.numbers("room"), [1], f"what {a} heard")

    async def test_a_closed_broker_can_be_started_again(self) -> None:
        """It begins as a new node that has subscribed to nothing, and does all that it did before."""
        async with self.cluster(2) as (a, b):
            await a.subscribe("room", history=HISTORY)
            await a.subscribe("before")
            await a.broker.aclose()
            await a.start()
            await self.up(a)
            await a.subscribe("room", history=HISTORY)
            await b.publish("before", 1)
            await b.publish("room", 2, history=HISTORY)
            await a.publish("room", 3, history=HISTORY)
            await a.hears("room", [2, 3])
            same(a.numbers("before"), [], "what was heard of a name that was subscribed to before")
            same(list(await a.broker.announce("room", [Entry("r1", a.id, "u1")])), [], "refs that were not taken")
            same((await a.broker.acquire("u1", "c1", 1, replace=False)).held, True, "whether a slot is held")

    async def test_a_broker_is_not_taken_from_its_receiver(self) -> None:
        """A second receiver is refused with `ConfigurationError`, or served as well; the first is not forgotten."""
        async with self.cluster(2) as (a, b):
            await a.subscribe("room")
            second = Peer(a.broker, 3, self.timeout)
            refused = False
            try:
                await second.start()
            except ConfigurationError:
                refused = True
            await b.publish("room", 1)
            for peer in (a,) if refused else (a, second):
                await peer.hears("room", [1])

    async def test_start_does_not_need_the_server(self) -> None:
        """It returns though the server is away, `link` says so, and as soon as it can the broker is there."""
        async with self.cold(2) as (a, b):
            await self.cut(a.broker)
            async with self.in_time("start"):
                await a.start()
            await b.start()
            await self.up(b)
            same(a.broker.link().state, "down", "link().state while the server is away")
            await self.failure("subscribe", a.subscribe("room"))
            await a.broker.unsubscribe("room", "room")
            await self.mend(a.broker)
            await self.up(a)
            await a.subscribe("room")
            await b.publish("room", 1)
            await a.hears("room", [1])

    async def test_a_node_that_is_gone_has_departed(self) -> None:
        """After the `ttl` others are told, its entries are void and its slots free; who is there does not depart."""
        if self.ttl is None:
            raise SkipTest("the test class has no ttl: when a node has departed is not tested")
        async with self.cluster(3) as (a, b, c):
            for peer in (a, b, c):
                await peer.subscribe("room")
            stays = Entry("r3", c.id, "u3")
            await a.broker.announce("room", [Entry("r1", a.id, "u1"), Entry("r2", a.id, "u2", dropped=True)])
            await c.broker.announce("room", [stays])
            for peer, name in ((a, "of one that goes"), (c, "of one that stays")):
                await peer.broker.acquire(name, "c1", 1, replace=False)
            await self.cut(a.broker)
            for peer in (b, c):
                await peer.misses(a, self.ttl + self.notice)
            await asyncio.sleep(self.ttl)
            same(list(await b.broker.entries("room")), [stays], "entries")
            for name, held in (("of one that goes", True), ("of one that stays", False)):
                slot = await b.broker.acquire(name, "c2", 1, replace=False)
                same(slot.held, held, f"whether the slot {name} can be taken")
            for peer in (b, c):
                departed = {each.node for each in peer.heard if isinstance(each, Departed)}
                same(departed, {a.id}, f"nodes that departed, as {peer} was told")
