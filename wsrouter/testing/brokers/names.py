"""Names that try to be more than a name, or another one."""

from typing import Final

from wsrouter.brokers.base import Entry
from wsrouter.history import Position
from wsrouter.testing.brokers.peer import Peer, numbered
from wsrouter.testing.brokers.setting import HISTORY, Setting, same

PLAIN: Final = ("room", "rooms", "room.1", "room/1", "room:1")
"""Names that a pattern below would match."""

WILD: Final = (
    *("*", "**", "?", ">", "#", "+", "%", "_", "room*", "room?", "room.*", "room.>", "room/#", "room/+", "room%"),
    *("[r]oom", "roo[a-z]", "^room$", ".*", "room|rooms", "{room,rooms}", "\\*"),
)
"""Names that are a pattern somewhere: in Redis, NATS, MQTT, SQL, a shell, a regular expression."""

ALIKE: Final = (
    ("", " "),
    ("a", "A"),
    ("a ", " a"),
    ("a\t", "a\n"),
    ("a\r\n", "a\x00"),
    ("a\x00b", "a\x00c"),
    ("\u00e9", "e\u0301"),
    ("\u00df", "ss"),
    ("1", "01"),
    ("a/b", "a%2Fb"),
    ("a/../b", "b"),
    ("{a}1", "{a}2"),
    ("room:a", "user:a"),
    ("a\r\nPUBLISH b c", "a\r\nUNSUB b"),
    ("a' OR '1'='1", 'a"; --'),
    ("\U0001f600", "\U0001f601"),
    ("x" * 5_000, "x" * 4_999 + "y"),
    ("ü" * 5_000, "ü" * 4_999 + "u"),
)
"""Pairs that are one name to who cuts off, folds, trims, decodes or parses."""

ALL: Final = (*PLAIN, *WILD, *(name for pair in ALIKE for name in pair))


class Names(Setting):
    """A name is text, of any length and with anything in it, and stands for itself alone."""

    async def test_a_pattern_is_only_a_name(self) -> None:
        """Who subscribes to ``*`` gets what is published to ``*``, and nothing that is published to other names."""
        async with self.cluster(2) as (a, b):
            await _subscribe_to(a, PLAIN)
            await _subscribe_to(b, WILD)
            for number, name in enumerate((*PLAIN, *WILD)):
                await a.publish(name, number)
            await self.fence(a, b)
            _heard_exactly(a, PLAIN, (*PLAIN, *WILD))
            _heard_exactly(b, WILD, (*PLAIN, *WILD))

    async def test_names_that_look_alike_are_different(self) -> None:
        """Names that differ in one character, in case, in white space or at their end reach different subscribers."""
        async with self.cluster(2) as (a, b):
            left, right = (tuple(pair[side] for pair in ALIKE) for side in (0, 1))
            await _subscribe_to(a, left)
            await _subscribe_to(b, right)
            for number, name in enumerate((*left, *right)):
                await a.publish(name, number)
            await self.fence(a, b)
            _heard_exactly(a, left, (*left, *right))
            _heard_exactly(b, right, (*left, *right))

    async def test_each_name_has_a_history_of_its_own(self) -> None:
        """No name leads to the publications of another room."""
        async with self.cluster(2) as (a, b):
            for number, name in enumerate(ALL):
                await a.publish(name, number, history=HISTORY)
            for number, name in enumerate(ALL):
                await b.subscribe(name, history=HISTORY)
                start = await b.broker.recover(name, HISTORY, None)
                same(start.offset, 1, f"publications in the room {name[:40]!r}")
                recovery = await b.broker.recover(name, HISTORY, Position(start.epoch, 0))
                expected = numbered(name, number).at(Position(start.epoch, 1))
                same(recovery.publications, (expected,), f"what is recovered in the room {name[:40]!r}")

    async def test_each_name_has_entries_of_its_own(self) -> None:
        """No name leads to the entries of another room."""
        async with self.cluster(2) as (a, b):
            entries = {name: Entry(f"ref-{number}", a.id, "u") for number, name in enumerate(ALL)}
            for name, entry in entries.items():
                await a.broker.announce(name, [entry])
            for name, entry in entries.items():
                same(list(await b.broker.entries(name)), [entry], f"entries of the room {name[:40]!r}")

    async def test_each_name_has_slots_of_its_own(self) -> None:
        """The only slot of one name is taken while those of all others are free."""
        async with self.cluster(2) as (a, b):
            for number, name in enumerate(ALL):
                slot = await a.broker.acquire(name, f"c{number}", 1, replace=False)
                assert slot.held, f"the slot of {name[:40]!r} was taken by another name"
            for name in ALL:
                slot = await b.broker.acquire(name, "too late", 1, replace=False)
                assert not slot.held, f"the slot of {name[:40]!r} was given twice"


async def _subscribe_to(peer: Peer, names: tuple[str, ...]) -> None:
    for name in names:
        await peer.subscribe(name)


def _heard_exactly(peer: Peer, names: tuple[str, ...], published: tuple[str, ...]) -> None:
    expected = sorted((name, str(published.index(name)).encode()) for name in names)
    heard = sorted((each.name, each.data) for each in peer.delivered)
    for name, data in heard:
        assert (name, data) in expected, f"{peer} heard number {data.decode()} at {name[:40]!r}, which is not for it"
    for name, data in expected:
        count = heard.count((name, data))
        assert count == 1, f"{peer} heard what was published to {name[:40]!r} {count} times"
