"""Rooms with history: one order for all nodes, and what can be recovered of it."""

import asyncio
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.history import MAX_RECOVERED, NOWHERE, History, Position, Recovery
from wsrouter.testing.brokers.delivery import VARIED
from wsrouter.testing.brokers.peer import Peer, numbered
from wsrouter.testing.brokers.setting import HISTORY, Setting, same

SHORT: Final = History(size=100, ttl=1.0)


class Streams(Setting):
    """A room with history has a stream, from which all that was missed is recovered, or nothing."""

    async def test_offsets_rise_by_one(self) -> None:
        """The first publication of a room has offset 1, each next one more, in an epoch that is safe in URLs."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room", history=HISTORY)
            for number in range(1, 6):
                await (a, b)[number % 2].publish("room", number, history=HISTORY)
            heard = await b.collect("room", 5)
            same([each.offset for each in heard], [1, 2, 3, 4, 5], "offsets")
            position = Position(heard[0].epoch or "", 1)
            same({each.epoch for each in heard}, {position.epoch}, "epochs")
            same(Position.parse(str(position)), position, "the position as a client gets it back")

    async def test_a_room_has_one_order_for_all_nodes(self) -> None:
        """What several nodes publish at the same time has different offsets, and comes in that order everywhere."""
        async with self.cluster(3) as peers:
            for peer in peers:
                await peer.subscribe("room", history=HISTORY)
            await asyncio.gather(*(_publish_in_turn(peer) for peer in peers))
            first = await peers[0].collect("room", 60)
            same([each.offset for each in first], list(range(1, 61)), "offsets")
            for peer in peers[1:]:
                same(await peer.collect("room", 60), first, f"what {peer} heard, compared with {peers[0]}")

    async def test_a_publication_was_delivered_here_when_publish_returns(self) -> None:
        """The node that publishes to a room with history, and has subscribed, has it by then."""
        async with self.cluster(2) as (a, _):
            await a.subscribe("room", history=HISTORY)
            for number in range(1, 11):
                await a.publish("room", number, history=HISTORY)
                same(a.numbers("room")[-1:], [number], "what was delivered last when publish() returned")

    async def test_all_that_was_missed_is_recovered_on_another_node(self) -> None:
        """Every publication after the position comes back, in order and with every field as it was."""
        async with self.cluster(2) as (a, b):
            await a.subscribe("room", history=HISTORY)
            for publication in VARIED:
                await a.broker.publish(publication, HISTORY)
            await b.subscribe("room", history=HISTORY)
            epoch = a.delivered[0].epoch or ""
            recovery = await b.broker.recover("room", HISTORY, Position(epoch, 2))
            expected = tuple(
                publication.at(Position(epoch, offset)) for offset, publication in enumerate(VARIED, 1) if offset > 2
            )
            same(recovery, Recovery(epoch, 2, True, expected), "what is recovered from offset 2")

    async def test_what_is_acknowledged_is_kept(self) -> None:
        """When `publish` has returned, any node recovers the publication at once."""
        async with self.cluster(2) as (a, b):
            start = await _enter(b)
            for number in range(1, 6):
                await a.publish("room", number, history=HISTORY)
                recovery = await b.broker.recover("room", HISTORY, start)
                same(_numbers(recovery), list(range(1, number + 1)), "what is recovered")

    async def test_who_missed_nothing_recovers_nothing(self) -> None:
        """Who stands at the end of the stream has recovered, with no publications, in an empty stream too."""
        async with self.cluster(2) as (a, b):
            start = await _enter(b)
            for offset in (0, 1, 2):
                end = Position(start.epoch, offset)
                same(await b.broker.recover("room", HISTORY, end), Recovery(end.epoch, offset, True), f"from {end}")
                await a.publish("room", 0, history=HISTORY)

    async def test_who_has_no_position_is_told_the_end(self) -> None:
        """From `None`, and from a position that is none, nothing is recovered, and the offset is the stream's end."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room", history=HISTORY)
            for number in range(3):
                await a.publish("room", number, history=HISTORY)
            for since in (None, NOWHERE):
                recovery = await b.broker.recover("room", HISTORY, since)
                same(recovery, Recovery(recovery.epoch, 3, False), f"what is recovered from {since!r}")

    async def test_a_part_is_never_recovered(self) -> None:
        """Who missed more than the room keeps gets nothing at all; who missed as much as it keeps gets everything."""
        history = History(size=3, ttl=60.0)
        async with self.cluster(2) as (a, b):
            epoch = (await _enter(b, history)).epoch
            for number in range(1, 6):
                await a.publish("room", number, history=history)
            same(_numbers(await b.broker.recover("room", history, Position(epoch, 2))), [3, 4, 5], "from offset 2")
            for offset in (1, 0):
                recovery = await b.broker.recover("room", history, Position(epoch, offset))
                same(recovery, Recovery(epoch, 5, False), f"what is recovered from offset {offset}")

    async def test_at_most_300_are_recovered(self) -> None:
        """Who missed more gets nothing, however much the room keeps."""
        history = History(size=1_000, ttl=60.0)
        async with self.cluster(2) as (a, b):
            epoch = (await _enter(b, history)).epoch
            await asyncio.gather(*(a.publish("room", number, history=history) for number in range(MAX_RECOVERED + 1)))
            recovery = await b.broker.recover("room", history, Position(epoch, 1))
            same(len(_numbers(recovery) or []), MAX_RECOVERED, "publications that are recovered from offset 1")
            recovery = await b.broker.recover("room", history, Position(epoch, 0))
            same(recovery, Recovery(epoch, MAX_RECOVERED + 1, False), "what is recovered from offset 0")

    async def test_what_is_too_old_is_not_recovered(self) -> None:
        """A publication is kept for the `ttl`; who missed one that is older gets nothing, not even the newer ones."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room", history=SHORT)
            await a.publish("room", 1, history=SHORT)
            await asyncio.sleep(SHORT.ttl * 1.2)
            await a.publish("room", 2, history=SHORT)
            epoch = (await b.collect("room", 2))[1].epoch or ""
            recovery = await b.broker.recover("room", SHORT, Position(epoch, 1))
            same(_numbers(recovery), [2], "what is recovered by who missed the newer one")
            recovery = await b.broker.recover("room", SHORT, Position(epoch, 0))
            same(recovery, Recovery(epoch, 2, False), "what is recovered by who missed both")

    async def test_a_position_in_the_future_is_not_recovered(self) -> None:
        """Who stands behind the end of the stream is not told that nothing was missed."""
        async with self.cluster(2) as (a, b):
            epoch = (await _enter(b)).epoch
            await a.publish("room", 1, history=HISTORY)
            for offset in (2, 10**15):
                recovery = await b.broker.recover("room", HISTORY, Position(epoch, offset))
                same(recovery, Recovery(epoch, 1, False), f"what is recovered from offset {offset}")

    async def test_a_position_of_another_epoch_is_not_recovered(self) -> None:
        """Offsets of another stream mean nothing here."""
        async with self.cluster(2) as (a, b):
            epoch = (await _enter(b)).epoch
            await a.publish("room", 1, history=HISTORY)
            for other in ("another", epoch + "0", epoch[:-1]):
                for offset in (0, 1):
                    recovery = await b.broker.recover("room", HISTORY, Position(other, offset))
                    same(recovery, Recovery(epoch, 1, False), f"what is recovered from {other}:{offset}")

    async def test_a_stream_stays_while_a_node_is_subscribed(self) -> None:
        """However long nobody publishes, epoch and offset go on where they were."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room", history=SHORT)
            await a.publish("room", 1, history=SHORT)
            await asyncio.sleep(SHORT.ttl * 3)
            await a.publish("room", 2, history=SHORT)
            first, second = await b.collect("room", 2)
            same((second.epoch, second.offset), (first.epoch, 2), "epoch and offset of the second publication")

    async def test_a_stream_stays_after_the_last_member_left(self) -> None:
        """Who comes back within the `ttl` recovers what was missed, though no node was subscribed meanwhile."""
        async with self.cluster(2) as (a, b):
            await a.subscribe("room", history=HISTORY)
            await a.publish("room", 1, history=HISTORY)
            epoch = a.delivered[0].epoch or ""
            await a.broker.unsubscribe("room", "room")
            await b.publish("room", 2, history=HISTORY)
            await b.subscribe("room", history=HISTORY)
            recovery = await b.broker.recover("room", HISTORY, Position(epoch, 1))
            same(_numbers(recovery), [2], "what is recovered by who comes back")

    async def test_nothing_is_missed_between_recovered_and_live(self) -> None:
        """What `recover` returns and what is delivered after `subscribe` returned are together the whole stream."""
        async with self.cluster(2) as (a, b):
            history = History(size=1_000, ttl=60.0)
            start = await _enter(b, history)
            await b.broker.unsubscribe("room", "room")
            async with self.publishing(a, "room", history) as published:
                for _ in range(10):
                    since, heard = len(published), len(b.publications("room"))
                    await b.subscribe("room", history=history)
                    recovery = await b.broker.recover("room", history, Position(start.epoch, since))
                    assert recovery.recovered, f"{since}, of {recovery.offset}, is not recovered"
                    await _reaches(b, recovery.end + 3)
                    live = [each.offset or 0 for each in b.publications("room")[heard:]]
                    later = [offset for offset in live if offset > recovery.end]
                    same(
                        later,
                        list(range(recovery.end + 1, recovery.end + 1 + len(later))),
                        "offsets after those recovered",
                    )
                    await b.broker.unsubscribe("room", "room")

    async def test_a_room_without_history_has_no_offsets(self) -> None:
        """Epoch and offset are `None` there."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            await a.publish("room", 1)
            same(await b.collect("room", 1), [numbered("room", 1)], f"what {b} heard")

    async def test_a_server_that_lost_its_memory_begins_another_epoch(self) -> None:
        """When what was kept is lost, or an older state is back, no offset of before passes for one of now."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room", history=HISTORY)
            for number in (1, 2, 3):
                await a.publish("room", number, history=HISTORY)
            before = (await b.collect("room", 3))[-1]
            await self.rewind()
            await self._publish_until_heard(a, b)
            await self.up(b)
            after = b.delivered[-1]
            assert after.epoch != before.epoch, f"the epoch is still {after.epoch}, though publications were lost"
            for offset in range(4):
                recovery = await b.broker.recover("room", HISTORY, Position(before.epoch or "", offset))
                assert not recovery.recovered, f"offset {offset} of the stream before is recovered"

    async def _publish_until_heard(self, a: Peer, b: Peer) -> None:
        """Publish again and again: what comes before the other has subscribed again is lost."""
        loop = asyncio.get_running_loop()
        heard, end = len(b.delivered), loop.time() + self.notice + self.timeout
        while len(b.delivered) == heard:
            assert loop.time() < end, f"{b} hears nothing any more. {b.tale()}"
            await self.publish_at_last(a, "room", 4)
            await asyncio.sleep(0.02)


async def _publish_in_turn(peer: Peer) -> None:
    for number in range(20):
        await peer.publish("room", peer.number * 1_000 + number, history=HISTORY)


async def _enter(peer: Peer, history: History = HISTORY) -> Position:
    """Subscribe to the room, and return the end of its stream."""
    await peer.subscribe("room", history=history)
    recovery = await peer.broker.recover("room", history, None)
    return Position(recovery.epoch, recovery.offset)


def _numbers(recovery: Recovery[Publication]) -> list[int] | None:
    return [int(each.data) for each in recovery.publications] if recovery.recovered else None


async def _reaches(peer: Peer, offset: int) -> None:
    await peer.until(
        lambda: any((each.offset or 0) >= offset for each in peer.publications("room")), f"the offset {offset}"
    )
