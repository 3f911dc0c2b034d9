"""Faults of presence."""

from collections.abc import Sequence
from dataclasses import replace

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Change, Exchange, TinyBroker
from wsrouter.brokers import Entry

TAKEN_OVER = "test_a_dropped_entry_is_taken_over"
CLOSED = "test_a_node_that_is_closed_takes_its_entries_along"


@caught_by("test_an_announced_entry_is_known_everywhere", "node 2 waited .* for word of exactly the entries")
class NotTold(TinyBroker):
    """Entries are there for who asks, and nobody is told of them."""

    def tell_present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        return


@caught_by("test_an_announced_entry_is_known_everywhere", "entries on node 2")
class OwnEntries(TinyBroker):
    """A node finds its own entries only."""

    async def entries(self, room: str) -> Sequence[Entry]:
        return [entry for entry in await super().entries(room) if entry.node == self.node]


@caught_by("test_an_announced_entry_is_known_everywhere", "node 2 waited")
class NoMeta(Exchange):
    """What others see of a device is lost."""

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        return super().announce(node, room, [replace(entry, meta=b"{}") for entry in entries])


@caught_by("test_a_change_is_known_everywhere", r"node 2 waited .* for word of exactly the entries \['r1'\]")
class FirstStays(Exchange):
    """What is known already is not announced again."""

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        known = self.entries.get(room, {})
        return super().announce(node, room, [entry for entry in entries if entry.ref not in known])


@caught_by("test_a_change_is_known_everywhere", "entries, compared with refs")
class AddedAgain(TinyBroker):
    """What is announced again is there twice."""

    async def entries(self, room: str) -> Sequence[Entry]:
        return 2 * list(await super().entries(room))


@caught_by("test_a_withdrawn_entry_is_gone_everywhere", "node 2 waited")
class GoneIsNotTold(TinyBroker):
    """Others are not told who left."""

    def tell_present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        super().tell_present(room, changed, ())


@caught_by("test_a_withdrawn_entry_is_gone_everywhere", "entries on node 1")
class StaysForReaders(Exchange):
    """Others are told who left, and who asks finds them still."""

    def withdraw(self, node: str, room: str, refs: Sequence[str]) -> None:
        self.send(node, Change(room, (), tuple(refs)))


@caught_by("test_many_entries_are_known", "node 2 waited .* for word of 10000 entries")
class FirstThousand(Exchange):
    """What is more than a thousand in one call is not heard."""

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        return super().announce(node, room, entries[:1_000])


@caught_by("test_changes_come_in_order", "for word of the last change|in the order in which they came")
class Shuffled(Exchange):
    """Every second change is overtaken by the next."""

    def rewind(self) -> None:
        super().rewind()
        self.overtaken: list[Change] = []

    def send(self, sender: str, item: object) -> None:
        if isinstance(item, Change) and not self.overtaken:
            self.overtaken.append(item)
            return
        super().send(sender, item)
        while self.overtaken:
            super().send(sender, self.overtaken.pop())


@caught_by("test_entries_are_told_where_the_room_is_subscribed_to", "entries that node 1 was told of")
class OwnAreTold(TinyBroker):
    """A node is told of its own entries."""

    def read(self, sender: str, item: object) -> None:
        super().read("" if isinstance(item, Change) else sender, item)


@caught_by("test_entries_are_told_where_the_room_is_subscribed_to", "entries that node 2 was told of")
class ToldToAll(TinyBroker):
    """Every node is told of the entries of every room."""

    def read(self, sender: str, item: object) -> None:
        if isinstance(item, Change) and sender != self.node:
            self.tell_present(item.room, item.changed, item.gone)
        else:
            super().read(sender, item)


@caught_by("test_an_entry_of_another_node_is_not_withdrawn", r"entries: expected \{'r1'.* got \{\}")
@caught_by(TAKEN_OVER, "waited .* for word of exactly the entries|entries: expected .* got {}")
class AnybodyWithdraws(Exchange):
    """A node withdraws whatever ref it names."""

    def may_withdraw(self, node: str, entry: Entry) -> bool:
        return True


@caught_by("test_a_dropped_entry_is_withdrawn_by_anybody", "node 3 waited .* for word of exactly the entries")
class OwnerWithdraws(Exchange):
    """Only its node can take a dropped entry away."""

    def may_withdraw(self, node: str, entry: Entry) -> bool:
        return entry.node == node


@caught_by(TAKEN_OVER, r"refs that were not taken: expected \[\], got \['r1'\]")
class NeverTakenOver(Exchange):
    """An entry belongs to the node that was first, dropped or not."""

    def refuses(self, node: str, known: Entry | None) -> bool:
        return known is not None and known.node != node


@caught_by("test_the_ref_of_a_connected_device_is_refused", r"refs that were not taken: expected \['r1'\], got \[\]")
class AnybodyTakes(Exchange):
    """Who announces a ref has it."""

    def refuses(self, node: str, known: Entry | None) -> bool:
        return False


@caught_by("test_the_ref_of_a_connected_device_is_refused", "node 3 waited")
class AllOrNone(Exchange):
    """Where one ref is refused no entry is taken."""

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        known = self.entries.get(room, {})
        refused = [entry.ref for entry in entries if self.refuses(node, known.get(entry.ref))]
        return refused or super().announce(node, room, entries)


@caught_by("test_one_of_many_takes_a_dropped_entry_over", r"for each of two nodes: .* got \[\[\], \[\]\]")
class LooksThenTakes(TinyBroker):
    """It looks whether a ref is free, and takes it in another step."""

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        known = {entry.ref: entry for entry in await self.entries(room)}
        refused = [entry.ref for entry in entries if self.exchange.refuses(self.node, known.get(entry.ref))]
        await self.ask(lambda: self.exchange.entries.setdefault(room, {}).update({e.ref: e for e in entries}))
        return refused


@caught_by(CLOSED, "node 2 waited .* for word of exactly the entries")
class LeavesEntries(Exchange):
    """A node that is closed leaves its entries to those who miss it."""

    def leave(self, node: str) -> None:
        self.online.pop(node, None)


@caught_by(CLOSED, "node 2 waited .* for word of exactly the entries")
class TakesAll(Exchange):
    """A node that is closed takes those along that may come back elsewhere."""

    def leave(self, node: str) -> None:
        for room, known in self.entries.items():
            self.withdraw(node, room, [ref for ref, entry in known.items() if entry.node == node])
        super().leave(node)


@caught_by(CLOSED, "nodes that were not heard of: expected .*, got .*Departed")
class GoodbyeIsDeparture(Exchange):
    """A node that is closed is told as one that vanished, so that all its entries are void."""

    def leave(self, node: str) -> None:
        super().leave(node)
        for other in self.online.values():
            other.depart(node)
