"""What clients of rooms with history get when they come back, on both ways to a socket."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.envelopes import receive, send
from tests.support import Server, connect, eventually, serve, vanish
from wsrouter import (
    Connection,
    Deny,
    History,
    Hub,
    Limits,
    Message,
    Position,
    RoomOptions,
    WebSocketHandler,
    WebSocketRouter,
    on,
)

KIB: Final = 1024
ROOM: Final = "feed:tea"


class News(Message):
    number: int
    text: str = ""


@pytest.fixture(params=["websockets-sansio", "wsrouter.uvicorn:WebSocketProtocol"], ids=["portable", "direct"])
def ws(request: pytest.FixtureRequest) -> str:
    """Return uvicorn's option for each way that a connection has to its socket."""
    way: str = request.param
    return way


@dataclass
class User:
    id: str


async def user_of(connection: Connection, name: str = "") -> None:
    """Believe everybody."""
    if name:
        connection.scope["user"] = User(name)


class Feed(WebSocketHandler):
    """Joins by itself, with the position of the handshake."""

    def __init__(self, since: Position | None = None) -> None:
        self.since = since

    async def on_connect(self) -> None:
        await self.join(ROOM, since=self.since)


class Asking(WebSocketHandler):
    """Joins when it is asked to."""

    client_rooms = ["feed:*"]
    max_in_flight = 4

    async def on_join(self, room: str) -> None:
        if room == "feed:secret":
            raise Deny(403)

    @on("ping")
    async def ping(self, payload: None) -> None: ...


def history(size: int = 100, ttl: float = 300) -> Hub:
    """Return a hub whose feeds have a history."""
    return Hub(rooms={"feed:*": RoomOptions(history=History(size=size, ttl=ttl))})


@asynccontextmanager
async def served(hub: Hub, ws: str, *handlers: type[WebSocketHandler], **limits: Any) -> AsyncGenerator[Server]:
    """Serve handlers, each at its name in lower case."""
    router = WebSocketRouter(hub=hub, guards=[user_of], limits=Limits(**limits))
    for handler in handlers:
        router.add_handler(f"/{handler.__name__.lower()}", handler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app, ws=ws) as server:
        yield server


@dataclass
class Client:
    """A client of one room that keeps its position as the page on recovery tells it to, and checks what it gets."""

    epoch: str = ""
    offset: int = 0
    to_come: int = 0
    """How many are still replayed."""
    numbers: list[int] = field(default_factory=list[int])
    """The numbers of all news that it got."""
    answers: list[bool] = field(default_factory=list[bool])
    """What each join was answered: whether it recovered."""

    @property
    def since(self) -> str:
        return f"{self.epoch}:{self.offset}"

    def get(self, frame: dict[str, Any]) -> None:
        """Take one frame in."""
        if frame["type"] == "$joined":
            data = frame["data"]
            self.answers.append(data["recovered"])
            if data["recovered"]:
                assert (data["epoch"], data["offset"]) == (self.epoch, self.offset), "it recovers from where it stands"
            else:
                assert data["count"] == 0, "never a part"
            self.epoch, self.offset, self.to_come = data["epoch"], data["offset"], data["count"]
        elif "offset" in frame:
            assert frame["room"] == ROOM
            assert frame["offset"] == self.offset + 1, "no hole, and nothing twice"
            self.offset += 1
            self.to_come -= 1
            if frame["type"] == "news":
                self.numbers.append(frame["data"]["number"])

    async def read(self, ws: ClientConnection, *, until: int) -> None:
        """Read until it stands at an offset."""
        while self.offset < until:
            self.get(await receive(ws))


async def publish(hub: Hub, numbers: Iterable[int], size: int = 0, **options: Any) -> None:
    """Publish some news."""
    for number in numbers:
        await hub.broadcast(ROOM, News(number=number, text="x" * size), **options)


async def quiet(ws: ClientConnection) -> None:
    """Check that nothing has come, by an answer that comes before anything else."""
    await send(ws, "ping", id="quiet")
    assert await receive(ws) == {"type": "$ok", "id": "quiet"}


async def test_a_join_is_answered_and_publications_have_offsets(ws: str) -> None:
    """`$joined` says where the client stands; what is published from then on is numbered from there."""
    hub = history()
    async with served(hub, ws, Feed) as server:
        await publish(hub, [1, 2])
        async with connect(server, "/feed") as client:
            joined = await receive(client)
            epoch = joined["data"].pop("epoch")
            assert epoch
            assert joined == {
                "type": "$joined",
                "room": ROOM,
                "data": {"offset": 2, "recovered": False, "count": 0},
            }
            await publish(hub, [3])
            assert await receive(client) == {
                "type": "news",
                "room": ROOM,
                "offset": 3,
                "data": {"number": 3, "text": ""},
            }


async def test_what_was_missed_follows(ws: str) -> None:
    """A client that comes back gets all that it missed, in order, and then what is published."""
    hub = history()
    client = Client()
    async with served(hub, ws, Feed) as server:
        async with connect(server, "/feed") as first:
            client.get(await receive(first))
            await publish(hub, [1, 2])
            await client.read(first, until=2)
        await publish(hub, [3, 4, 5])
        async with connect(server, f"/feed?since={client.since}") as second:
            client.get(await receive(second))
            assert client.to_come == 3
            await publish(hub, [6])
            await client.read(second, until=6)
        assert client.to_come == -1
        async with connect(server, f"/feed?since={client.since}") as third:
            client.get(await receive(third))
            assert client.to_come == 0
    assert client.answers == [False, True, True]
    assert client.numbers == [1, 2, 3, 4, 5, 6]


NO_POSITIONS = """
    nonsense : EPOCH EPOCH: EPOCH:-1 EPOCH:01 EPOCH:1.0 EPOCH:3 EPOCH:99999999999999999999
    other:1 %20EPOCH:1 EPOCH:1%0A EPOCH:1:1 epöch:1 EPOCH:%D9%A1
"""


@pytest.mark.parametrize("since", ["", *NO_POSITIONS.split()])
async def test_what_is_no_position_of_ours_does_not_recover(since: str) -> None:
    """A position that is malformed, of another stream or ahead of this one is `recovered:false`, not a denial."""
    hub = history()
    async with served(hub, "websockets-sansio", Feed, Asking) as server:
        await publish(hub, [1, 2])
        async with connect(server, "/feed") as first:
            epoch = (await receive(first))["data"]["epoch"]
        since = since.replace("EPOCH", epoch)
        async with connect(server, f"/feed?since={since}") as second:
            joined = await receive(second)
            assert joined["data"] == {"epoch": epoch, "offset": 2, "recovered": False, "count": 0}


async def test_a_client_joins_with_its_position(ws: str) -> None:
    """`since` of a `$join` is the position; the reply comes behind what was missed."""
    hub = history()
    async with served(hub, ws, Asking) as server, connect(server, "/asking") as client:
        await publish(hub, [1])
        await send(client, "$join", {"room": ROOM}, id=1)
        joined = await receive(client)
        epoch = joined["data"]["epoch"]
        assert (await receive(client)) == {"type": "$ok", "id": 1}
        await send(client, "$join", {"room": ROOM, "since": f"{epoch}:0"}, id=2)
        assert (await receive(client)) == {"type": "$ok", "id": 2}, "who is a member is not answered again"
        await send(client, "$leave", {"room": ROOM}, id=3)
        assert (await receive(client)) == {"type": "$ok", "id": 3}
        await publish(hub, [2, 3])
        await send(client, "$join", {"room": ROOM, "since": f"{epoch}:1"}, id=4)
        joined = await receive(client)
        assert joined["data"] == {"epoch": epoch, "offset": 1, "recovered": True, "count": 2}
        assert [(await receive(client)).get("offset") for _ in range(2)] == [2, 3]
        assert (await receive(client)) == {"type": "$ok", "id": 4}
        await publish(hub, [4])
        assert (await receive(client))["offset"] == 4


@pytest.mark.parametrize("since", [1, {}, ["a:1"], True])
async def test_a_since_that_is_no_text_is_invalid(since: Any) -> None:
    """A `$join` is validated as any message: then nothing is joined."""
    hub = history()
    async with served(hub, "websockets-sansio", Asking) as server, connect(server, "/asking") as client:
        await send(client, "$join", {"room": ROOM, "since": since}, id=1)
        assert (await receive(client))["error"]["code"] == "invalid"
        assert hub.rooms == {}


async def test_a_publisher_that_never_stops(ws: str) -> None:
    """Whenever clients come and go, each gets exactly what it missed and then what is live, without a hole."""
    hub = history()
    clients = [Client() for _ in range(5)]
    published = 0

    async def publish_on() -> None:
        nonlocal published
        while True:
            published += 1
            await hub.broadcast(ROOM, News(number=published))
            await asyncio.sleep(0.0005)

    async def come_and_go(client: Client, server: Server) -> None:
        for visit in range(6):
            async with connect(server, f"/feed?since={client.since}", compression=None) as socket:
                client.get(await receive(socket))
                await client.read(socket, until=client.offset + max(0, client.to_come) + 1 + 7 * (visit % 2))
                if visit % 3 == 0:
                    await vanish(socket)

    async with served(hub, ws, Feed) as server:
        publisher = asyncio.create_task(publish_on())
        try:
            async with asyncio.timeout(20):
                await asyncio.gather(*(come_and_go(client, server) for client in clients))
        finally:
            publisher.cancel()
            with suppress(asyncio.CancelledError):
                await publisher
        await eventually(lambda: hub.rooms == {})
    for client in clients:
        assert client.answers[0] is False
        first = client.numbers[0]
        if all(client.answers[1:]):
            assert client.numbers == [*range(first, first + len(client.numbers))]
    assert sum(client.answers.count(True) for client in clients) > 10, "most came back in time"


@asynccontextmanager
async def reluctant(server: Server, path: str) -> AsyncGenerator[ClientConnection]:
    """Connect as a client that reads little unless it is asked to, and vanishes at the end."""
    options: Any = {"max_queue": 1, "compression": None, "ping_interval": None, "close_timeout": 1}
    async with connect(server, path, **options) as socket:
        yield socket
        if socket.close_code is None:
            await vanish(socket)


async def test_lost_amid_a_replay(ws: str) -> None:
    """Who is lost again after a part of what was missed has the position of the last frame, and goes on from there."""
    hub = history()
    client = Client()
    async with served(hub, ws, Feed) as server:
        async with connect(server, "/feed") as first:
            client.get(await receive(first))
        await publish(hub, range(1, 81), 150 * KIB)
        for until in 1, 2, 30, 31:
            async with reluctant(server, f"/feed?since={client.since}") as socket:
                client.get(await receive(socket))
                assert client.to_come == 80 - client.offset
                await client.read(socket, until=until)
        async with connect(server, f"/feed?since={client.since}", compression=None) as last:
            await client.read(last, until=80)
    assert client.answers == [False, True, True, True, True, True]
    assert client.numbers == [*range(1, 81)]


async def test_who_is_excluded_gets_a_skip(ws: str) -> None:
    """A `$skip` has the offset of what is not for this client: live for connections and users, replayed for users."""
    hub = history()
    ada, bob = Client(), Client()
    async with served(hub, ws, Feed) as server:
        async with connect(server, "/feed?name=ada") as a, connect(server, "/feed?name=bob") as b:
            ada.get(await receive(a))
            bob.get(await receive(b))
            ids = {each.user_id: each.id for each in hub.connections.values()}
            await publish(hub, [1])
            await publish(hub, [2], exclude=ids["ada"])
            await publish(hub, [3], exclude_users="ada")
            await publish(hub, [4], exclude_users=["ada", "bob", "nobody"])
            await publish(hub, [5])
            frames = [await receive(a) for _ in range(5)]
            assert frames[1] == {"type": "$skip", "room": ROOM, "offset": 2}
            for frame in frames:
                ada.get(frame)
            await bob.read(b, until=5)
        assert ada.numbers == [1, 5]
        assert bob.numbers == [1, 2, 3, 5]
        await publish(hub, [6], exclude=ids["ada"])
        await publish(hub, [7], exclude_users=["ada"])
        await publish(hub, [8])
        async with connect(server, f"/feed?name=ada&since={ada.epoch}:1") as a:
            ada = Client(ada.epoch, 1)
            ada.get(await receive(a))
            assert ada.to_come == 7
            await ada.read(a, until=8)
            # It has another id now: what was not for the connection that it had is for this one.
            assert ada.numbers == [2, 5, 6, 8]
        async with connect(server, f"/feed?since={bob.since}") as nobody:
            bob.get(await receive(nobody))
            await bob.read(nobody, until=8)
            assert bob.numbers == [1, 2, 3, 5, 6, 7, 8]


async def test_too_slow_and_back(ws: str) -> None:
    """A member that does not read is closed with 4508, and recovers the rest with its position."""
    hub = history()
    client = Client()
    async with served(hub, ws, Feed, outbox_bytes=256 * KIB) as server:
        async with reluctant(server, "/feed") as slow:
            client.get(await receive(slow))
            await publish(hub, range(1, 81), 150 * KIB)
            await eventually(lambda: hub.rooms == {}, timeout=5)
            with suppress(ConnectionClosed):
                while True:
                    client.get(await receive(slow))
        assert hub.stats().slow == 1
        assert client.offset < 80
        await publish(hub, [81])
        async with connect(server, f"/feed?since={client.since}", compression=None) as fast:
            await client.read(fast, until=81)
    assert client.answers == [False, True]
    assert client.numbers == [*range(1, 82)]


@pytest.mark.parametrize(
    ("size", "missed", "recovered"),
    [(5, 5, True), (5, 6, False), (1000, 300, True), (1000, 301, False), (1, 1, True), (1, 2, False)],
)
async def test_only_what_is_kept_is_recovered(size: int, missed: int, recovered: bool) -> None:
    """Of a room `size` publications are kept, and one recovery has 300 at most: everything, or nothing."""
    hub = history(size)
    async with served(hub, "websockets-sansio", Feed) as server:
        client = Client()
        async with connect(server, "/feed") as first:
            client.get(await receive(first))
        await publish(hub, range(missed))
        async with connect(server, f"/feed?since={client.since}") as second:
            client.get(await receive(second))
            await publish(hub, [-1])
            await client.read(second, until=missed + 1)
    assert client.answers == [False, recovered]
    assert client.numbers == ([*range(missed), -1] if recovered else [-1])


async def test_what_is_old_is_not_recovered() -> None:
    """A publication is kept for `ttl` seconds: who missed an older one can't recover, who did not can."""
    hub = history(ttl=0.15)
    async with served(hub, "websockets-sansio", Feed) as server, connect(server, "/feed") as stays:
        client = Client()
        client.get(await receive(stays))
        epoch = client.epoch
        await publish(hub, [1])
        await client.read(stays, until=1)
        await asyncio.sleep(0.2)
        for offset, recovered in (0, False), (1, True):
            async with connect(server, f"/feed?since={epoch}:{offset}") as back:
                joined = await receive(back)
                assert joined["data"] == {"epoch": epoch, "offset": 1, "recovered": recovered, "count": 0}


async def test_a_forgotten_room_has_another_epoch() -> None:
    """A room without members in which nobody publishes is forgotten after `ttl`; with a member it is not."""
    hub = history(ttl=0.1)
    async with served(hub, "websockets-sansio", Feed) as server:
        async with connect(server, "/feed") as first, connect(server, "/feed") as second:
            epoch = (await receive(first))["data"]["epoch"]
            assert (await receive(second))["data"]["epoch"] == epoch
            await publish(hub, [1])
            assert (await receive(first))["offset"] == 1
            await first.close()
            await eventually(lambda: hub.rooms == {ROOM: 1})
            await asyncio.sleep(0.3)
            async with connect(server, f"/feed?since={epoch}:1") as back:
                assert (await receive(back))["data"] == {"epoch": epoch, "offset": 1, "recovered": True, "count": 0}
        await eventually(lambda: hub.rooms == {})
        await asyncio.sleep(0.3)
        async with connect(server, f"/feed?since={epoch}:1") as late:
            data = (await receive(late))["data"]
            assert data["epoch"] != epoch
            assert data == {"epoch": data["epoch"], "offset": 0, "recovered": False, "count": 0}


async def test_leaving_in_on_disconnect_is_not_leaving_twice() -> None:
    """A connection that ends has left; a handler that leaves once more takes nothing away from those who stay."""

    class Leaving(Feed):
        async def on_disconnect(self) -> None:
            await self.leave(ROOM)

    hub = history(ttl=0.1)
    async with served(hub, "websockets-sansio", Leaving) as server, connect(server, "/leaving") as stays:
        epoch = (await receive(stays))["data"]["epoch"]
        async with connect(server, "/leaving") as goes:
            assert (await receive(goes))["data"]["epoch"] == epoch
        await eventually(lambda: hub.stats().connections == 1)
        await asyncio.sleep(0.3)
        await publish(hub, [1])
        assert (await receive(stays))["offset"] == 1
        async with connect(server, f"/leaving?since={epoch}:0") as back:
            data = (await receive(back))["data"]
            assert data == {"epoch": epoch, "offset": 0, "recovered": True, "count": 1}


async def test_who_may_not_join_reads_no_history(ws: str) -> None:
    """Neither a guard that denies nor an `on_join` that does lets anything of the room out."""

    async def nobody() -> None:
        raise Deny(403)

    class Closed(Feed):
        guards = [Depends(nobody)]

    hub = history()
    async with served(hub, ws, Closed, Asking) as server:
        await hub.broadcast("feed:secret", News(number=1))
        async with connect(server, "/asking") as client:
            await send(client, "$join", {"room": "feed:secret", "since": "x:0"}, id=1)
            answer = await receive(client)
            assert (answer["type"], answer["error"]["code"]) == ("$error", "forbidden")
            await quiet(client)
            assert hub.rooms == {}


async def test_a_slow_joiner_holds_nobody_up(ws: str) -> None:
    """While a client does not read its replay everybody else gets everything, and it is closed with 4508."""
    hub = history()
    client = Client()
    async with (
        served(hub, ws, Feed, outbox_bytes=512 * KIB, send=1.0) as server,
        connect(server, "/feed", compression=None) as fast,
    ):
        client.get(await receive(fast))
        for number in range(1, 81):
            await publish(hub, [number], 150 * KIB)
            await client.read(fast, until=number)
        async with reluctant(server, f"/feed?since={client.epoch}:0") as slow:
            assert (await receive(slow))["data"]["count"] == 80
            async with asyncio.timeout(3):
                await publish(hub, range(81, 181), 1 * KIB)
                await client.read(fast, until=180)
            await eventually(lambda: hub.stats().slow == 1, timeout=5)
            await eventually(lambda: hub.rooms == {ROOM: 1}, timeout=5)
    assert client.numbers == [*range(1, 181)]


@pytest.mark.parametrize(("number", "size"), [(40, 0), (6, 100 * KIB)], ids=["frames", "bytes"])
async def test_what_waits_for_a_joiner_is_bounded(ws: str, number: int, size: int) -> None:
    """What is published while somebody reads its replay waits as in an outbox: by frames and by bytes, then 4508."""
    hub = history()
    limits = {"outbox_frames": 32, "outbox_bytes": 512 * KIB}
    async with served(hub, ws, Feed, send=2, **limits) as server:
        client = Client()
        async with connect(server, "/feed") as first:
            client.get(await receive(first))
        await publish(hub, range(1, 61), 250 * KIB)
        async with reluctant(server, f"/feed?since={client.since}") as slow:
            client.get(await receive(slow))
            assert (hub.rooms, hub.stats().slow) == ({}, 0)
            await publish(hub, range(61, 61 + number), size)
            assert hub.stats().slow == 1
            await eventually(lambda: hub.stats().connections == 0, timeout=5)
        async with connect(server, f"/feed?since={client.since}", compression=None) as fast:
            await client.read(fast, until=60 + number)
    assert client.numbers == [*range(1, 61 + number)]
