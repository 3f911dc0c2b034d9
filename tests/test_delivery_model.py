"""What every client gets, whatever it and others do: all that is promised, or a frame that says what is missing."""

import asyncio
import json
import os
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.lines import WAYS, DirectSocket, PortableSocket, Way, turns
from wsrouter import CloseInfo, History, Hub, Limits, Message, Position, RoomOptions
from wsrouter.brokers import MemoryBroker
from wsrouter.connection import ServerConnection

SIZE: Final = 8
"""Publications that a room with history keeps."""
STREAM: Final = "stream"
ROOMS: Final = {
    STREAM: RoomOptions(history=History(size=SIZE)),
    "plain": RoomOptions(),
    "new": RoomOptions(overflow="drop_new"),
    "old": RoomOptions(overflow="drop_old"),
    "latest": RoomOptions(overflow="latest"),
}
LIMITS: Final = Limits(outbox_frames=5, outbox_bytes=1000)
WALKS: Final = int(os.environ.get("WSROUTER_TEST_WALKS", "12"))
USERS: Final = ["ada", "bob", "ada"]
"""Of each client."""


class Said(Message, type="said"):
    n: int


class Price(Message, type="price", key="symbol"):
    n: int
    symbol: str


class Expiring(MemoryBroker):
    """A broker in which all time can pass at once."""

    def expire(self) -> None:
        self._server.streams.sweep(monotonic() + 10_000)


@dataclass
class Published:
    """A publication of the room with history."""

    n: int
    connections: frozenset[str]
    users: frozenset[str]

    def for_(self, line: "Line") -> int | None:
        """Return what a client gets of it: its number, or `None` for a skip."""
        excluded = line.connection.id in self.connections or (line.user and line.user in self.users)
        return None if excluded else self.n


@dataclass
class Line:
    """One connection of a client: what it is due, and how far it has read that."""

    socket: DirectSocket | PortableSocket
    user: str
    due: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict[str, list[tuple[int, str]]](list))
    """What it was sent, by room: number and key. Direct messages are of the room ``""``."""
    read: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    """How much of that it has got, or was told of."""
    gaps: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    """What it was told of by `$gap`, since the last publication of the room."""
    newest: int = 0
    """The number of what it got last, besides that of the room with history."""
    answers: deque[dict[str, Any]] = field(default_factory=deque[dict[str, Any]])
    """What its joins of the room with history must be answered."""
    tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict[str, "asyncio.Task[None]"])
    """What waits for it to read."""
    was_stalled: bool = False

    @property
    def connection(self) -> ServerConnection:
        return self.socket.connection

    @property
    def is_joining(self) -> bool:
        """Whether it is on its way into the room with history."""
        return STREAM in self.tasks and not self.tasks[STREAM].done()

    @property
    def holds(self) -> bool:
        """Whether the room with history is kept for it."""
        return self.is_joining or STREAM in self.connection.rooms

    @property
    def member(self) -> frozenset[str]:
        return self.connection.rooms if self.connection.closed is None else frozenset()


class Client:
    """A client that comes and goes, and keeps its position in the room with history."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.position: tuple[int, int] | None = None
        """The generation of the stream, and the offset."""
        self.line: Line | None = None


class Delivery(RuleBasedStateMachine):
    """Clients, rooms of every policy, and what a hub that keeps its promises would do."""

    hub: Hub
    broker: Expiring

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clients = [Client(user) for user in USERS]
        self.epochs: list[str] = [""]
        """The epoch of each generation, once a client was told."""
        self.stream: list[Published] | None = None
        """Everything in the stream since it began."""
        self.kept = 0
        self.n = 0
        self.batch: list[Callable[[], Coroutine[Any, Any, None]]] = []

    @initialize(
        ways=st.lists(st.sampled_from(WAYS), min_size=len(USERS), max_size=len(USERS)),
        rooms=st.lists(st.sets(st.sampled_from(sorted(ROOMS)), min_size=3), min_size=len(USERS), max_size=len(USERS)),
    )
    def start(self, ways: list[Way], rooms: list[set[str]]) -> None:
        self.run(self.restart())
        for which, (way, joined) in enumerate(zip(ways, rooms, strict=True)):
            for room in sorted(joined):
                self.join(which, way, room, None, True)
        self.soon(turns, False)

    # What is done within one iteration of the event loop is corked together.

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(self._within(work))

    async def _within(self, work: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(5):
            await work
            await turns()
            await self.check()

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
    rooms = st.sampled_from(sorted(ROOMS))
    later = st.booleans()

    @rule(
        which=which,
        way=st.sampled_from(WAYS),
        room=rooms,
        back=st.sampled_from([0, 0, 0, 0, 1, 3, SIZE, -3, None]),
        later=later,
    )
    def join(self, which: int, way: Way, room: str, back: int | None, later: bool) -> None:
        """Join a room, on a new connection if there is none.

        Of the room with history the client says where it stands: so many publications before that, or nothing.
        """

        async def op() -> None:
            client = self.pick(which, lambda line: line is None or room not in {*line.member, *line.tasks})
            if client is None:
                return
            line = client.line or await self.connect(client, way)
            if line.connection.closed is not None:
                return
            if room != STREAM:
                await self.hub.join(line.connection, room)
                return
            line.answers.append(self.expect(client, line, back))
            since = line.answers[-1]["since"]
            await self.begin(line, STREAM, self.hub.join(line.connection, room, since=since))

        self.soon(op, later)

    def pick(self, which: int, fits: Callable[[Line | None], bool]) -> Client | None:
        """Return a client with which something can be done."""
        clients = [client for client in self.clients if fits(client.line)]
        return clients[which % len(clients)] if clients else None

    async def connect(self, client: Client, way: Way) -> Line:
        socket = way(client.user, LIMITS)
        await socket.connection.accept(None, [])
        await self.hub.node.enter(socket.connection)
        client.line = Line(socket, client.user)
        return client.line

    def expect(self, client: Client, line: Line, back: int | None) -> dict[str, Any]:
        """Return how a join has to be answered, and begin what it is due."""
        if self.stream is None:
            self.stream, self.kept = [], 0
            self.epochs.append("")
        generation, end = len(self.epochs) - 1, len(self.stream)
        since, recovered, start = None, False, end
        if client.position is not None and back is not None:
            of, offset = client.position
            offset = max(0, offset - back)
            since = Position(self.epochs[of], offset)
            if of == generation and 0 <= end - offset <= self.kept:
                recovered, start = True, offset
        line.due[STREAM] += [(each.for_(line) or 0, "") for each in self.stream[start:]]
        count = end - start
        return {"since": since, "generation": generation, "offset": start, "recovered": recovered, "count": count}

    async def begin(self, line: Line, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin something that may have to wait for the client."""
        task = asyncio.ensure_future(work)
        line.tasks[name] = task
        await turns(1)
        if task.done():
            del line.tasks[name]
            await task

    @rule(
        room=rooms,
        count=st.sampled_from([1, 2, 7, 12]),
        symbol=st.sampled_from("xyz"),
        keyed=st.booleans(),
        but=st.none() | which,
        but_user=st.sampled_from(["", "ada", "bob"]),
        later=later,
    )
    def broadcast(
        self, room: str, count: int, symbol: str, keyed: bool, but: int | None, but_user: str, later: bool
    ) -> None:
        async def op() -> None:
            excluded = None if but is None else self.clients[but].line
            connections = frozenset({excluded.connection.id} if excluded is not None else ())
            for _ in range(count):
                self.n += 1
                published = Published(self.n, connections, frozenset({but_user} if but_user else ()))
                self.publish_in_model(room, published, symbol if keyed else "")
                message = Price(n=self.n, symbol=symbol) if keyed else Said(n=self.n)
                await self.hub.broadcast(room, message, exclude=connections, exclude_users=published.users)

        self.soon(op, later)

    def publish_in_model(self, room: str, published: Published, key: str) -> None:
        if room == STREAM:
            if self.stream is None:
                self.stream, self.kept = [], 0
                self.epochs.append("")
            self.stream.append(published)
            self.kept = min(self.kept + 1, SIZE)
        for line in self.lines():
            gets = published.for_(line)
            if room in line.member or (room == STREAM and line.is_joining):
                if gets is not None:
                    line.due[room].append((gets, key))
                elif room == STREAM:
                    line.due[room].append((0, ""))

    @rule(which=which, later=later)
    def send(self, which: int, later: bool) -> None:
        async def op() -> None:
            line = self.clients[which].line
            if line is not None and line.connection.closed is None and "send" not in line.tasks:
                self.n += 1
                line.due[""].append((self.n, ""))
                if line.socket.stalled:
                    await self.begin(line, "send", line.connection.send(Said(n=self.n)))
                else:
                    await line.connection.send(Said(n=self.n))

        self.soon(op, later)

    @rule(user=st.sampled_from(["ada", "bob"]), later=later)
    def send_to_user(self, user: str, later: bool) -> None:
        async def op() -> None:
            self.n += 1
            for line in self.lines():
                if line.user == user and line.connection.closed is None:
                    line.due[""].append((self.n, ""))
            await self.hub.send_to_user(user, Said(n=self.n))

        self.soon(op, later)

    @rule(which=which, reads=st.booleans(), later=later)
    def pace(self, which: int, reads: bool, later: bool) -> None:
        """Have a client read no more, or again."""

        async def op() -> None:
            client = self.pick(which, lambda line: line is not None and line.socket.stalled is reads)
            if client is not None and client.line is not None:
                (client.line.socket.resume if reads else client.line.socket.stall)()
                client.line.was_stalled |= not reads

        self.soon(op, later and not reads)

    @rule(
        which=which,
        room=rooms,
        what=st.sampled_from(["drop", "drop", "leave", "leave", "cancel", "expire", "restart"]),
        later=later,
    )
    def end(self, which: int, room: str, what: str, later: bool) -> None:
        async def op() -> None:
            client = self.clients[which]
            if what == "drop":
                await self.drop_line(client)
            elif what == "leave":
                await self.leave(client, room)
            elif what == "cancel":
                await self.cancel_join(client)
            elif what == "expire":
                self.expire()
            else:
                await self.restart()

        self.soon(op, later and what == "leave")

    async def leave(self, client: Client, room: str) -> None:
        if client.line is not None and room in client.line.member:
            await self.hub.leave(client.line.connection, room)

    async def cancel_join(self, client: Client) -> None:
        line = client.line
        task = None if line is None else line.tasks.get(STREAM)
        if line is not None and task is not None:
            task.cancel()
            await asyncio.wait([task])
            del line.tasks[STREAM]
            # It is no member, and is sent nothing any more: with what has come it has its position.
            await self.drop_line(client)

    def expire(self) -> None:
        self.broker.expire()
        self.kept = 0
        if not any(line.holds for line in self.lines()):
            self.stream = None

    async def restart(self) -> None:
        """End the process, with all connections and what it remembers, and start another."""
        for client in self.clients:
            await self.drop_line(client)
        if hasattr(self, "hub"):
            await self.hub.node.aclose()
        self.broker = Expiring()
        self.hub = Hub(self.broker, rooms=ROOMS)
        await self.hub.node.open()
        self.stream = None

    def lines(self) -> list[Line]:
        return [client.line for client in self.clients if client.line is not None]

    async def drop_line(self, client: Client) -> None:
        """End a connection, as its session would."""
        line = client.line
        if line is None:
            return
        self.read(client, line)
        client.line = None
        line.connection.lost(CloseInfo(1006))
        line.socket.resume()
        for task in line.tasks.values():
            task.cancel()
        if line.tasks:
            await asyncio.wait(list(line.tasks.values()))
        await self.hub.node.release(self.hub.node.exit(line.connection))
        await line.connection.aclose()
        assert self.hub.node.joining.members(STREAM) == sum(each.is_joining for each in self.lines())

    async def check(self) -> None:
        """Let every client read, and compare with what it is due."""
        for client in self.clients:
            line = client.line
            if line is None:
                continue
            held_back = line.was_stalled or line.socket.stalled or bool(line.tasks)
            for name, task in [*line.tasks.items()]:
                if task.done():
                    del line.tasks[name]
                    await task
            self.read(client, line)
            if line.connection.closed is not None:
                assert line.connection.closed.code == 4508
                assert held_back, "only who does not read is closed"
                await self.drop_line(client)
            elif not line.socket.stalled:
                self.check_nothing_is_left(line)
            line.was_stalled = line.socket.stalled

    def check_nothing_is_left(self, line: Line) -> None:
        """A client that reads, and is connected, has got all that it is due, or was told what is missing."""
        assert not line.tasks
        assert line.connection.pending_bytes == 0 or isinstance(line.socket, DirectSocket)
        assert not line.answers
        for room, due in line.due.items():
            self.account(line, room, due[line.read[room] :])
            line.read[room] = len(due)

    def read(self, client: Client, line: Line) -> None:
        for text in line.socket.take():
            frame: dict[str, Any] = json.loads(text)
            if frame["type"] == "$gap":
                assert ROOMS[frame["room"]].overflow != "disconnect"
                line.gaps[frame["room"]] += frame["data"]["dropped"]
            elif frame.get("room") == STREAM:
                self.read_stream(client, line, frame)
            else:
                self.read_other(line, frame)

    def read_stream(self, client: Client, line: Line, frame: dict[str, Any]) -> None:
        if frame["type"] == "$joined":
            expected, data = line.answers.popleft(), frame["data"]
            generation = expected["generation"]
            self.epochs[generation] = self.epochs[generation] or data["epoch"]
            assert len(set(self.epochs)) == len(self.epochs) - self.epochs.count("") + 1, "no epoch comes back"
            assert data == {
                "epoch": self.epochs[generation],
                **{key: expected[key] for key in ("offset", "recovered", "count")},
            }
            client.position = generation, data["offset"]
            return
        assert client.position is not None
        generation, offset = client.position
        assert frame["offset"] == offset + 1, "no hole, and nothing twice"
        client.position = generation, offset + 1
        n, _ = line.due[STREAM][line.read[STREAM]]
        line.read[STREAM] += 1
        assert (frame["data"]["n"] if n else frame["type"]) == (n or "$skip")

    def read_other(self, line: Line, frame: dict[str, Any]) -> None:
        room, n = frame.get("room", ""), frame["data"]["n"]
        assert n > line.newest, "in the order in which it was sent, and nothing twice"
        line.newest = n
        begin, due = line.read[room], line.due[room]
        place = next(place for place in range(begin, len(due)) if due[place][0] == n)
        self.account(line, room, due[begin:place], due[place:])
        line.read[room] = place + 1

    def account(
        self, line: Line, room: str, missing: list[tuple[int, str]], later: list[tuple[int, str]] | None = None
    ) -> None:
        """Check that what did not come was told of, or that something newer of the same key takes its place."""
        told, line.gaps[room] = line.gaps[room], 0
        if not room or ROOMS[room].overflow != "latest":
            assert told == len(missing), f"{room}: {missing} did not come, {told} were told of"
            return
        keys = [key for _, key in [*missing, *(later or ())]]
        superseded = sum(bool(key) and key in keys[place + 1 :] for place, (_, key) in enumerate(missing))
        assert len(missing) - superseded <= told <= len(missing)

    def teardown(self) -> None:
        async def end() -> None:
            for client in self.clients:
                await self.drop_line(client)
            assert self.hub.rooms == {}
            assert self.hub.connections == {}
            await self.hub.node.aclose()

        try:
            if hasattr(self, "hub"):
                self.loop.run_until_complete(end())
        finally:
            self.loop.close()


@pytest.mark.parametrize("seed", range(WALKS))
def test_long_walks(seed: int) -> None:
    """The same over hundreds of steps: hypothesis prefers few, and finds the shortest of what is wrong."""
    random = Random(seed)
    walk = Delivery()
    every = sorted(ROOMS)

    def some_room() -> str:
        return random.choice([STREAM, *every])

    try:
        walk.start([random.choice(WAYS) for _ in USERS], [set(random.sample(every, 4)) for _ in USERS])
        for _ in range(300):
            which, later = random.randrange(len(USERS)), random.random() < 0.75
            match random.choices(
                ["join", "broadcast", "send", "to user", "stall", "resume", "end"], [6, 9, 2, 1, 2, 2, 2]
            )[0]:
                case "join":
                    back = random.choice([0, 0, 0, 0, 1, 3, SIZE, -3, None])
                    walk.join(which, random.choice(WAYS), some_room(), back, later)
                case "broadcast":
                    but = random.choice([None, None, None, which])
                    count, symbol = random.choice([1, 1, 2, 7]), random.choice("xyz")
                    user = random.choice(["", "", "", "ada", "bob"])
                    walk.broadcast(some_room(), count, symbol, random.random() < 0.5, but, user, later)
                case "send":
                    walk.send(which, later)
                case "to user":
                    walk.send_to_user(random.choice(["ada", "bob"]), later)
                case "end":
                    what = random.choice(["drop"] * 6 + ["leave"] * 4 + ["cancel"] * 3 + ["expire", "restart"])
                    walk.end(which, some_room(), what, later)
                case pace:
                    walk.pace(which, pace == "resume", later)
        walk.soon(turns, False)
    finally:
        walk.teardown()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=60, stateful_step_count=40)
