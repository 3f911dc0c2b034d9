"""So many slots of a name, on all nodes together."""

import asyncio

from wsrouter.brokers.base import Slot
from wsrouter.testing.brokers.setting import Setting, same

TAKEN = Slot(True)
FULL = Slot(False)


class Slots(Setting):
    """No more are given than there are, and none is lost."""

    async def test_no_more_slots_are_given_than_there_are(self) -> None:
        """What one node took is not there for another."""
        async with self.cluster(2) as (a, b):
            same(await a.broker.acquire("u1", "c1", 2, replace=False), TAKEN, "the first of two slots")
            same(await b.broker.acquire("u1", "c2", 2, replace=False), TAKEN, "the second of two slots")
            for peer in (a, b):
                same(await peer.broker.acquire("u1", "c3", 2, replace=False), FULL, "a third of two slots")

    async def test_slots_are_taken_one_at_a_time(self) -> None:
        """Of many that ask at the same time, on several nodes, as many get one as there are."""
        async with self.cluster(2) as peers:
            slots = await asyncio.gather(
                *(peers[number % 2].broker.acquire("u1", f"c{number}", 3, replace=False) for number in range(20))
            )
            same([slot.held for slot in slots].count(True), 3, "slots that were given of three")

    async def test_a_holder_keeps_its_slot(self) -> None:
        """Who has a slot and asks again has it, and no second one."""
        async with self.cluster(2) as (a, b):
            for _ in range(3):
                same(await a.broker.acquire("u1", "c1", 2, replace=True), TAKEN, "the slot of who has it")
            same(await b.broker.acquire("u1", "c2", 2, replace=False), TAKEN, "the second of two slots")
            same(await a.broker.acquire("u1", "c1", 2, replace=False), TAKEN, "the slot of who has it")

    async def test_the_oldest_holder_is_replaced(self) -> None:
        """With `replace` nobody is turned away: who has had a slot longest has to go, on whichever node it is."""
        async with self.cluster(2) as (a, b):
            await a.broker.acquire("u1", "c1", 2, replace=True)
            await b.broker.acquire("u1", "c2", 2, replace=True)
            await a.broker.acquire("u1", "c1", 2, replace=True)  # it has one, and does not become younger
            same(await b.broker.acquire("u1", "c3", 2, replace=True), Slot(True, "c1"), "the slot of the third")
            same(await a.broker.acquire("u1", "c4", 2, replace=True), Slot(True, "c2"), "the slot of the fourth")
            same(await b.broker.acquire("u1", "c5", 2, replace=False), FULL, "a slot when two have theirs")
            same(await b.broker.acquire("u1", "c3", 2, replace=False), TAKEN, "the slot of who has it")

    async def test_a_released_slot_is_free(self) -> None:
        """It can be taken on any node; to release what is not held changes nothing."""
        async with self.cluster(2) as (a, b):
            await a.broker.acquire("u1", "c1", 1, replace=False)
            await b.broker.release("u1", "c2")
            await b.broker.release("u2", "c1")
            same(await b.broker.acquire("u1", "c2", 1, replace=False), FULL, "the only slot, which another has")
            await a.broker.release("u1", "c1")
            await a.broker.release("u1", "c1")
            same(await b.broker.acquire("u1", "c2", 1, replace=False), TAKEN, "the only slot, once it is released")

    async def test_slots_of_a_closed_node_are_free(self) -> None:
        """A node that is closed gives all its slots back."""
        async with self.cluster(2) as (a, b):
            await a.broker.acquire("u1", "c1", 1, replace=False)
            await a.broker.acquire("u2", "c2", 1, replace=False)
            await a.broker.aclose()
            for name in ("u1", "u2"):
                same(await b.broker.acquire(name, "c3", 1, replace=False), TAKEN, "the slot of a node that is closed")
