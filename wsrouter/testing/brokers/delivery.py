"""Who hears a publication, how often, in which order, and what of it."""

import asyncio
import logging
from threading import get_ident
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.testing.brokers.peer import Peer
from wsrouter.testing.brokers.setting import HISTORY, Setting, same

VARIED: Final = (
    Publication("room", "room", "said", b'{"text":"h\xc3\xa9 \xf0\x9f\x98\x80 \xe2\x80\xa8 \\u0000 \\"quoted\\""}'),
    Publication("room", "room", "größe €", b"null"),
    Publication("room", "room", "said", b'"' + b"x" * 65_536 + b'"'),
    Publication("room", "room", "price", b"1.0", key="€/$"),
    Publication("room", "room", "price", b"1.0", key=""),
    Publication("room", "room", "said", b"[]", exclude=frozenset({"c1", "c-2"})),
    Publication("room", "room", "said", b"{}", exclude_users=frozenset({"", "ü", "a,b", 'a"b'})),
)
"""One for every field that a message to a room has."""

FRAMES: Final = ("", "text é \U0001f600 \u2028 \x00 \r\n", b"", bytes(range(256)), b"\xff" * 65_536)

FORGED: Final = (
    b"",
    b"\x00\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b'{"target":"room"',
    b'{"v":1000000}',
    b'{"v":1,"target":"room","name":7,"type":[],"data":{}}',
    b"[" * 50_000,
    b"\x80\x04N.",  # a pickle
)
"""What is no publication of any version."""


class Delivery(Setting):
    """A publication comes at most once, in order, to who subscribed to its name, and to nobody else."""

    async def test_every_node_that_subscribed_hears_a_publication(self) -> None:
        """What is published to a room comes to all nodes that subscribed to it."""
        async with self.cluster(3) as (a, b, c):
            for peer in (b, c):
                await peer.subscribe("room")
            await a.publish("room", 1)
            for peer in (b, c):
                await peer.hears("room", [1])

    async def test_a_node_hears_its_own_publications(self) -> None:
        """The node that publishes gets it as others do, if it subscribed."""
        async with self.cluster(2) as (a, _):
            await a.subscribe("room")
            await a.publish("room", 1)
            await a.hears("room", [1])

    async def test_nothing_comes_twice(self) -> None:
        """A publication is delivered once to every node, the one that published it included."""
        async with self.cluster(2) as (a, b):
            for history in (None, HISTORY):
                room = "plain" if history is None else "kept"
                for peer in (a, b):
                    await peer.subscribe(room, history=history)
                for number in range(5):
                    await a.publish(room, number, history=history)
                await self.fence(a, b)
                for peer in (a, b):
                    same(peer.numbers(room), list(range(5)), f"what {peer} heard in the room {room!r}")

    async def test_the_order_of_a_publisher_is_kept(self) -> None:
        """What one node publishes to a name comes in that order, while others publish to it too."""
        async with self.cluster(3) as peers:
            for peer in peers:
                await peer.subscribe("room")
            await asyncio.gather(*(_publish_in_turn(peer, "room", peer.number * 1_000) for peer in peers[:2]))
            for peer in peers:
                heard = [int(each.data) for each in await peer.collect("room", 200)]
                for first in (1_000, 2_000):
                    own = [number for number in heard if number // 1_000 == first // 1_000]
                    same(own, list(range(first, first + 100)), f"what {peer} heard of one publisher")

    async def test_publications_that_overlap_keep_their_order(self) -> None:
        """Where a task publishes before the call of another has returned, the order is that of the calls."""
        async with self.cluster(2) as (a, b):
            for history in (None, HISTORY):
                room = "plain" if history is None else "kept"
                for peer in (a, b):
                    await peer.subscribe(room, history=history)
                await asyncio.gather(*(a.publish(room, number, history=history) for number in range(50)))
                for peer in (a, b):
                    await peer.hears(room, range(50))

    async def test_every_field_arrives_as_it_was(self) -> None:
        """Type, data, key and those who are excluded are carried faithfully, whatever is in them."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room")
            for publication in VARIED:
                await a.broker.publish(publication)
            for peer in (a, b):
                same(await peer.collect("room", len(VARIED)), list(VARIED), f"what {peer} heard")

    async def test_a_frame_arrives_as_it_was(self) -> None:
        """A text frame comes as `str`, a binary one as `bytes`, an empty one as an empty one."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room")
            for frame in FRAMES:
                await a.broker.publish(Publication("room", "room", frame=frame))
            for peer in (a, b):
                frames = [each.frame for each in await peer.collect("room", len(FRAMES))]
                same(frames, list(FRAMES), f"frames at {peer}")

    async def test_a_user_is_reached_on_every_node(self) -> None:
        """What is published to a user comes to all nodes that subscribed to that user, and to no others."""
        async with self.cluster(3) as (a, b, c):
            await a.subscribe("u1", "user")
            await b.subscribe("u1", "user")
            await c.subscribe("u2", "user")
            await a.publish("u1", 1, "user")
            await self.fence(a, b, c)
            for peer, expected in ((a, [1]), (b, [1]), (c, [])):
                same(peer.numbers("u1", "user"), expected, f"what {peer} heard of the user")

    async def test_rooms_and_users_are_apart(self) -> None:
        """A room and a user of one name are two, whichever is subscribed to."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("one")
            await b.subscribe("two", "user")
            await a.publish("one", 1, "user")
            await a.publish("two", 2)
            await a.publish("one", 3)
            await a.publish("two", 4, "user")
            await self.fence(a, b)
            heard = [(each.target, each.name, each.data) for each in b.delivered]
            same(heard, [("room", "one", b"3"), ("user", "two", b"4")], f"what {b} heard")

    async def test_other_names_are_not_heard(self) -> None:
        """A node gets nothing that is published to names that it did not subscribe to."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("mine")
            await a.subscribe("other")
            await a.publish("other", 1)
            await a.publish("nobody's", 2)
            await a.publish("other's", 3, "user")
            await a.publish("mine", 4)
            await self.fence(a, b)
            same([int(each.data) for each in b.delivered], [4], f"what {b} heard")
            same([int(each.data) for each in a.delivered], [1], f"what {a} heard")

    async def test_a_subscription_that_returned_misses_nothing(self) -> None:
        """As soon as `subscribe` has returned, what another node publishes comes."""
        async with self.cluster(2) as (a, b):
            for number in range(20):
                history = HISTORY if number % 2 else None
                await b.subscribe(f"room {number}", history=history)
                await a.publish(f"room {number}", number, history=history)
            for number in range(20):
                await b.hears(f"room {number}", [number])

    async def test_who_unsubscribed_hears_no_more(self) -> None:
        """What is published after `unsubscribe` has returned does not come, whatever else is subscribed to."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("left")
                await peer.subscribe("left", "user")
            for peer in (a, b):
                await peer.broker.unsubscribe("room", "left")
            await a.publish("left", 1)
            await a.publish("left", 2, "user")
            await self.fence(a, b)
            for peer in (a, b):
                same(peer.numbers("left"), [], f"what {peer} heard in the room that it left")
                same(peer.numbers("left", "user"), [2], f"what {peer} heard of the user")

    async def test_a_node_that_unsubscribes_leaves_the_others(self) -> None:
        """Others go on to hear the name, and so does the node itself when it has subscribed again."""
        async with self.cluster(3) as (a, b, c):
            await b.subscribe("room")
            await c.subscribe("room")
            await b.broker.unsubscribe("room", "room")
            await a.publish("room", 1)
            await c.hears("room", [1])
            await b.subscribe("room")
            await a.publish("room", 2)
            await c.hears("room", [1, 2])
            await b.hears("room", [2])

    async def test_a_subscription_that_is_cancelled_can_be_left(self) -> None:
        """Whenever `subscribe` is cancelled, after `unsubscribe` nothing comes, and the next `subscribe` is as good."""
        async with self.cluster(2) as (a, b):
            for turns in range(8):
                room = f"room {turns}"
                subscribing = asyncio.create_task(b.subscribe(room))
                for _ in range(turns):
                    await asyncio.sleep(0)
                subscribing.cancel()
                await asyncio.wait([subscribing])
                await b.broker.unsubscribe("room", room)
                await self.fence(a, b)
                await a.publish(room, 1)
                await self.fence(a, b)
                await b.subscribe(room)
                await a.publish(room, 2)
                await self.fence(a, b)
                same(b.numbers(room), [2], f"what {b} heard")

    async def test_the_receiver_is_told_on_the_event_loop(self) -> None:
        """Its methods are called in the thread of the event loop that started the broker."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room")
            for peer in (a, b):
                await peer.publish("room", 1)
            for peer in (a, b):
                await peer.hears("room", [1, 1])
                same(peer.threads, {get_ident()}, f"threads that called the receiver of {peer}")

    async def test_a_payload_of_unknown_shape_is_dropped(self) -> None:
        """Bytes that are no publication reach nobody, break nothing, and leave a line in the log."""
        lines = _Lines()
        logging.getLogger().addHandler(lines)
        try:
            async with self.cluster(2) as (a, b):
                await b.subscribe("room")
                for payload in FORGED:
                    await self.forge("room", "room", payload)
                await a.publish("room", 1)
                await b.hears("room", [1])
        finally:
            logging.getLogger().removeHandler(lines)
        assert lines.count > 0, "nothing was logged of payloads that were dropped"


async def _publish_in_turn(peer: Peer, room: str, first: int) -> None:
    for number in range(first, first + 100):
        await peer.publish(room, number)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
