"""The bounded queue of one connection: what is delivered, what is dropped, and what says so. Pure."""

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsrouter.outbox import Gap, Offered, Outbox, Overflow

POLICIES: list[Overflow] = ["disconnect", "drop_new", "drop_old", "latest"]


def filled(max_frames: int = 3, max_bytes: int = 1000) -> Outbox[str]:
    """Return an outbox that is small, and empty."""
    return Outbox(max_bytes, max_frames)


def emptied(outbox: Outbox[str]) -> list[str | tuple[str, int | None]]:
    """Take out everything; a gap as its room and its count."""
    out: list[str | tuple[str, int | None]] = []
    while outbox:
        item = outbox.pop()
        out.append((item.room, item.dropped) if isinstance(item, Gap) else item)
    return out


def test_replies_go_above_the_bound() -> None:
    """What the connection itself sends always enters, in order, and shows that it is full."""
    outbox = filled(2)
    for number in range(5):
        assert outbox.full is (number >= 2)
        outbox.push(str(number), 10)
    assert (len(outbox), outbox.bytes) == (5, 50)
    assert emptied(outbox) == ["0", "1", "2", "3", "4"]
    assert (len(outbox), outbox.bytes, outbox.full) == (0, 0, False)


@pytest.mark.parametrize(("max_bytes", "max_frames"), [(30, 100), (1000, 3)])
def test_it_is_full_at_either_bound(max_bytes: int, max_frames: int) -> None:
    """So many bytes fill it, or so many frames; the last one to enter may go beyond."""
    outbox: Outbox[str] = Outbox(max_bytes, max_frames)
    for number in range(3):
        assert not outbox.full
        assert outbox.offer(str(number), 10, "a", "disconnect")
    assert outbox.full
    outbox.pop()
    assert outbox.offer("large", 10_000, "a", "disconnect")
    assert not outbox.offer("more", 1, "a", "disconnect")


def test_disconnect_changes_nothing() -> None:
    """A publication that is refused leaves the outbox as it was."""
    outbox = filled(2)
    assert outbox.offer("1", 1, "a", "disconnect") == Offered()
    assert outbox.offer("2", 1, "a", "disconnect") == Offered()
    refused = outbox.offer("3", 1, "a", "disconnect")
    assert not refused
    assert (refused.dropped, refused.superseded) == (0, 0)
    assert (len(outbox), outbox.bytes) == (2, 2)
    assert emptied(outbox) == ["1", "2"]


def test_drop_new_leaves_a_gap_behind() -> None:
    """What does not fit is dropped, and one gap counts it where it would have stood."""
    outbox = filled(2)
    for number in range(5):
        offered = outbox.offer(str(number), 1, "a", "drop_new")
        assert offered
        assert offered.dropped == (number >= 2)
    assert outbox.pop() == "0"
    outbox.offer("5", 1, "a", "drop_new")
    assert emptied(outbox) == ["1", ("a", 3), "5"]


def test_drop_old_leaves_a_gap_in_front() -> None:
    """What has waited longest is dropped, and one gap counts it where it stood."""
    outbox = filled(2)
    for number in range(5):
        assert outbox.offer(str(number), 1, "a", "drop_old").dropped == (number >= 2)
    assert emptied(outbox) == [("a", 3), "3", "4"]


def test_drop_old_makes_room_in_bytes() -> None:
    """As many are dropped as it takes."""
    outbox = filled(100, 10)
    for number in range(5):
        outbox.offer(str(number), 2, "a", "drop_old")
    assert outbox.full
    assert outbox.offer("large", 50, "a", "drop_old") == Offered(dropped=1)
    assert outbox.offer("6", 1, "a", "drop_old") == Offered(dropped=5)
    assert emptied(outbox) == [("a", 6), "6"]


def test_latest_keeps_what_is_newest() -> None:
    """What has the same key is replaced, goes to the end, and is no gap."""
    outbox = filled(10)
    outbox.offer("x1", 5, "a", "latest", "x")
    outbox.offer("y1", 5, "a", "latest", "y")
    assert outbox.offer("x2", 7, "a", "latest", "x") == Offered(superseded=1)
    assert outbox.bytes == 12
    assert outbox.offer("x3", 7, "b", "latest", "x") == Offered()
    assert emptied(outbox) == ["y1", "x2", "x3"]
    assert outbox.offer("x4", 7, "a", "latest", "x") == Offered()


def test_latest_without_a_key_supersedes_nothing() -> None:
    """Such messages are dropped as `drop_old` drops, with a gap."""
    outbox = filled(2)
    for number in range(3):
        outbox.offer(str(number), 1, "a", "latest")
    assert emptied(outbox) == [("a", 1), "1", "2"]


def test_latest_drops_where_there_is_no_room() -> None:
    """More keys than fit: the oldest goes, and a gap says so; its key is free again."""
    outbox = filled(2)
    for key in "xyz":
        outbox.offer(f"{key}1", 1, "a", "latest", key)
    assert outbox.offer("x2", 1, "a", "latest", "x") == Offered(dropped=1)
    assert emptied(outbox) == [("a", 2), "z1", "x2"]


def test_a_value_that_supersedes_needs_no_room() -> None:
    """In a full outbox the newest value takes the place of the one before, and nothing is dropped."""
    outbox = filled(2)
    outbox.offer("x1", 1, "a", "latest", "x")
    outbox.offer("y1", 1, "a", "latest", "y")
    assert outbox.offer("x2", 1, "a", "latest", "x") == Offered(superseded=1)
    assert emptied(outbox) == ["y1", "x2"]


@pytest.mark.parametrize("policy", ["drop_new", "drop_old", "latest"])
def test_a_room_pays_for_itself_only(policy: Overflow) -> None:
    """Frames of others are never dropped: if they fill the outbox, the new one is, and the gap stands at the end."""
    outbox = filled(3)
    outbox.push("reply", 1)
    outbox.offer("other", 1, "b", "drop_old")
    outbox.offer("user", 1, "", "disconnect")
    for number in range(3):
        assert outbox.offer(str(number), 1, "a", policy, "x").dropped == 1
    outbox.push("another", 1)
    assert emptied(outbox) == ["reply", "other", "user", ("a", 3), "another"]


def test_gaps_of_several_rooms() -> None:
    """Each room has a gap of its own, where its own frames stood."""
    outbox = filled(4)
    for number in range(2):
        outbox.offer(f"a{number}", 1, "a", "drop_old")
        outbox.offer(f"b{number}", 1, "b", "drop_old")
    outbox.offer("a2", 1, "a", "drop_old")
    outbox.offer("b2", 1, "b", "drop_old")
    assert emptied(outbox) == [("a", 1), ("b", 1), "a1", "b1", "a2", "b2"]


def test_clear_forgets_keys_and_gaps() -> None:
    """An outbox that was cleared is as good as new."""
    outbox = filled(2)
    for number in range(4):
        outbox.offer(str(number), 1, "a", "latest", "x" if number else "y")
        outbox.offer(str(number), 1, "b", "drop_new")
    outbox.clear()
    assert (len(outbox), outbox.bytes, outbox.full) == (0, 0, False)
    assert outbox.offer("new", 1, "a", "latest", "x") == Offered()
    assert emptied(outbox) == ["new"]


# A model: the same rules on a plain list, gaps with the numbers of what they count.


@dataclass
class Waiting:
    """One entry of the model: a reply, a publication, or what was dropped between two of them."""

    room: str | None
    number: int = 0
    size: int = 0
    key: str | None = None
    droppable: bool = False
    dropped: list[int] = field(default_factory=list[int])

    @property
    def is_gap(self) -> bool:
        return bool(self.dropped)


class Model:
    def __init__(self, max_bytes: int, max_frames: int) -> None:
        self.queue: list[Waiting] = []
        self._max_bytes = max_bytes
        self._max_frames = max_frames

    @property
    def bytes(self) -> int:
        return sum(each.size for each in self.queue)

    @property
    def full(self) -> bool:
        frames = sum(not each.is_gap for each in self.queue)
        return self.bytes >= self._max_bytes or frames >= self._max_frames

    def offer(self, new: Waiting, policy: Overflow) -> Offered:
        if policy == "disconnect":
            if self.full:
                return Offered(taken=False)
            self.queue.append(new)
            return Offered()
        mine = [each for each in self.queue if each.room == new.room and each.droppable]
        superseded = [each for each in mine if policy == "latest" and new.key is not None and each.key == new.key]
        for each in superseded:
            self.queue.remove(each)
            mine.remove(each)
        dropped = 0
        while self.full and mine and policy != "drop_new":
            oldest = mine.pop(0)
            oldest.dropped, oldest.droppable, oldest.size = [oldest.number], False, 0
            dropped += 1
        if self.full:
            self.queue.append(Waiting(new.room, dropped=[new.number]))
            dropped += 1
        else:
            new.droppable = True
            self.queue.append(new)
        self._merge(new.room)
        return Offered(dropped, len(superseded))

    def _merge(self, room: str | None) -> None:
        """Put gaps together between which no publication of the room stands."""
        before: Waiting | None = None
        for each in [each for each in self.queue if each.room == room and (each.is_gap or each.droppable)]:
            if before is not None and before.is_gap and each.is_gap:
                before.dropped += each.dropped
                self.queue.remove(each)
            else:
                before = each


@dataclass(frozen=True)
class Offer:
    room: str
    key: str | None
    size: int


@dataclass(frozen=True)
class Push:
    size: int


Operation: TypeAlias = Offer | Push | Literal["pop", "clear"]

WITHOUT_ARGUMENTS: list[Literal["pop", "clear"]] = ["pop", "pop", "clear"]
SIZES = st.integers(0, 20)
OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    st.one_of(
        st.builds(Offer, st.sampled_from("abcd"), st.sampled_from([None, "x", "y", "z"]), SIZES),
        st.builds(Push, SIZES),
        st.sampled_from(WITHOUT_ARGUMENTS),
    ),
    max_size=60,
)


@given(
    operations=OPERATIONS,
    policies=st.fixed_dictionaries({room: st.sampled_from(POLICIES) for room in "abcd"}),
    max_bytes=st.integers(1, 100),
    max_frames=st.integers(1, 8),
)
@example(
    operations=[Push(0), Offer("a", None, 1), "pop", Offer("a", None, 1), Offer("a", None, 1)],
    policies=dict.fromkeys("abcd", "drop_old"),
    max_bytes=100,
    max_frames=1,
)
def test_every_publication_is_accounted_for_once(
    operations: list[Operation], policies: dict[str, Overflow], max_bytes: int, max_frames: int
) -> None:
    """Whatever is put in and taken out, each publication is delivered, superseded, or counted by a gap in its place.

    The gap stands between its neighbours of the same room, and what is delivered keeps its order.
    """
    outbox: Outbox[int] = Outbox(max_bytes, max_frames)
    model = Model(max_bytes, max_frames)
    for number, operation in enumerate(operations):
        if operation == "pop":
            if model.queue:
                expected = model.queue.pop(0)
                item = outbox.pop()
                if expected.is_gap:
                    assert isinstance(item, Gap)
                    assert (item.room, item.dropped) == (expected.room, len(expected.dropped))
                else:
                    assert item == expected.number
        elif operation == "clear":
            outbox.clear()
            model.queue.clear()
        elif isinstance(operation, Push):
            outbox.push(number, operation.size)
            model.queue.append(Waiting(None, number, operation.size))
        else:
            room, key, size = operation.room, operation.key, operation.size
            became = model.offer(Waiting(room, number, size, key), policies[room])
            assert outbox.offer(number, size, room, policies[room], key) == became
        assert (outbox.bytes, outbox.full, len(outbox)) == (model.bytes, model.full, len(model.queue))


@given(operations=OPERATIONS, policy=st.sampled_from(POLICIES), max_frames=st.integers(1, 6))
def test_what_is_missing_is_what_a_gap_says(operations: list[Operation], policy: Overflow, max_frames: int) -> None:
    """Between two neighbours in what a client gets of a room, the gap counts all that is missing, and no more."""
    outbox: Outbox[tuple[str, int]] = Outbox(1000, max_frames)
    offered, superseded, refused = Counter[str](), Counter[str](), Counter[str]()
    out: list[tuple[str, int] | Gap] = []
    for operation in operations:
        if operation == "pop":
            if outbox:
                out.append(outbox.pop())
        elif isinstance(operation, Push):
            outbox.push(("", 0), operation.size)
        elif isinstance(operation, Offer):
            room = operation.room
            result = outbox.offer((room, offered[room]), operation.size, room, policy, operation.key)
            superseded[room] += result.superseded
            if result:
                offered[room] += 1
            else:
                refused[room] += 1
    while outbox:
        out.append(outbox.pop())
    for room in offered:
        next_number, missing, gaps = 0, 0, 0
        for item in out:
            if isinstance(item, Gap):
                if item.room == room:
                    assert item.dropped is not None
                    assert item.dropped > 0
                    gaps += item.dropped
            elif item[0] == room:
                assert item[1] >= next_number
                missing += item[1] - next_number
                assert gaps <= missing if policy == "latest" else gaps == missing
                next_number = item[1] + 1
        missing += offered[room] - next_number
        assert gaps + superseded[room] == missing
    assert policy == "disconnect" or not refused


def test_it_holds_what_waits_and_nothing_else() -> None:
    """However many rooms and keys have passed through it, its memory goes by what waits now."""
    chance = random.Random(3)
    outbox: Outbox[int] = Outbox(1000, 20)

    def operate(times: int) -> None:
        for number in range(times):
            if chance.random() < 0.45 and outbox:
                outbox.pop()
                continue
            policy = chance.choice(POLICIES)
            if policy == "disconnect":
                outbox.push(number, 10)
            else:
                outbox.offer(number, 10, f"{policy} {chance.randrange(30)}", policy, f"key {chance.randrange(10**9)}")
            while len(outbox) > 200:
                outbox.pop()

    operate(5_000)
    tracemalloc.start()
    try:
        operate(20_000)
        before, _ = tracemalloc.get_traced_memory()
        operate(60_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024
    while outbox:
        outbox.pop()
    assert (outbox.bytes, outbox.full) == (0, False)
