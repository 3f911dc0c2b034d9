"""What one connection is sent, on both of its paths, whatever happens in between; on sockets that keep a record."""

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message as Event

from tests.sockets import Socket, direct, gone, portable, turns
from tests.support import eventually
from wsrouter import CloseInfo, Hub, Limits, Message, RoomOptions
from wsrouter.connection import ServerConnection


class Said(Message):
    text: str


Accepting = Callable[[], Awaitable[object]]


class End(ABC):
    """The client's end of a connection.

    Args:
        limits: of the connection.
        accepting: what the server does before the handshake is accepted, and again after it.
        options: of the connection; of `PortableEnd` also ``suspends``.
    """

    connection: ServerConnection

    @abstractmethod
    def __init__(self, limits: Limits, accepting: Accepting | None, **options: Any) -> None: ...

    @abstractmethod
    def stall(self) -> None:
        """Read nothing any more."""

    @abstractmethod
    def read(self) -> None:
        """Read again."""

    @abstractmethod
    def seen(self) -> list[Any]:
        """Return what has come: texts, numbers for gaps, and in the end the code of the close frame."""


def seen_in(text: str) -> Any:
    envelope = json.loads(text)
    return envelope["data"]["dropped"] if envelope["type"] == "$gap" else envelope["data"]["text"]


class DirectEnd(End):
    """The client's end of a connection that writes to a transport."""

    def __init__(self, limits: Limits, accepting: Accepting | None, **options: Any) -> None:
        self.socket = Socket()

        async def send(event: Event) -> None:
            if accepting is not None:
                await accepting()
            self.socket.open()
            if accepting is not None:
                await accepting()

        self.connection = direct(self.socket, send, limits=limits, **options)

    def stall(self) -> None:
        self.socket.pause()

    def read(self) -> None:
        if self.socket.accepted:
            self.socket.take()

    def seen(self) -> list[Any]:
        closed = [] if self.socket.closed is None else [self.socket.closed[0]]
        return [seen_in(text) for text in self.socket.texts()] + closed


class PortableEnd(End):
    """The client's end of a connection that goes through ASGI's `send`, which suspends as often as ``suspends()``."""

    def __init__(
        self,
        limits: Limits,
        accepting: Accepting | None,
        suspends: Callable[[], int] = lambda: 0,
        **options: Any,
    ) -> None:
        self.events: list[Event] = []
        self._reads = asyncio.Event()
        self._reads.set()
        self._busy = False

        async def send(event: Event) -> None:
            assert not self._busy, "two sends at once"
            self._busy = True
            try:
                if accepting is not None and event["type"] == "websocket.accept":
                    await accepting()
                if event["type"] != "websocket.accept":
                    await self._reads.wait()
                    for _ in range(suspends()):
                        await asyncio.sleep(0)
                self.events.append(event)
                if accepting is not None and event["type"] == "websocket.accept":
                    await accepting()
            finally:
                self._busy = False

        self.connection = self._connection(send, limits=limits, **options)

    def _connection(self, send: Callable[[Event], Awaitable[None]], **options: Any) -> ServerConnection:
        return portable(send, **options)

    def stall(self) -> None:
        self._reads.clear()

    def read(self) -> None:
        self._reads.set()

    def seen(self) -> list[Any]:
        seen: list[Any] = []
        for number, event in enumerate(self.events):
            assert (event["type"] == "websocket.accept") is (number == 0)
            if event["type"] == "websocket.close":
                seen.append(event["code"])
            elif event["type"] == "websocket.send":
                seen.append(seen_in(event["text"]))
        return seen


class BareServer:
    """A server whose `send` waits for nothing but the client, as far as its name tells."""

    __module__ = "uvicorn.protocols.websockets.tests"

    def __init__(self, send: Callable[[Event], Awaitable[None]]) -> None:
        self._send = send

    async def send(self, event: Event) -> None:
        await self._send(event)


class BareEnd(PortableEnd):
    """The same where nothing is wrapped around the server's own `send`."""

    def _connection(self, send: Callable[[Event], Awaitable[None]], **options: Any) -> ServerConnection:
        return super()._connection(bare(send), **options)


Send = Callable[[Event], Awaitable[None]]
Wrap = Callable[[Send], Send]


def wrapped(send: Send) -> Send:
    """Return a ``send`` as middleware leaves it."""
    return send


def bare(send: Send) -> Send:
    """Return a ``send`` that is the server's own."""
    return BareServer(send).send


each_server = pytest.mark.parametrize("server", [wrapped, bare])
each_path = pytest.mark.parametrize("path", [DirectEnd, PortableEnd, BareEnd])
each_portable_path = pytest.mark.parametrize("path", [PortableEnd, BareEnd])


@asynccontextmanager
async def end_of(
    path: type[End], *rooms: str, hub: Hub | None = None, limits: Limits | None = None, **options: Any
) -> AsyncGenerator[End]:
    """Accept a connection, and let it join some rooms."""
    end = path(limits or Limits(), None, **options)
    hub = hub or Hub()
    async with gone(end.connection, hub=hub):
        await end.connection.accept(None, [])
        await hub.node.enter(end.connection)
        for room in rooms:
            await hub.join(end.connection, room)
        yield end


async def send(end: End, *texts: str) -> None:
    for text in texts:
        await end.connection.send(Said(text=text))


async def broadcast(hub: Hub, room: str, *texts: str, **options: Any) -> None:
    for text in texts:
        await hub.broadcast(room, Said(text=text), **options)


@each_path
async def test_nothing_comes_after_a_close(path: type[End]) -> None:
    """Whatever is sent after `close` was called, by anybody, is not; a second close does nothing."""
    hub = Hub()
    async with end_of(path, "a", hub=hub, user="ann") as end:
        await broadcast(hub, "a", "corked")
        await end.connection.close(4000, "first")
        await send(end, "sent")
        end.connection.reply(end.connection.encode(Said(text="reply")))
        await broadcast(hub, "a", "broadcast")
        await hub.send_to_user("ann", Said(text="for the user"))
        await end.connection.close(4001)
        await hub.disconnect_user("ann")
        await turns(5)
        assert end.seen() == ["corked", 4000]
        assert end.connection.closed == CloseInfo(4000, "first", "server")


@each_path
async def test_a_close_behind_what_waits(path: type[End]) -> None:
    """The close frame comes after what was sent before it, and `close` waits for it; nothing gets in between."""
    hub = Hub()
    async with end_of(path, "a", hub=hub, limits=Limits(close=60)) as end:
        end.stall()
        await broadcast(hub, "a", "1")
        await turns(3)
        sending = asyncio.create_task(send(end, "2"))
        await turns(3)
        await broadcast(hub, "a", "3")
        closing = asyncio.create_task(end.connection.close(4000))
        await turns(3)
        await broadcast(hub, "a", "4")
        await turns(3)
        assert not closing.done()
        assert not end.seen()
        end.read()
        await sending
        await closing
        assert end.seen() == ["1", "2", "3", 4000]


@each_path
async def test_a_close_that_is_not_taken(path: type[End]) -> None:
    """`close` of a client that does not read returns after `Limits.close` seconds."""
    async with end_of(path, limits=Limits(close=0.05)) as end:
        end.stall()
        sending = asyncio.create_task(send(end, "1"))
        await turns(3)
        async with asyncio.timeout(5):
            await end.connection.close(4000)
        await turns()
        if isinstance(end, DirectEnd):
            assert end.socket.aborted
        end.read()
        await sending


@each_path
@pytest.mark.parametrize("when", ["before", "first", "second"])
@pytest.mark.parametrize("how", ["turn_away", "disconnect_user"])
async def test_turned_away_around_accept(path: type[End], when: str, how: str) -> None:
    """Who is disconnected before accept is to be denied, and who is while it is under way gets the close frame."""
    hub = Hub()
    reached: asyncio.Queue[str] = asyncio.Queue()
    go = asyncio.Event()
    places = iter(["first", "second"])

    async def accepting() -> None:
        place = next(places)
        if place == when:
            reached.put_nowait(place)
            await go.wait()

    end = path(Limits(), accepting, user="ann")
    connection = end.connection

    async def disconnect() -> None:
        if how == "turn_away":
            connection.turn_away(4403, "banned")
        else:
            await hub.disconnect_user("ann", reason="banned")

    async with gone(connection, hub=hub):
        await hub.node.recognise(connection)
        if when == "before":
            await disconnect()
            assert connection.turned_away == CloseInfo(4403, "banned", "server")
            assert connection.closed is None
            return
        accept = asyncio.create_task(connection.accept(None, []))
        assert await reached.get() == when
        await disconnect()
        go.set()
        await accept
        await hub.node.enter(connection)
        await hub.send_to_user("ann", Said(text="too late"))
        await turns(3)
        assert connection.turned_away is None
        assert connection.closed == CloseInfo(4403, "banned", "server")
        assert end.seen() == [4403]


@each_path
async def test_sent_while_accept_is_under_way(path: type[End]) -> None:
    """What is sent before accept has returned comes after it, in order, and what follows behind it."""
    go = asyncio.Event()
    end = path(Limits(), go.wait)
    async with gone(end.connection):
        accept = asyncio.create_task(end.connection.accept(None, []))
        await turns()
        await send(end, "1")
        end.connection.reply(end.connection.encode(Said(text="2")))
        await send(end, "3")
        assert end.seen() == []
        go.set()
        await accept
        await send(end, "4")
        await turns(3)
        assert end.seen() == ["1", "2", "3", "4"]


@each_path
@pytest.mark.parametrize("closes", [False, True])
async def test_accept_that_fails(path: type[End], closes: bool) -> None:
    """Nothing goes on for a client that left meanwhile: no task, no timer, no frame."""

    async def accepting() -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError

    end = path(Limits(send=0.01, close=0.01), accepting)
    accept = asyncio.create_task(end.connection.accept(None, []))
    await turns()
    if closes:
        end.connection.turn_away(4000, "")
    else:
        await send(end, "1")
    with pytest.raises(ConnectionResetError):
        await accept
    await end.connection.aclose()
    await asyncio.sleep(0.03)
    await send(end, "2")
    assert end.seen() == []


@each_path
async def test_accept_that_is_not_taken(path: type[End]) -> None:
    """A server that does not take the accept within `Limits.send` seconds ends it."""
    end = path(Limits(send=0.01), asyncio.Event().wait)
    with pytest.raises(TimeoutError):
        await end.connection.accept(None, [])
    await end.connection.aclose()


@each_path
async def test_a_client_that_is_lost_while_much_waits(path: type[End]) -> None:
    """Senders that wait are released, what waits is forgotten, and nothing is tried any more."""
    hub = Hub()
    limits = Limits(outbox_frames=2, send=60, close=60)
    async with end_of(path, "a", hub=hub, limits=limits) as end:
        end.stall()
        senders = [asyncio.create_task(send(end, str(number))) for number in range(5)]
        await turns(3)
        await broadcast(hub, "a", "corked")
        assert not all(sender.done() for sender in senders)
        end.connection.lost(CloseInfo(1001))
        async with asyncio.timeout(5):
            if isinstance(end, PortableEnd):
                end.read()
            await asyncio.gather(*senders)
        await turns(3)
        assert end.connection.closed == CloseInfo(1001)
        assert end.connection.pending_bytes == (end.socket.buffered() if isinstance(end, DirectEnd) else 0)
        assert len(end.seen()) <= 1
        end.connection.lost(CloseInfo(1006))
        end.connection.start_close(4000, "")
        await end.connection.close()
        assert end.connection.closed == CloseInfo(1001)
        await turns(3)
        assert len(end.seen()) <= 1


@each_path
async def test_lost_while_it_resumes(path: type[End]) -> None:
    """A client that reads a little, and then is gone, ends in silence."""
    hub = Hub(rooms={"a": RoomOptions(overflow="drop_old")})
    async with end_of(path, "a", hub=hub, limits=Limits(outbox_frames=10)) as end:
        end.stall()
        await broadcast(hub, "a", *map(str, range(30)))
        await turns(3)
        if isinstance(end, DirectEnd):
            written = end.socket.write

            def write(data: bytes) -> None:
                written(data)
                end.connection.lost(CloseInfo(1006))

            end.socket.write = write
            end.read()
        else:
            end.read()
            end.connection.lost(CloseInfo(1006))
        await broadcast(hub, "a", "30")
        await turns(5)
        assert end.connection.closed == CloseInfo(1006)
        assert "30" not in end.seen()


@each_portable_path
async def test_cancelled_at_every_await(path: type[End]) -> None:
    """A send that is cancelled, wherever it waits, leaves what others send as it is: in order, once, and complete."""
    for suspends in range(4):
        for cancel_after in range(suspends + 2):
            for others in range(3):
                async with end_of(path, suspends=lambda count=suspends: count) as end:
                    await send(end, "first")
                    task = asyncio.create_task(send(end, "cancelled"))
                    rest = [asyncio.create_task(send(end, f"other {number}")) for number in range(others)]
                    await turns(1 + cancel_after)
                    task.cancel()
                    await asyncio.wait([task])
                    await send(end, "last")
                    await asyncio.gather(*rest)
                    await eventually(lambda: "last" in end.seen())
                    seen = end.seen()
                    assert seen.count("cancelled") <= 1
                    expected = ["first", *(f"other {number}" for number in range(others)), "last"]
                    if "cancelled" in seen:
                        assert seen.index("cancelled") == 1
                        seen.remove("cancelled")
                    assert seen == expected
                    await end.connection.close(4000)
                    assert end.seen()[-1] == 4000


@each_path
async def test_cancelled_while_it_waits_for_room(path: type[End]) -> None:
    """A cancellation does not take back what is queued, and does not disturb who else waits."""
    async with end_of(path, limits=Limits(outbox_frames=1, send=60)) as end:
        end.stall()
        tasks = [asyncio.create_task(send(end, str(number))) for number in range(4)]
        await turns(3)
        tasks[2].cancel()
        await turns(2)
        assert tasks[2].cancelled()
        assert not tasks[3].done()
        end.read()
        async with asyncio.timeout(5):
            await tasks[3]
        await turns(3)
        assert end.seen() == ["0", "1", "2", "3"]


@each_path
async def test_a_sender_that_waits_is_not_kept_by_a_release_and_another_stall(path: type[End]) -> None:
    """Whoever waits for room goes on as soon as there is some."""
    async with end_of(path, limits=Limits(outbox_frames=2, send=60)) as end:
        for round in range(3):
            end.stall()
            tasks = [asyncio.create_task(send(end, f"{round} {number}")) for number in range(6)]
            await turns(3)
            end.read()
            async with asyncio.timeout(5):
                await asyncio.gather(*tasks)
        await turns(3)
        assert end.seen() == [f"{round} {number}" for round in range(3) for number in range(6)]


@each_path
async def test_a_sender_waits_for_so_long(path: type[End]) -> None:
    """After `Limits.send` seconds the client is taken for gone: what waits is dropped, and 4508 comes next."""
    async with end_of(path, limits=Limits(outbox_frames=2, send=0.05, close=0.05)) as end:
        end.stall()
        async with asyncio.timeout(5):
            await asyncio.gather(*(send(end, str(number)) for number in range(4)))
        assert end.connection.closed == CloseInfo(4508, "slow consumer", "server")
        if isinstance(end, PortableEnd):
            end.read()
        await turns(5)
        assert end.seen()[-1] == 4508


@each_path
async def test_an_answer_that_nobody_waits_for(path: type[End]) -> None:
    """A client that does not read its answers is closed when they fill the outbox."""
    async with end_of(path, limits=Limits(outbox_frames=3)) as end:
        end.stall()
        for number in range(6):
            end.connection.reply(end.connection.encode(Said(text=str(number))))
            await turns(2)
        assert end.connection.closed == CloseInfo(4508, "slow consumer", "server")


@pytest.mark.parametrize("exception", [OSError, ConnectionResetError, RuntimeError])
@pytest.mark.parametrize("place", ["own", "writer"])
@each_server
async def test_a_send_that_finds_nobody(server: Wrap, exception: type[Exception], place: str) -> None:
    """The client is taken for gone, in silence; nothing is tried again, and senders are not told."""
    tried = 0

    async def asgi_send(event: Event) -> None:
        nonlocal tried
        if event["type"] == "websocket.accept":
            return
        tried += 1
        if place == "writer":
            await asyncio.sleep(0)
        raise exception

    hub = Hub()
    connection = portable(server(asgi_send))
    async with gone(connection, hub=hub):
        await connection.accept(None, [])
        await hub.node.enter(connection)
        await hub.join(connection, "a")
        if place == "own":
            await connection.send(Said(text="1"))
        else:
            await broadcast(hub, "a", "1", "2")
            await turns(5)
        assert connection.closed == CloseInfo(1006)
        await connection.send(Said(text="3"))
        await broadcast(hub, "a", "4")
        await connection.close()
        await turns(5)
        assert tried == 1


class Told:
    """Counts how often a connection says that it ends."""

    def __init__(self) -> None:
        self.times = 0

    def closing(self) -> None:
        self.times += 1


@pytest.mark.logs_errors
@pytest.mark.parametrize("place", ["own", "writer"])
@each_server
async def test_a_send_that_fails_for_another_reason(server: Wrap, place: str) -> None:
    """A mistake in a middleware that wraps `send` is logged, and closes with 1011."""
    events: list[Event] = []

    async def asgi_send(event: Event) -> None:
        events.append(event)
        if event["type"] == "websocket.send":
            raise KeyError("mistake")

    hub = Hub()
    owner = Told()
    connection = portable(server(asgi_send), owner=owner)
    async with gone(connection, hub=hub):
        await connection.accept(None, [])
        await hub.node.enter(connection)
        await hub.join(connection, "a")
        if place == "own":
            await connection.send(Said(text="1"))
        else:
            await broadcast(hub, "a", "1", "2")
        await turns(5)
        assert [event["type"] for event in events] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert events[-1]["code"] == 1011
        assert owner.times == 1


@pytest.mark.logs_errors
async def test_a_text_that_is_none() -> None:
    """A lone surrogate that a raw handler sends is logged, and closes with 1011; elsewhere the server says so."""
    async with end_of(DirectEnd) as end:
        await send(end, "1")
        await end.connection.write("\ud800")
        assert end.seen() == ["1", 1011]


@each_portable_path
async def test_a_writer_that_is_busy_when_the_connection_ends(path: type[End]) -> None:
    """The end of a session does not wait for a server that never takes what it was given."""
    hub = Hub()
    async with end_of(path, "a", hub=hub, limits=Limits(send=60, close=0.05)) as end:
        end.stall()
        await broadcast(hub, "a", "1")
        await turns(3)
        async with asyncio.timeout(5):
            await end.connection.close()


@each_path
@pytest.mark.parametrize("end_it", ["lost", "close", "aclose", "none"])
async def test_the_end_right_after_a_publication_that_waits(path: type[End], end_it: str) -> None:
    """A publication that the server does not take at once, and the end in the same turn: nothing is left of either."""
    hub = Hub()
    async with end_of(path, "a", "b", hub=hub) as end:
        end.stall()
        await broadcast(hub, "a", "1", "2")
        await broadcast(hub, "b", "3")
        end.connection.flush()
        if end_it == "lost":
            end.connection.lost(CloseInfo(1006))
        elif end_it == "close":
            end.connection.start_close(4000, "")
        elif end_it == "aclose":
            await end.connection.aclose()
        await broadcast(hub, "a", "late")
        await turns(1)
        end.read()
        await turns(6)
        seen = end.seen()
        if end_it == "close":
            assert seen == ["1", "2", "3", 4000]
        elif end_it == "none":
            assert seen == ["1", "2", "3", "late"]
        else:
            assert set(seen) <= {"1"}


@pytest.mark.parametrize("seed", range(60))
@each_path
async def test_everything_at_random(path: type[End], seed: int) -> None:
    """Each client sees what it was sent in the order in which it was sent, nothing twice, nothing lost.

    Several tasks at once send, broadcast to two rooms and to users, exclude, join, leave, stall, read and close.
    """
    chance = random.Random(seed)
    hub = Hub()
    number = 0
    options: dict[str, Any] = {} if path is DirectEnd else {"suspends": lambda: chance.choice([0, 0, 0, 1, 3])}
    ends = [
        path(Limits(outbox_frames=10**6, outbox_bytes=10**9, send=600), None, user=f"u{each % 2}", **options)
        for each in range(4)
    ]
    expected: dict[str, list[Any]] = {end.connection.id: [] for end in ends}
    by_id = {end.connection.id: end for end in ends}

    def note(text: Any, ids: list[str]) -> None:
        for id in ids:
            if by_id[id].connection.closed is None:
                expected[id].append(text)

    async def act() -> None:
        nonlocal number
        for _ in range(60):
            end = chance.choice(ends)
            connection = end.connection
            room = chance.choice("ab")
            members = [each.connection.id for each in ends if room in each.connection.rooms]
            number += 1
            text = str(number)
            deed = chance.random()
            if deed < 0.25:
                note(text, members)
                await broadcast(hub, room, text)
            elif deed < 0.35:
                excluded = chance.sample(list(expected), chance.randrange(1, 4))
                note(text, [id for id in members if id not in excluded])
                await broadcast(hub, room, text, exclude=excluded)
            elif deed < 0.45:
                note(text, [each.connection.id for each in ends if each.connection.user_id == "u0"])
                await hub.send_to_user("u0", Said(text=text))
            elif deed < 0.60:
                note(text, [connection.id])
                await send(end, text)
            elif deed < 0.65:
                note(text, [connection.id])
                connection.reply(connection.encode(Said(text=text)))
            elif deed < 0.75:
                await (hub.leave if room in connection.rooms else hub.join)(connection, room)
            elif deed < 0.80:
                end.stall()
            elif deed < 0.90:
                end.read()
            elif deed < 0.905:
                note(4000, [connection.id])
                connection.start_close(4000, "")
            else:
                await turns(chance.randrange(3))

    async with gone(*(end.connection for end in ends), hub=hub):
        for end in ends:
            await end.connection.accept(None, [])
            await hub.node.enter(end.connection)
        tasks = [asyncio.create_task(act()) for _ in range(4)]
        while not all(task.done() for task in tasks):
            await turns(3)
            if chance.random() < 0.05:
                for end in ends:
                    end.read()
        await asyncio.gather(*tasks)
        for end in ends:
            end.read()
        await eventually(lambda: {end.connection.id: end.seen() for end in ends} == expected, what="all was seen")
