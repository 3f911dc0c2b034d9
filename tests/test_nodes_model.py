"""What every client gets while the link between two nodes loses, delays, forgets and fails: all, or a word of it."""

import asyncio
import json
import os
import selectors
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.lines import WAYS, DirectSocket, PortableSocket, Way, turns
from tests.nodes import Name, Said, ShakyBroker
from wsrouter import BrokerError, CloseInfo, History, Hub, Limits, Position, RoomOptions
from wsrouter.brokers import Entry, MemoryBroker, Publication
from wsrouter.connection import ServerConnection

SIZE: Final = 8
"""Publications that a room with history keeps."""
STREAM: Final = "stream"
PLAIN: Final = "plain"
HISTORY: Final = History(size=SIZE)
ROOMS: Final = {STREAM: RoomOptions(history=HISTORY), PLAIN: RoomOptions()}
LIMITS: Final = Limits(outbox_frames=5, outbox_bytes=1000)
USERS: Final = ["ada", "bob", "ada", "cay"]
"""Of each client."""
WALKS: Final = int(os.environ.get("WSROUTER_TEST_WALKS", "12"))
FAULTS: Final = ["hold", "flow", "flow", "lose", "lose", "lose", "tell", "away", "back", "fail", "slow", "anew"]
PAUSES: Final = [0.01, 0.02, 0.05, 0.1, 0.2, 0.6, 3.0, 12.0]
"""Seconds."""
GAP: Final = 0
"""Stands for a `$gap` among the numbers of what was published."""


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when there is nothing else to do, and then at once."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += timeout or 0.0
        return super().select(0)


class Observer:
    """Hears all that is published, and loses nothing."""

    def __init__(self) -> None:
        self.stream: dict[tuple[str, int], int] = {}
        """What has which place in the stream."""

    def deliver(self, publication: Publication) -> None:
        assert publication.epoch is not None
        assert publication.offset is not None
        self.stream[publication.epoch, publication.offset] = json.loads(publication.data)["n"]

    def lost(self, names: Collection[Name]) -> None: ...

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None: ...

    def departed(self, node: str) -> None: ...

    def restored(self) -> None: ...


@dataclass
class Line:
    """One connection of a client: what it is due, and what it has got of that."""

    socket: DirectSocket | PortableSocket
    node: int
    user: str
    due: dict[str, list[int]] = field(default_factory=lambda: defaultdict[str, list[int]](list))
    """What its node was told for it, by room without history; what is sent to the user is of the room ``""``."""
    got: dict[str, list[int]] = field(default_factory=lambda: defaultdict[str, list[int]](list))
    since: Position | None = None
    """Where it said it was when it joined the room with history."""
    task: "asyncio.Task[None] | None" = None
    """The join of the room with history, once it was asked for."""
    answered: bool = False
    was_stalled: bool = False

    @property
    def connection(self) -> ServerConnection:
        return self.socket.connection


class Client:
    """A client that comes and goes, on any node, and keeps its position in the room with history."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.position: Position | None = None
        self.line: Line | None = None


class Cluster(RuleBasedStateMachine):
    """Clients on two nodes, and between them what fails."""

    hubs: Sequence[Hub]
    brokers: Sequence[ShakyBroker]

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clock()
        self.clients = [Client(user) for user in USERS]
        self.observer = Observer()
        self.n = 0
        self.untold = False
        """Whether something was lost of which the broker did not tell."""
        self.batch: list[Callable[[], Coroutine[Any, Any, None]]] = []

    @initialize(ways=st.lists(st.sampled_from(WAYS), min_size=len(USERS), max_size=len(USERS)))
    def start(self, ways: list[Way]) -> None:
        first = ShakyBroker()
        self.brokers = [first, ShakyBroker(beside=first)]
        self.hubs = [Hub(broker, rooms=ROOMS) for broker in self.brokers]
        self.observing = MemoryBroker(beside=first)

        async def begin() -> None:
            await self.observing.start("observer", self.observer)
            await self.observing.subscribe("room", STREAM, HISTORY)
            for node, (hub, broker) in enumerate(zip(self.hubs, self.brokers, strict=True)):
                broker.heard = self.hears(node)
                await hub.node.open()

        self.run(begin())
        for which, way in enumerate(ways):
            self.join(which, which % 2, way, STREAM, 0, True)
            self.join(which, which % 2, way, PLAIN, 0, True)
        self.soon(turns, False)

    def hears(self, node: int) -> Callable[[Publication | Sequence[Name]], None]:
        """Return what notes what a node has to hand on, and to whom."""

        def note(told: Publication | Sequence[Name]) -> None:
            if isinstance(told, Publication):
                if told.offset is None:
                    self.expect(node, told.target, told.name, json.loads(told.data)["n"])
                return
            for target, name in told:
                if name != STREAM:
                    self.expect(node, target, name, GAP)

        return note

    def expect(self, node: int, target: str, name: str, n: int) -> None:
        for line in self.lines():
            if line.node == node and line.connection.closed is None:
                if target == "room" and name in line.connection.rooms:
                    line.due[name].append(n)
                elif target == "user" and line.user == name:
                    line.due[""].append(n)

    # What is done within one iteration of the event loop is corked together.

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def within() -> None:
            await work
            await turns()
            await self.check()

        self.loop.run_until_complete(within())

    def soon(self, op: Callable[[], Coroutine[Any, Any, None]], later: bool) -> None:
        """Do something, now or together with what comes next."""
        self.batch.append(op)
        if not later:
            batch, self.batch = self.batch, []

            async def all_of_it() -> None:
                for each in batch:
                    await each()

            self.run(all_of_it())

    which = st.integers(0, len(USERS) - 1)
    node = st.integers(0, 1)
    later = st.booleans()

    @rule(
        which=which,
        node=node,
        way=st.sampled_from(WAYS),
        room=st.sampled_from([STREAM, PLAIN]),
        back=st.sampled_from([0, 0, 0, 1, 3, SIZE, -3, None]),
        later=later,
    )
    def join(self, which: int, node: int, way: Way, room: str, back: int | None, later: bool) -> None:
        """Join a room, on a new connection if there is none; each connection joins each room once."""

        async def op() -> None:
            client = self.clients[which]
            line = client.line or await self.connect(client, node, way)
            if line is None or line.connection.closed is not None:
                return
            hub = self.hubs[line.node]
            if room == PLAIN:
                try:
                    await hub.join(line.connection, PLAIN)
                except BrokerError:
                    assert not line.connection.rooms & {PLAIN}
            elif line.task is None:
                if client.position is not None and back is not None:
                    line.since = Position(client.position.epoch, max(0, client.position.offset - back))
                line.task = asyncio.ensure_future(hub.join(line.connection, STREAM, since=line.since))
                await turns(1)

        self.soon(op, later)

    async def connect(self, client: Client, node: int, way: Way) -> Line | None:
        socket = way(client.user, LIMITS)
        await socket.connection.accept(None, [])
        try:
            await self.hubs[node].node.enter(socket.connection)
        except BrokerError:
            assert self.hubs[node].node.users.members(client.user) == ()
            self.hubs[node].node.exit(socket.connection)
            await socket.connection.aclose()
            return None
        client.line = Line(socket, node, client.user)
        return client.line

    @rule(
        node=node,
        to=st.sampled_from([STREAM, STREAM, PLAIN, "ada", "bob"]),
        count=st.sampled_from([1, 1, 2, 7, 12]),
        later=later,
    )
    def publish(self, node: int, to: str, count: int, later: bool) -> None:
        async def op() -> None:
            hub = self.hubs[node]
            for _ in range(count):
                self.n += 1
                try:
                    if to in ROOMS:
                        await hub.broadcast(to, Said(n=self.n))
                    else:
                        await hub.send_to_user(to, Said(n=self.n))
                except BrokerError:
                    assert not self.brokers[node].up

        self.soon(op, later)

    @rule(which=which, reads=st.booleans(), later=later)
    def pace(self, which: int, reads: bool, later: bool) -> None:
        """Have a client read no more, or again."""

        async def op() -> None:
            line = self.clients[which].line
            if line is not None and line.socket.stalled is reads:
                (line.socket.resume if reads else line.socket.stall)()
                line.was_stalled |= not reads

        self.soon(op, later and not reads)

    @rule(which=which, what=st.sampled_from(["drop", "drop", "leave", "cancel"]), later=later)
    def end(self, which: int, what: str, later: bool) -> None:
        async def op() -> None:
            client = self.clients[which]
            line = client.line
            if line is not None and what == "leave":
                await self.hubs[line.node].leave(line.connection, STREAM)
            elif what == "drop" or (line is not None and line.task is not None and not line.task.done()):
                await self.drop(client)

        self.soon(op, later and what == "leave")

    @rule(
        node=node,
        what=st.sampled_from(FAULTS),
        count=st.integers(1, 6),
        told=st.booleans(),
        later=later,
    )
    def fail(self, node: int, what: str, count: int, told: bool, later: bool) -> None:
        """Let something happen on the way between the server and a node."""

        async def op() -> None:
            broker = self.brokers[node]
            if what == "hold":
                broker.flowing = False
            elif what == "flow":
                broker.flowing = not broker.flowing
                broker.flow(None if broker.flowing else count)
            elif what == "lose" and broker.waiting:
                broker.drop(count % len(broker.waiting), tell=told)
                self.untold |= not told
            elif what == "tell":
                broker.tell()
            elif what == "away":
                broker.up = broker.flowing = False
                broker.waiting.clear()
                broker.tell()
            elif what == "back" and not broker.up:
                self.back(broker)
            elif what == "fail":
                broker.fails = count % 3
            elif what == "anew":
                broker.begin_anew()
                self.untold = True
            elif what == "slow":
                broker.latency = 0.0 if count > 5 else 0.01 * 3**count

        self.soon(op, later)

    def back(self, broker: ShakyBroker) -> None:
        broker.up = broker.flowing = True
        broker.lose()

    @rule(seconds=st.sampled_from(PAUSES))
    def wait(self, seconds: float) -> None:
        async def op() -> None:
            await asyncio.sleep(seconds)

        self.soon(op, False)

    @rule()
    def settle(self) -> None:
        """When all is well again, every client that reads has all, or knows that it has not."""

        async def op() -> None:
            for broker in self.brokers:
                broker.fails, broker.latency = 0, 0.0
                if not broker.up:
                    self.back(broker)
                broker.flowing = True
                broker.flow()
            if self.untold:  # it is noticed with what comes next
                await self.hubs[0].broadcast(STREAM, Said(n=0))
                self.untold = False
            await asyncio.sleep(15)
            end = await self.observing.recover(STREAM, HISTORY, None)
            for client in self.clients:
                line = client.line
                if line is None or line.socket.stalled:
                    continue
                assert line.task is None or line.task.done()
                self.read(client, line)
                if STREAM in line.connection.rooms and line.connection.closed is None:
                    assert client.position == Position(end.epoch, end.offset), "nothing is missing without a word"
            assert [len(hub.node.recoveries) for hub in self.hubs] == [0, 0]

        self.soon(op, False)

    def lines(self) -> list[Line]:
        return [client.line for client in self.clients if client.line is not None]

    async def drop(self, client: Client) -> None:
        """End a connection, as its session would."""
        line = client.line
        if line is None:
            return
        self.read(client, line)
        client.line = None
        line.connection.lost(CloseInfo(1006))
        line.socket.resume()
        if line.task is not None:
            line.task.cancel()
            await asyncio.wait([line.task])
            self.check_join(line)
        node = self.hubs[line.node].node
        await node.release(node.exit(line.connection))
        await line.connection.aclose()

    def check_join(self, line: Line) -> None:
        assert line.task is not None
        if not line.task.cancelled() and (exc := line.task.exception()) is not None:
            assert isinstance(exc, BrokerError)
            assert not line.answered, "who is no member is not told that it has joined"

    async def check(self) -> None:
        """Let every client read, and compare with what it is due."""
        for client in self.clients:
            line = client.line
            if line is None:
                continue
            self.read(client, line)
            if line.task is not None and line.task.done():
                self.check_join(line)
            if line.connection.closed is not None:
                assert line.connection.closed.code == 4508
                assert line.was_stalled or line.socket.stalled, "only who does not read is closed"
                await self.drop(client)
            elif not line.socket.stalled:
                for room in {*line.due, *line.got}:
                    assert line.got[room] == joined_up(line.due[room])

    def read(self, client: Client, line: Line) -> None:
        for text in line.socket.take():
            frame: dict[str, Any] = json.loads(text)
            room = frame.get("room", "")
            if room == STREAM:
                self.read_stream(client, line, frame)
                continue
            if frame["type"] == "$gap":
                assert frame["data"] == {"dropped": None}
            n = GAP if frame["type"] == "$gap" else frame["data"]["n"]
            line.got[room] = joined_up([*line.got[room], n])
            assert joined_up(line.due[room])[: len(line.got[room])] == line.got[room]

    def read_stream(self, client: Client, line: Line, frame: dict[str, Any]) -> None:
        if frame["type"] != "$joined":
            assert client.position is not None
            epoch, offset = client.position.epoch, client.position.offset + 1
            assert frame["offset"] == offset, "no hole, and nothing twice"
            assert frame["data"]["n"] == self.observer.stream[epoch, offset], "what everybody else gets there"
            client.position = Position(epoch, offset)
            return
        data = frame["data"]
        told = Position(data["epoch"], data["offset"])
        before = client.position if line.answered else line.since
        if data["recovered"]:
            assert not line.answered
            assert told == before
        elif before is not None and told.epoch == before.epoch:
            missed = told.offset - before.offset
            assert not 0 <= missed <= min(SIZE, self.kept(told)), "what is kept is recovered"
        line.answered = True
        client.position = told

    def kept(self, end: Position) -> int:
        """Return how many publications the stream had at most when it was there."""
        return end.offset

    def teardown(self) -> None:
        async def end() -> None:
            for client in self.clients:
                await self.drop(client)
            for hub in self.hubs:
                assert hub.rooms == {}
                assert hub.node.users.counts() == {}
                await hub.node.aclose()
            assert len(asyncio.all_tasks()) == 1

        try:
            if hasattr(self, "hubs"):
                self.loop.run_until_complete(end())
        finally:
            self.loop.close()


def joined_up(numbers: Sequence[int]) -> list[int]:
    """Return numbers with gaps that follow each other as one."""
    return [n for place, n in enumerate(numbers) if n != GAP or place == 0 or numbers[place - 1] != GAP]


@pytest.mark.parametrize("seed", range(WALKS))
def test_long_walks(seed: int) -> None:
    """The same over hundreds of steps: hypothesis prefers few, and finds the shortest of what is wrong."""
    random = Random(seed)
    walk = Cluster()
    where = random.choice([[0], [0, 0, 0, 1], [0, 1]])
    try:
        walk.start([random.choice(WAYS) for _ in USERS])
        for _ in range(300):
            which, node, later = random.randrange(len(USERS)), random.randrange(2), random.random() < 0.6
            match random.choices(
                ["join", "publish", "stall", "resume", "end", "fail", "wait", "settle"], [9, 10, 1, 2, 4, 8, 7, 1]
            )[0]:
                case "join":
                    back = random.choice([0, 0, 0, 1, 3, SIZE, -3, None])
                    walk.join(
                        which, random.choice(where), random.choice(WAYS), random.choice([STREAM, PLAIN]), back, later
                    )
                case "publish":
                    to = random.choice([STREAM, STREAM, PLAIN, "ada", "bob"])
                    walk.publish(node, to, random.choice([1, 1, 2, 7, 12]), later)
                case "end":
                    walk.end(which, random.choice(["drop", "drop", "leave", "cancel"]), later)
                case "fail":
                    walk.fail(node, random.choice(FAULTS), random.randint(1, 6), random.random() < 0.5, later)
                case "wait":
                    walk.wait(random.choice(PAUSES))
                case "settle":
                    walk.settle()
                case pace:
                    walk.pace(which, pace == "resume", later)
        walk.settle()
    finally:
        walk.teardown()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40)
