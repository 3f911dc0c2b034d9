"""What is kept of a room, and who can catch up: positions, streams, and the streams of all rooms."""

import math
import weakref
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsrouter import ConfigurationError
from wsrouter.brokers import Publication
from wsrouter.history import MAX_RECOVERED, NOWHERE, History, Position, Recovery, Stream, Streams, new_epoch


@dataclass(frozen=True)
class Line:
    """A publication: the n-th that was made."""

    number: int
    position: Position = NOWHERE

    def at(self, position: Position) -> "Line":
        return replace(self, position=position)


def stream_of(count: int, *, size: int = 100, ttl: float = 300.0, every: float = 1.0) -> Stream[Line]:
    """Return a stream to which publications 1 to `count` came at their number times `every`."""
    stream: Stream[Line] = Stream(History(size, ttl), "epoch", 0.0)
    for number in range(1, count + 1):
        stream.append(Line(number), number * every)
    return stream


def numbers(recovery: Recovery[Line]) -> list[int] | None:
    """Return what a recovery replays; ``None`` if the client did not recover."""
    return [line.number for line in recovery.publications] if recovery.recovered else None


def test_offsets_count_from_one() -> None:
    """The first publication has offset 1, each next one more, and all the epoch of their stream."""
    stream: Stream[Line] = Stream(History(), "epoch", 0.0)
    assert [stream.append(Line(number), 0.0).position.offset for number in range(3)] == [1, 2, 3]
    assert stream.append(Line(3), 0.0).position == Position("epoch", 4)


@pytest.mark.parametrize(
    ("offset", "replayed"),
    [(5, []), (4, [5]), (2, [3, 4, 5]), (1, None), (0, None), (-1, None), (6, None), (10**15, None)],
)
def test_what_size_has_cut_off_is_not_recovered(offset: int, replayed: list[int] | None) -> None:
    """Of five publications three are kept: who has the second gets the rest, who lacks it gets nothing."""
    recovery = stream_of(5, size=3).recover(Position("epoch", offset), 5.0)
    assert numbers(recovery) == replayed
    assert recovery.offset == (5 if replayed is None else offset)
    assert recovery.end == 5


@pytest.mark.parametrize(
    ("now", "offset", "replayed"),
    [(12.9, 2, [3, 4, 5]), (13.0, 2, None), (13.0, 3, [4, 5]), (14.9, 4, [5]), (15.0, 4, None), (15.0, 5, [])],
)
def test_what_is_too_old_is_not_recovered(now: float, offset: int, replayed: list[int] | None) -> None:
    """A publication is kept for less than ``ttl``; who has the newest misses nothing, however old it is."""
    assert numbers(stream_of(5, ttl=10.0).recover(Position("epoch", offset), now)) == replayed


def test_no_more_is_recovered_than_the_limit() -> None:
    """A gap of 300 is closed whole, one of 301 not at all."""
    stream = stream_of(400, size=400, ttl=1_000.0)
    assert numbers(stream.recover(Position("epoch", 400 - MAX_RECOVERED), 400.0)) == list(range(101, 401))
    assert numbers(stream.recover(Position("epoch", 400 - MAX_RECOVERED - 1), 400.0)) is None
    assert numbers(stream.recover(Position("epoch", 397), 400.0, limit=2)) is None
    assert numbers(stream.recover(Position("epoch", 400), 400.0, limit=0)) == []


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("since", [None, NOWHERE, Position("another", 0), Position("", 1)])
def test_who_has_no_position_in_this_stream_recovers_nothing(since: Position | None, count: int) -> None:
    """No position, none that is good, and one in another stream: the client begins at the end of this one."""
    assert stream_of(count).recover(since, 2.0) == Recovery("epoch", count, False)


def test_from_the_beginning_of_a_stream_everything_is_missed() -> None:
    """Who joined an empty room stands at 0, and gets the first publication, while all are kept."""
    assert numbers(stream_of(0).recover(Position("epoch", 0), 0.0)) == []
    assert numbers(stream_of(3, size=3).recover(Position("epoch", 0), 3.0)) == [1, 2, 3]
    assert numbers(stream_of(4, size=3).recover(Position("epoch", 0), 4.0)) is None


def test_a_stream_anew_has_another_epoch() -> None:
    """An idle room is forgotten; who stood in its old stream is told, though the new one is as long."""
    streams: Streams[Line] = Streams()
    history = History(ttl=10.0)
    old = streams.append("a", Line(1), history, 0.0).position
    streams.sweep(9.9)
    assert streams.recover("a", old, history, 9.9).recovered
    streams.sweep(10.0)
    assert len(streams) == 0
    new = streams.append("a", Line(2), history, 10.0).position
    assert (new.offset, new.epoch == old.epoch) == (old.offset, False)
    assert streams.recover("a", old, history, 10.0) == Recovery(new.epoch, 1, False)


def test_a_room_with_members_keeps_its_epoch() -> None:
    """However long nothing is said in it, its members can come back, and for ``ttl`` after the last one left."""
    streams: Streams[Line] = Streams()
    history = History(ttl=10.0)
    streams.hold("a", history, 0.0)
    position = streams.append("a", Line(1), history, 0.0).position
    for now in range(10, 1_000, 10):
        streams.sweep(float(now))
    assert streams.next_sweep is None
    streams.release("a", 1_000.0)
    streams.sweep(1_009.9)
    assert streams.recover("a", position, history, 1_009.9) == Recovery(position.epoch, 1, True)
    streams.sweep(1_010.0)
    assert len(streams) == 0


def test_what_is_too_old_takes_no_memory() -> None:
    """Also in a room that nobody leaves and where nothing is said any more, it is let go by the sweep."""
    streams: Streams[Line] = Streams()
    streams.hold("a", History(ttl=10.0), 0.0)
    kept = [weakref.ref(streams.append("a", Line(number), History(ttl=10.0), float(number))) for number in range(3)]
    while (due := streams.next_sweep) is not None:
        assert due <= 20.0
        streams.sweep(due)
    assert ([line() for line in kept], len(streams)) == ([None] * 3, 1)


def test_a_sweep_looks_at_few_rooms_at_a_time() -> None:
    """Many idle rooms are forgotten in several goes, and `next_sweep` says that there is more."""
    streams: Streams[Line] = Streams()
    for number in range(25):
        streams.append(str(number), Line(number), History(ttl=10.0), 0.0)
    left: list[int] = []
    while (due := streams.next_sweep) is not None:
        streams.sweep(due, most=10)
        left.append(len(streams))
    assert left == [15, 5, 0]


@pytest.mark.parametrize(
    ("size", "ttl", "wrong"),
    [
        *((size, 1.0, "size") for size in (0, -1, 1.5, "5", True)),
        *((1, ttl, "ttl") for ttl in (0, -1.0, math.nan, "5")),
    ],
)
def test_a_history_of_nothing_is_a_mistake(size: Any, ttl: Any, wrong: str) -> None:
    """A size below 1 and a time that is not above zero are refused where they are written."""
    with pytest.raises(ConfigurationError, match=f"History\\({wrong}="):
        History(size=size, ttl=ttl)


@given(st.text(st.sampled_from("abcXYZ019-_"), min_size=1, max_size=128), st.integers(0, 10**16 - 1))
def test_a_position_survives_its_text(epoch: str, offset: int) -> None:
    """What is written as text is read as the same position."""
    assert Position.parse(str(Position(epoch, offset))) == Position(epoch, offset)


@given(st.text() | st.from_regex(r"\A[\w-]{0,3}:?[+-]?\d{0,18}\Z"))
def test_every_text_is_read_as_a_position(text: str) -> None:
    """A text is the position that it writes, or that of who has none; there is no other way to write one."""
    position = Position.parse(text)
    assert position is NOWHERE or (str(position) == text and position.epoch and text.isascii())


def test_the_epochs_that_are_made_can_be_read() -> None:
    """An epoch needs no escapes in a URL, and no two are the same."""
    epochs = [new_epoch() for _ in range(1_000)]
    assert len(set(epochs)) == len(epochs)
    assert all(Position.parse(f"{epoch}:1") == Position(epoch, 1) for epoch in epochs)


def test_a_publication_is_kept_whole() -> None:
    """It gets its position, and keeps who does not get it: users in a replay too, connections by their id."""
    publication = Publication("room", "a", "said", b"{}", exclude=frozenset({"c1"}), exclude_users=frozenset({"u1"}))
    stream: Stream[Publication] = Stream(History(), "epoch", 0.0)
    placed = stream.append(publication, 0.0)
    assert placed == replace(publication, epoch="epoch", offset=1)
    assert stream.recover(Position("epoch", 0), 0.0).publications == (placed,)
    asked = [("c1", None), ("c2", "u1"), ("c2", "u2"), ("c2", None), ("u1", "c1")]
    assert [placed.excludes(connection, user) for connection, user in asked] == [True, True, False, False, False]


SIZE, TTL, LIMIT = 4, 10.0, 3
HISTORY = History(SIZE, TTL)


@dataclass
class Client:
    """Somebody who reads one room, and keeps where it stands as it gets frames."""

    position: Position | None = None
    first: int = 0
    """Number of the first publication that it must have seen, from 0."""
    seen: list[int] = field(default_factory=list[int])
    connected: bool = False
    stream: int = 0
    """Which of the streams that the room had it stands in."""


class Recovering(RuleBasedStateMachine):
    """Clients of one room come, are lost, also amid a replay, and come back, while rooms are swept.

    What a client has seen is always what was published since it joined without a position that was good, or since
    it was told so: nothing is missing, nothing there twice.
    """

    @initialize()
    def begin(self) -> None:
        self.streams: Streams[Line] = Streams()
        self.now = 0.0
        self.published: list[float] = []
        self.used = 0.0
        self.stream = 0
        self.clients: list[Client] = []

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 9.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        if not self.is_held and self.now >= self.used + TTL:
            self.stream += 1
        self.streams.sweep(self.now)
        assert self.streams.next_sweep is None or self.streams.next_sweep > self.now

    @rule()
    def publish(self) -> None:
        line = self.streams.append("room", Line(len(self.published)), HISTORY, self.now)
        self.published.append(self.now)
        self.used = self.now
        for client in self.clients:
            if client.connected:
                client.seen.append(line.number)
                client.position = line.position

    @rule(number=st.integers(0, 5), told=st.none() | st.integers(0, LIMIT))
    def join(self, number: int, told: int | None) -> None:
        """A client joins from where it stands, and is lost after the first few frames unless `told` is none."""
        if number >= len(self.clients):
            self.clients.append(Client())
            number = -1
        client = self.clients[number]
        if client.connected:
            return
        recovery = self.streams.recover("room", client.position, HISTORY, self.now, LIMIT)
        if client.position is None:
            assert not recovery.recovered
        else:
            missed = self.published[client.first + len(client.seen) :]
            kept = len(missed) <= min(SIZE, LIMIT) and all(self.now < at + TTL for at in missed)
            assert recovery.recovered is (kept and client.stream == self.stream)
        if recovery.recovered:
            client.seen += [line.number for line in recovery.publications[:told]]
        else:
            client.first, client.seen = len(self.published), []
        client.position = Position(recovery.epoch, recovery.offset + len(recovery.publications[:told]))
        self.streams.hold("room", HISTORY, self.now)
        client.connected, client.stream = True, self.stream
        if told is not None:
            self.lose(client)

    @precondition(lambda self: self.is_held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.lose(data.draw(st.sampled_from([client for client in self.clients if client.connected])))

    def lose(self, client: Client) -> None:
        client.connected = False
        if not self.is_held:
            self.used = self.now
            self.streams.release("room", self.now)

    @property
    def is_held(self) -> bool:
        return any(client.connected for client in self.clients)

    @invariant()
    def nobody_misses_anything_in_silence(self) -> None:
        for client in self.clients:
            expected = list(range(client.first, len(self.published)))
            assert client.seen == (expected if client.connected else expected[: len(client.seen)])

    def teardown(self) -> None:
        """When all have left, and the sweeps are made that are asked for, nothing is kept."""
        for client in self.clients:
            if client.connected:
                self.lose(client)
        for _ in range(3):
            if (due := self.streams.next_sweep) is not None:
                self.streams.sweep(max(due, self.now))
        assert len(self.streams) == 0
        assert self.streams.next_sweep is None


TestRecovering = Recovering.TestCase
