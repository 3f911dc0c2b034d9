"""What is said of publications that may have been lost."""

import asyncio
from itertools import pairwise
from typing import Final

from wsrouter.brokers.base import Target
from wsrouter.history import Position
from wsrouter.testing.brokers.peer import Lost, Peer
from wsrouter.testing.brokers.setting import HISTORY, Setting, same

BOTH: Final[tuple[Target, ...]] = ("room", "user")


class Holes(Setting):
    """Nothing is lost without a word, and the word stands where the hole is."""

    async def test_a_lost_link_is_told_for_every_name(self) -> None:
        """All rooms and users are named when they are subscribed to again; from then on nothing is missed."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("kept", history=HISTORY)
            for target in BOTH:
                await b.subscribe("quiet", target)
                await b.subscribe("busy", target)
                await a.publish("busy", 1, target)
                await b.hears("busy", [1], target)
            await self.cut(b.broker)
            for target in BOTH:
                await a.publish("busy", 2, target)
            await self.mend(b.broker)
            await _hears_of_hole(b, "kept", 2)
            for target in BOTH:
                await _hears_of_hole(b, "busy", 2, target)
                await a.publish("busy", 3, target)
                await a.publish("quiet", 3, target)
            for target in BOTH:
                await b.goes_on("busy", 3, target)
                await b.hears("quiet", [3], target)
                same(_silent_holes(b, "busy", target), [], f"holes that {b} was not told of")

    async def test_many_names_come_back(self) -> None:
        """However many names were subscribed to, all are told, and all are heard again."""
        rooms = [f"room {number}" for number in range(1_200)]
        async with self.cluster(2) as (a, b):
            await asyncio.gather(*(b.subscribe(room) for room in rooms))
            await self.cut(b.broker)
            await self.mend(b.broker)
            await b.until(lambda: set(rooms) <= _told(b), f"word of a hole in each of {len(rooms)} rooms")
            await asyncio.gather(*(a.publish(room, 1) for room in rooms))
            await b.until(lambda: len(b.delivered) >= len(rooms), "what is published to all rooms")
            same({each.name for each in b.delivered}, set(rooms), f"rooms in which {b} heard something")

    async def test_a_server_that_was_away_is_told_to_all(self) -> None:
        """When nobody had it, every node is told of the hole, and goes on."""
        async with self.cluster(3) as (a, b, c):
            for peer in (a, b, c):
                await peer.subscribe("room")
            await a.publish("room", 1)
            for peer in (a, b, c):
                await peer.hears("room", [1])
            for peer in (a, b, c):
                await self.cut(peer.broker)
            for number in (2, 3):
                await self.failure("publish", a.publish("room", number))
            for peer in (a, b, c):
                await self.mend(peer.broker)
            for peer in (a, b, c):
                await self.up(peer)
                await _is_told(peer, "room")
            await a.publish("room", 4)
            for peer in (b, c):
                await peer.goes_on("room", 4)
                same(_silent_holes(peer, "room"), [], f"holes that {peer} was not told of")
            same(a.numbers("room"), [1, 2, 3, 4], f"what {a} heard, which published it")

    async def test_a_hole_is_told_in_its_place(self) -> None:
        """It is told after the last publication before it and before the first after it, while others publish."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            async with self.publishing(a, "room") as published:
                for _ in range(3):
                    await self._lose_link(b, published)
            same(_silent_holes(b, "room"), [], f"holes that {b} was not told of where they were")
            same(b.numbers("room"), sorted(set(b.numbers("room"))), f"what {b} heard")

    async def test_what_a_lost_link_cost_is_recovered(self) -> None:
        """In a room with history all that did not come while the link was lost is there to be recovered."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room", history=HISTORY)
            epoch = (await b.broker.recover("room", HISTORY, None)).epoch
            for number in (1, 2):
                await a.publish("room", number, history=HISTORY)
            await b.hears("room", [1, 2])
            await self.cut(b.broker)
            for number in (3, 4):
                await a.publish("room", number, history=HISTORY)
            await self.mend(b.broker)
            await _hears_of_hole(b, "room", 4)
            await a.publish("room", 5, history=HISTORY)
            await b.goes_on("room", 5)
            await self.up(b)
            recovery = await b.broker.recover("room", HISTORY, Position(epoch, 2))
            recovered = [int(each.data) for each in recovery.publications] if recovery.recovered else None
            same(recovered, [3, 4, 5], "what is recovered from before the hole")
            places = {(each.epoch, each.offset): int(each.data) for each in b.publications("room")}
            same(places.get((epoch, 5)), 5, "the publication at the place after the hole")

    async def test_a_publication_that_failed_is_told_to_others(self) -> None:
        """Where `publish` raised, others are told of the hole as soon as the publisher can be heard again."""
        async with self.cluster(2) as (a, b):
            for target in BOTH:
                await b.subscribe("name", target)
                await a.publish("name", 1, target)
                await b.hears("name", [1], target)
            await self.cut(a.broker)
            for target in BOTH:
                await self.failure("publish", a.publish("name", 2, target))
            await self.mend(a.broker)
            for target in BOTH:
                await _hears_of_hole(b, "name", 2, target)
            await self.up(a)
            for target in BOTH:
                await a.publish("name", 3, target)
                await b.goes_on("name", 3, target)
                same(_silent_holes(b, "name", target), [], f"holes that {b} was not told of")

    async def test_a_publication_that_failed_was_delivered_here(self) -> None:
        """Without history the node's own subscribers have it when `publish` raises, and never get it again."""
        async with self.cluster(2) as (a, b):
            for target in BOTH:
                await a.subscribe("name", target)
            await self.cut(a.broker)
            for number in (1, 2):
                for target in BOTH:
                    await self.failure("publish", a.publish("name", number, target))
                    same(a.numbers("name", target)[-1:], [number], f"what {a} has when publish() raised")
                await self.down(a)
            await self.mend(a.broker)
            await self.up(a)
            await self.fence(a, b)
            for target in BOTH:
                same(a.numbers("name", target), [1, 2], f"what {a} heard in all")

    async def test_a_name_that_was_left_meanwhile_is_not_heard_again(self) -> None:
        """What was unsubscribed while the server was away is not subscribed to when it is back."""
        async with self.cluster(2) as (a, b):
            for name in ("left", "stayed"):
                await b.subscribe(name)
            await self.cut(b.broker)
            await self.down(b)
            async with self.in_time("unsubscribe"):
                await b.broker.unsubscribe("room", "left")
            await self.mend(b.broker)
            await _is_told(b, "stayed")
            await self.up(b)
            for name in ("left", "stayed"):
                await a.publish(name, 1)
            await b.hears("stayed", [1])
            await self.fence(a, b)
            same(b.numbers("left"), [], f"what {b} heard in the room that it left")

    async def _lose_link(self, peer: Peer, published: list[int]) -> None:
        """Cut a link while others publish, and wait until it is heard from again."""
        await peer.collect("room", len(peer.publications("room")) + 3)
        await self.cut(peer.broker)
        before = len(published)
        await peer.until(lambda: len(published) >= before + 3, "others to publish")
        await self.mend(peer.broker)
        last = len(published) + 1
        await peer.until(lambda: peer.numbers("room")[-1] > last, "what is published now")


def _told(peer: Peer) -> set[str]:
    """Return the names whose holes were told."""
    return {name for each in peer.heard if isinstance(each, Lost) for _, name in each.names}


async def _is_told(peer: Peer, room: str) -> None:
    """Wait until a hole is told."""
    await peer.until(lambda: None in peer.story(room), f"word that publications to room {room!r} may be lost")


async def _hears_of_hole(peer: Peer, name: str, number: int, target: Target = "room") -> None:
    """Wait until a hole is told, or the number came after all."""
    await peer.until(
        lambda: {None, number} & set(peer.story(name, target)),
        f"word that publications to {target} {name!r} may be lost",
    )


def _silent_holes(peer: Peer, name: str, target: Target = "room") -> list[tuple[int, int]]:
    """Return the numbers before and after each hole that was not told in its place."""
    return [
        (before, after)
        for before, after in pairwise(peer.story(name, target))
        if before is not None and after is not None and after > before + 1
    ]
