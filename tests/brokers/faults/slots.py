"""Faults of slots."""

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Exchange, TinyBroker
from wsrouter import BrokerError
from wsrouter.brokers import Slot

OLDEST = "test_the_oldest_holder_is_replaced"


@caught_by("test_no_more_slots_are_given_than_there_are", "a third of two slots: .* got .*held=True")
class SlotsOfANode(TinyBroker):
    """Every node counts for itself."""

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        return await super().acquire(f"{self.node} {name}", holder, most, replace=replace)


@caught_by("test_no_more_slots_are_given_than_there_are", "the second of two slots: .* got .*held=False")
class OneTooFewSlots(TinyBroker):
    """One slot less is given than there are."""

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        return await super().acquire(name, holder, most - 1, replace=replace)


@caught_by("test_slots_are_taken_one_at_a_time", "slots that were given of three: expected 3, got 20")
class CountsThenTakes(TinyBroker):
    """It counts, and takes a slot in another step."""

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        count = await self.ask(lambda: len(self.exchange.slots.get(name, {})))
        return await super().acquire(name, holder, most if count >= most else 1_000, replace=replace)


@caught_by("test_a_holder_keeps_its_slot", "the slot of who has it: .* got .*replaced=")
class AnotherSlot(TinyBroker):
    """Who has a slot and asks again gets another one."""

    asked = 0

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        self.asked += 1
        return await super().acquire(name, f"{holder} {self.asked}", most, replace=replace)


@caught_by(OLDEST, "the slot of the third: .*'c1'.* got .*'c2'")
class ReplacesYoungest(Exchange):
    """The holder who came last has to go."""

    def outgoing(self, holders: list[str]) -> str:
        return holders[-1]


@caught_by(OLDEST, "the slot of the third: .*'c1'.* got .*'c2'")
class Rejuvenated(Exchange):
    """Who asks again counts as the youngest."""

    def acquire(self, node: str, name: str, holder: str, most: int, replace: bool) -> Slot:
        holders = self.slots.setdefault(name, {})
        if holder in holders:
            holders[holder] = holders.pop(holder)
        return super().acquire(node, name, holder, most, replace)


@caught_by(OLDEST, "the slot of the third: .*'c1'.* got .*held=False")
class NeverReplaces(TinyBroker):
    """Who comes too late is turned away."""

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        return await super().acquire(name, holder, most, replace=False)


@caught_by("test_a_released_slot_is_free", "the only slot, once it is released")
class NeverReleased(Exchange):
    """A slot is not given back."""

    def release(self, node: str, name: str, holder: str) -> None:
        return


@caught_by("test_a_released_slot_is_free", "the only slot, which another has: .* got .*held=True")
class ReleasesAny(Exchange):
    """To release is to give back one of the slots, whoever has it."""

    def release(self, node: str, name: str, holder: str) -> None:
        self.slots.get(name, {}).clear()


@caught_by("test_slots_of_a_closed_node_are_free", "the slot of a node that is closed")
class KeepsSlots(Exchange):
    """A node that is closed keeps its slots."""

    def leave(self, node: str) -> None:
        slots = {name: dict(holders) for name, holders in self.slots.items()}
        super().leave(node)
        self.slots = slots


@caught_by("test_a_slot_that_was_not_given_is_free", "the slot is held for ever")
@caught_by("test_a_slot_that_is_released_meanwhile_becomes_free", "the slot is held for ever")
class Leaks(TinyBroker):
    """What could not be given back at once is never given back."""

    def owe(self, name: str, holder: str) -> None:
        return


@caught_by("test_a_slot_that_was_not_given_is_free", r"acquire\(\) did not raise")
class Hopeful(TinyBroker):
    """Where nobody knows, it takes it that there was a slot."""

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        try:
            return await super().acquire(name, holder, most, replace=replace)
        except BrokerError:
            return Slot(True)


@caught_by("test_a_slot_that_is_released_meanwhile_becomes_free", r"release\(\) did not end within its deadline")
class WaitsToRelease(TinyBroker):
    """`release` waits for the server to be back."""

    async def release(self, name: str, holder: str) -> None:
        await self.until_up()
        await super().release(name, holder)
