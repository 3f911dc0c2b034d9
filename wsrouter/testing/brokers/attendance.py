"""Who is in a room, as nodes tell each other."""

import asyncio
from dataclasses import replace

from wsrouter.brokers.base import Entry
from wsrouter.testing.brokers.peer import Departed, Peer, Present
from wsrouter.testing.brokers.setting import Setting, same


class Attendance(Setting):
    """Entries of a room are known on all nodes, belong to one node each, and end with it."""

    async def test_an_announced_entry_is_known_everywhere(self) -> None:
        """Other nodes that subscribed are told of it, and any node finds it, with every field as it was."""
        async with self.cluster(3) as (a, b, c):
            await b.subscribe("room")
            entries = {
                "r1": Entry("r1", a.id, "u1", '{"name":"Zoë \U0001f600","quoted":"\\"\\u0000"}'.encode()),
                "r2": Entry("r2", a.id, ""),
                "r3": Entry("r3", a.id, "u1", b'{"x":"' + b"x" * 1_000 + b'"}', dropped=True),
            }
            same(list(await a.broker.announce("room", [*entries.values()])), [], "refs that were not taken")
            await b.sees("room", entries)
            for peer in (a, b, c):
                same(await _entries(peer), entries, f"entries on {peer}")

    async def test_a_change_is_known_everywhere(self) -> None:
        """An entry that is announced again takes the place of the one before."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            entry = Entry("r1", a.id, "u1")
            for changed in (entry, replace(entry, meta=b'{"typing":true}'), replace(entry, dropped=True)):
                same(list(await a.broker.announce("room", [changed])), [], "refs that were not taken")
                await b.sees("room", {"r1": changed})
                same(await _entries(b), {"r1": changed}, f"entries on {b}")

    async def test_a_withdrawn_entry_is_gone_everywhere(self) -> None:
        """Other nodes are told that it left, and none finds it; refs that nobody has are passed over."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            entries = {ref: Entry(ref, a.id, "u1") for ref in ("r1", "r2")}
            await a.broker.announce("room", [*entries.values()])
            await a.broker.withdraw("room", ["r1", "nobody's"])
            await b.sees("room", {"r2": entries["r2"]})
            for peer in (a, b):
                same(await _entries(peer), {"r2": entries["r2"]}, f"entries on {peer}")

    async def test_many_entries_are_known(self) -> None:
        """A node that announces all the devices of a large room at once, as after an outage, is understood."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            entries = {f"r{number}": Entry(f"r{number}", a.id, f"u{number}") for number in range(10_000)}
            same(list(await a.broker.announce("room", [*entries.values()])), [], "refs that were not taken")
            await b.until(lambda: len(b.roster("room")) == len(entries), f"word of {len(entries)} entries")
            same(len(await _entries(b)), len(entries), f"entries on {b}")
            await a.broker.withdraw("room", [*entries])
            await b.until(lambda: not b.roster("room"), f"word that {len(entries)} entries are gone")
            same(len(await _entries(b)), 0, f"entries on {b}")

    async def test_changes_come_in_order(self) -> None:
        """Of what is announced and withdrawn under one ref, what was last is what others end with."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            last = Entry("r1", a.id, "u1", b'{"n":99}')
            for number in range(100):
                await a.broker.announce("room", [replace(last, meta=b'{"n":%d}' % number)])
                if number % 3 == 0:
                    await a.broker.withdraw("room", ["r1"])
            await a.broker.announce("room", [last])
            await self.fence(a, b)
            await b.sees("room", {"r1": last})
            told = [entry.meta for each in b.heard if isinstance(each, Present) for entry in each.changed]
            same(told, sorted(told, key=lambda meta: int(meta[5:-1])), "changes, in the order in which they came")

    async def test_entries_are_told_where_the_room_is_subscribed_to(self) -> None:
        """A node is told neither of its own entries, nor of those in rooms that it did not subscribe to."""
        async with self.cluster(3) as (a, b, c):
            await a.subscribe("room")
            await b.subscribe("other room")
            await b.subscribe("room")
            await b.broker.unsubscribe("room", "room")
            await c.subscribe("room", "user")
            await a.broker.announce("room", [Entry("r1", a.id, "u1")])
            await a.broker.withdraw("room", ["r1"])
            await self.fence(a, b, c)
            for peer in (a, b, c):
                same([each for each in peer.heard if isinstance(each, Present)], [], f"entries that {peer} was told of")

    async def test_an_entry_of_another_node_is_not_withdrawn(self) -> None:
        """Nobody takes away the entry of a device that is connected elsewhere."""
        async with self.cluster(2) as (a, b):
            await a.subscribe("room")
            await b.subscribe("room")
            entry = Entry("r1", a.id, "u1")
            await a.broker.announce("room", [entry])
            await b.broker.withdraw("room", ["r1"])
            await self.fence(a, b)
            same(await _entries(a), {"r1": entry}, "entries")
            same(b.roster("room"), {"r1": entry}, f"what {b} was told")

    async def test_a_dropped_entry_is_withdrawn_by_anybody(self) -> None:
        """Whichever node finds first that the grace of an entry is over takes it away for all."""
        async with self.cluster(3) as (a, b, c):
            for peer in (a, c):
                await peer.subscribe("room")
            await a.broker.announce("room", [Entry("r1", a.id, "u1", dropped=True)])
            await c.until(lambda: "r1" in c.roster("room"), "word of the entry r1")
            await b.broker.withdraw("room", ["r1"])
            await c.sees("room", {})
            same(await _entries(a), {}, "entries")
            await a.until(
                lambda: any("r1" in each.gone for each in a.heard if isinstance(each, Present)), "word that r1 is gone"
            )

    async def test_a_dropped_entry_is_taken_over(self) -> None:
        """Another node announces its ref: the entry is that node's, and the node before can't withdraw it any more."""
        async with self.cluster(3) as (a, b, c):
            for peer in (a, c):
                await peer.subscribe("room")
            await a.broker.announce("room", [Entry("r1", a.id, "u1")])
            await a.broker.announce("room", [Entry("r1", a.id, "u1", dropped=True)])
            taken = Entry("r1", b.id, "u1", b'{"tab":2}')
            same(list(await b.broker.announce("room", [taken])), [], "refs that were not taken")
            await a.broker.withdraw("room", ["r1"])
            await self.fence(a, b, c)
            await a.sees("room", {"r1": taken})
            await c.sees("room", {"r1": taken})
            same(await _entries(c), {"r1": taken}, "entries")

    async def test_the_ref_of_a_connected_device_is_refused(self) -> None:
        """`announce` returns the refs that another node has a device under, and takes the others."""
        async with self.cluster(3) as (a, b, c):
            await c.subscribe("room")
            first, second = Entry("r1", a.id, "u1"), Entry("r2", b.id, "u1")
            await a.broker.announce("room", [first])
            refused = await b.broker.announce("room", [replace(first, node=b.id), second])
            same(list(refused), ["r1"], "refs that were not taken")
            await self.fence(a, b, c)
            await c.sees("room", {"r1": first, "r2": second})
            same(await _entries(c), {"r1": first, "r2": second}, "entries")

    async def test_one_of_many_takes_a_dropped_entry_over(self) -> None:
        """Where several nodes announce the ref at the same time, one has it, and all others are refused."""
        async with self.cluster(3) as (a, b, c):
            for number in range(10):
                ref = f"r{number}"
                await a.broker.announce("room", [Entry(ref, a.id, "u1", dropped=True)])
                refused = await asyncio.gather(
                    *(peer.broker.announce("room", [Entry(ref, peer.id, "u1")]) for peer in (b, c))
                )
                same(sorted(map(list, refused)), [[], [ref]], "refs that were not taken, for each of two nodes")
                holder = (b, c)[[list(refs) for refs in refused].index([])]
                same((await _entries(a))[ref].node, holder.id, "the node of the entry")

    async def test_a_node_that_is_closed_takes_its_entries_along(self) -> None:
        """They are gone for all; those that are dropped stay, so that another node can take them over."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            dropped = Entry("r2", a.id, "u2", dropped=True)
            await a.broker.announce("room", [Entry("r1", a.id, "u1"), dropped])
            await a.broker.aclose()
            await b.sees("room", {"r2": dropped})
            same(await _entries(b), {"r2": dropped}, "entries")
            taken = replace(dropped, node=b.id, dropped=False)
            same(list(await b.broker.announce("room", [taken])), [], "refs that were not taken")
            same(await _entries(b), {"r2": taken}, "entries")
            same([each for each in b.heard if isinstance(each, Departed)], [], "nodes that were not heard of")


async def _entries(peer: Peer) -> dict[str, Entry]:
    entries = await peer.broker.entries("room")
    known = {entry.ref: entry for entry in entries}
    same(len(entries), len(known), "entries, compared with refs")
    return known
