"""Rooms, users and broadcast, from handlers, HTTP routes and plain coroutines, over real sockets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio.from_thread
import httpx
import pytest
from starlette.authentication import BaseUser, UnauthenticatedUser
from websockets.asyncio.client import ClientConnection

from tests.envelopes import app_of, client_of, close_of, receive, send
from tests.support import Server, connect, eventually, serve
from wsrouter import Connection, Hub, Limits, Message, RoomOptions, WebSocketHandler, on
from wsrouter.stats import HubStats


class Said(Message):
    text: str


@dataclass
class User:
    id: str | int


class Identified(BaseUser):
    """A user as Starlette's own authentication has it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def identity(self) -> str:
        return self.name


async def log_in(connection: Connection) -> None:
    """Take the user's name from the query."""
    if user := connection.query_params.get("user"):
        connection.scope["user"] = User(user)
    elif identity := connection.query_params.get("identity"):
        connection.scope["user"] = Identified(identity)
    elif "nobody" in connection.query_params:
        connection.scope["user"] = UnauthenticatedUser()


class Member(WebSocketHandler):
    """Does with rooms what its client asks for."""

    guards = [log_in]

    async def on_connect(self) -> None:
        for room in self.connection.query_params.getlist("room"):
            await self.join(room)

    @on("join")
    async def enter(self, message: str) -> list[str]:
        await self.join(message)
        return sorted(self.connection.rooms)

    @on("leave")
    async def go(self, message: str) -> list[str]:
        await self.leave(message)
        return sorted(self.connection.rooms)

    @on("tell")
    async def tell(self, message: list[str]) -> None:
        await self.broadcast(message[0], Said(text=message[1]))

    @on("tell others")
    async def tell_others(self, message: list[str]) -> str:
        await self.broadcast(message[0], Said(text=message[1]), exclude=self.connection.id)
        return "told"

    @on("id")
    async def id(self, message: None) -> str:
        return self.connection.id


class Hall:
    """A served hub, and the clients that are connected to it."""

    def __init__(self, hub: Hub, server: Server, clients: AsyncExitStack) -> None:
        self.hub = hub
        self.server = server
        self._clients = clients

    async def enter(self, query: str = "") -> ClientConnection:
        """Connect a client, and wait until it is in its rooms."""
        ws = await self._clients.enter_async_context(connect(self.server, f"/?{query}"))
        await send(ws, "id", id="id")
        await receive(ws)
        return ws


@asynccontextmanager
async def hall(**options: Any) -> AsyncGenerator[Hall]:
    """Serve a hub."""
    hub = Hub()
    async with serve(app_of(Member, hub=hub, **options)) as server, AsyncExitStack() as clients:
        yield Hall(hub, server, clients)


async def says(ws: ClientConnection, *texts: str) -> None:
    """Check that these messages come next, in this order."""
    for text in texts:
        assert (await receive(ws))["data"] == {"text": text}


async def nothing_came(ws: ClientConnection) -> None:
    """Check that nothing has been sent to a client."""
    await send(ws, "id", id="probe")
    assert (await receive(ws))["id"] == "probe"


async def test_a_broadcast_reaches_the_members() -> None:
    """Every member gets it once, with the name of the room, and nobody else does."""
    async with hall() as here:
        one, two = await here.enter("room=a"), await here.enter("room=a&room=b")
        elsewhere, nowhere = await here.enter("room=b"), await here.enter()
        await here.hub.broadcast("a", Said(text="hi"))
        for ws in one, two:
            assert await ws.recv() == '{"type":"said","room":"a","data":{"text":"hi"}}'
        for ws in one, two, elsewhere, nowhere:
            await nothing_came(ws)
        await here.hub.broadcast("nobody is here", Said(text="hi"))


async def test_broadcast_from_a_handler() -> None:
    """A handler's broadcast reaches its own client too, if that is a member."""
    async with hall() as here:
        one, two, outside = await here.enter("room=a"), await here.enter("room=a"), await here.enter()
        await send(one, "tell", ["a", "from a member"])
        await says(one, "from a member")
        await says(two, "from a member")
        await send(outside, "tell", ["a", "from outside"], id=1)
        assert await receive(outside) == {"type": "$ok", "id": 1}
        await says(one, "from outside")
        await says(two, "from outside")


async def test_exclude() -> None:
    """Connections that are excluded by their id get nothing: one, or several."""
    async with hall() as here:
        clients = [await here.enter("room=a") for _ in range(3)]
        await send(clients[0], "tell others", ["a", "others"], id=1)
        await says(clients[1], "others")
        await says(clients[2], "others")
        assert (await receive(clients[0]))["data"] == "told"
        ids: list[str] = []
        for ws in clients[1:]:
            await send(ws, "id")
            ids.append((await receive(ws))["data"])
        await here.hub.broadcast("a", Said(text="first only"), exclude=ids)
        await here.hub.broadcast("a", Said(text="all"), exclude=["somebody else"])
        await says(clients[0], "first only", "all")
        for ws in clients[1:]:
            await says(ws, "all")


async def test_membership() -> None:
    """To join twice is to be in once; who has left gets nothing; to leave where one is not does nothing."""
    async with hall() as here:
        ws = await here.enter()
        for _ in range(2):
            await send(ws, "join", "a")
            assert (await receive(ws))["data"] == ["a"]
        assert here.hub.rooms == {"a": 1}
        await here.hub.broadcast("a", Said(text="once"))
        await says(ws, "once")
        for _ in range(2):
            await send(ws, "leave", "a")
            assert (await receive(ws))["data"] == []
        assert here.hub.rooms == {}
        await here.hub.broadcast("a", Said(text="too late"))
        await send(ws, "join", "a")
        assert (await receive(ws))["data"] == ["a"]
        await here.hub.broadcast("a", Said(text="again"))
        await says(ws, "again")


async def test_membership_ends_with_the_connection() -> None:
    """However a client goes, it is a member of nothing then; `on_disconnect` still sees which rooms it was in."""
    rooms: list[frozenset[str]] = []
    hub = Hub()

    class Leaving(Member):
        async def on_disconnect(self) -> None:
            assert self.connection.id not in hub.connections
            rooms.append(self.connection.rooms)
            await self.broadcast("a", Said(text="left"))

    async with serve(app_of(Leaving, hub=hub)) as server, connect(server, "/?room=a") as stays:
        for leave in "close", "abort":
            ws = await connect(server, "/?room=a&room=b&user=ann")
            await eventually(lambda: hub.rooms == {"a": 2, "b": 1})
            assert hub.stats().users == 1
            await ws.close() if leave == "close" else ws.transport.abort()
            await says(stays, "left")
            assert hub.rooms == {"a": 1}
            assert hub.stats().users == 0
    assert rooms == [frozenset({"a", "b"})] * 2 + [frozenset({"a"})]
    assert hub.stats().connections == 0


@pytest.mark.parametrize(
    ("room", "code", "message"),
    [
        ("", "invalid", "The name of a room has 1 to 255 bytes"),
        ("x" * 256, "invalid", "The name of a room has 1 to 255 bytes"),
        ("é" * 128, "invalid", "The name of a room has 1 to 255 bytes"),
        ("x" * 255, None, None),
        ("é" * 127, None, None),
        ("a b/../*\0\n", None, None),
    ],
    ids=["empty", "256 bytes", "256 bytes of two", "255 bytes", "254 bytes of two", "odd"],
)
async def test_the_name_of_a_room(room: str, code: str | None, message: str | None) -> None:
    """A name has 1 to 255 bytes of UTF-8, whatever they are."""
    async with client_of(Member) as ws:
        await send(ws, "join", room, id=1)
        answer = await receive(ws)
        if code is None:
            assert answer["data"] == [room]
        else:
            assert answer["error"] == {"code": code, "message": message, "retry": False}


async def test_how_many_rooms() -> None:
    """A connection is in 128 rooms at most, and room is made by leaving one."""
    async with client_of(Member) as ws:
        for number in range(128):
            await send(ws, "join", str(number))
            assert len((await receive(ws))["data"]) == number + 1
        await send(ws, "join", "one more", id=1)
        assert (await receive(ws))["error"]["code"] == "conflict"
        await send(ws, "join", "7", id=2)
        assert len((await receive(ws))["data"]) == 128
        await send(ws, "leave", "7", id=3)
        await receive(ws)
        await send(ws, "join", "one more", id=4)
        assert "one more" in (await receive(ws))["data"]


async def test_limits_of_rooms_are_the_routers() -> None:
    """How many rooms, and how long a name, is set as every other limit."""
    async with client_of(Member, limits=Limits(rooms=1, name_bytes=3)) as ws:
        await send(ws, "join", "four")
        assert (await receive(ws))["error"]["message"] == "The name of a room has 1 to 3 bytes"
        await send(ws, "join", "a")
        assert (await receive(ws))["data"] == ["a"]
        await send(ws, "join", "b")
        assert (await receive(ws))["error"]["code"] == "conflict"


async def test_send_to_user() -> None:
    """Every device of a user gets it, without a room; other users get nothing."""
    async with hall() as here:
        phone, desk, bob = await here.enter("user=ann"), await here.enter("user=ann"), await here.enter("user=bob")
        await here.hub.send_to_user("ann", Said(text="hi"))
        await here.hub.send_to_user("carol", Said(text="nobody"))
        for ws in phone, desk:
            assert await ws.recv() == '{"type":"said","data":{"text":"hi"}}'
        await nothing_came(bob)


async def test_disconnect_user() -> None:
    """Every device of a user is closed, with code and reason, and is gone from the rooms; other users stay."""
    async with hall() as here:
        ann = [await here.enter("user=ann&room=a") for _ in range(2)]
        bob = await here.enter("user=bob&room=a")
        await here.hub.disconnect_user("ann", code=4409, reason="é" * 100)
        for ws in ann:
            assert await close_of(ws) == (4409, "é" * 61)
        await eventually(lambda: here.hub.rooms == {"a": 1})
        await nothing_came(bob)
        await here.hub.disconnect_user("bob")
        assert await close_of(bob) == (4403, "")
        await here.hub.disconnect_user("bob")
        for code in 0, 1005, 1006, 5000:
            with pytest.raises(ValueError, match=str(code)):
                await here.hub.disconnect_user("ann", code=code)


async def test_disconnect_user_drops_what_waits() -> None:
    """Messages of theirs that were received before are not handled any more."""
    hub, go = Hub(), asyncio.Event()
    handled: list[int] = []

    class Slow(WebSocketHandler):
        guards = [log_in]

        @on("note")
        async def note(self, message: int) -> None:
            handled.append(message)
            await go.wait()

    async with serve(app_of(Slow, hub=hub)) as server, connect(server, "/?user=ann") as ws:
        for number in range(5):
            await send(ws, "note", number)
        await eventually(lambda: handled)
        await (await ws.ping())
        await hub.disconnect_user("ann")
        assert (await close_of(ws))[0] == 4403
        go.set()
        await eventually(lambda: not hub.connections)
    assert handled == [0]


async def test_who_a_user_is() -> None:
    """`str(user.id)` names a user, else `user.identity`; one without either is nobody."""
    async with hall() as here:
        by_id, by_identity = await here.enter("user=7"), await here.enter("identity=ann")
        await here.enter("nobody")
        await here.enter()
        assert here.hub.stats().users == 2
        await here.hub.send_to_user("7", Said(text="by id"))
        await here.hub.send_to_user("ann", Said(text="by identity"))
        await says(by_id, "by id")
        await says(by_identity, "by identity")
        await here.hub.send_to_user("None", Said(text="nobody"))
        await here.hub.send_to_user("", Said(text="nobody"))


async def test_an_id_that_is_no_text() -> None:
    """A user's id may be of any type: its text is what counts."""
    hub = Hub()

    async def log_in_as_seven(connection: Connection) -> None:
        connection.scope["user"] = User(7)

    async with client_of(Member, hub=hub, guards=[log_in_as_seven]) as ws:
        await send(ws, "id")
        await receive(ws)
        await hub.send_to_user("7", Said(text="hi"))
        await says(ws, "hi")


@pytest.mark.parametrize("id", [7, None, User("ann"), b"ann"], ids=repr)
async def test_an_id_that_is_nobodys(id: Any) -> None:
    """Where something else than the text of an id is given, it is said: nobody is banned or left out by it."""
    async with hall() as here:
        ws = await here.enter("user=7&room=a")
        for call in (
            here.hub.disconnect_user(id),
            here.hub.send_to_user(id, Said(text="hi")),
            here.hub.broadcast("a", Said(text="hi"), exclude_users=[id]),
            here.hub.broadcast("a", Said(text="hi"), exclude=[id]),
            *([] if isinstance(id, bytes) else [here.hub.broadcast("a", Said(text="hi"), exclude=id)]),
        ):
            with pytest.raises(TypeError, match=r"str\(user\.id\)"):
                await call
        with pytest.raises(TypeError, match="send a Message to a user, not dict"):
            await here.hub.send_to_user("7", {"text": "hi"})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        await nothing_came(ws)


async def test_users_and_rooms_are_apart() -> None:
    """A room with the name of a user is another thing, and a client can't read a user's messages by joining it."""
    async with hall() as here:
        ann, spy = await here.enter("user=ann"), await here.enter("room=ann&user=spy")
        await here.hub.send_to_user("ann", Said(text="for ann"))
        await here.hub.broadcast("ann", Said(text="for the room"))
        await says(ann, "for ann")
        await says(spy, "for the room")
        await here.hub.disconnect_user("ann")
        await close_of(ann)
        await nothing_came(spy)


async def test_what_the_hub_tells() -> None:
    """`connections`, `rooms` and `stats` show what is here now, and stay as they were taken."""
    async with hall() as here:
        assert here.hub.stats() == HubStats(connections=0, rooms=0, users=0, published=0, delivered=0)
        one = await here.enter("room=a&room=b&user=ann")
        await here.enter("room=a")
        await send(one, "id")
        id = (await receive(one))["data"]
        assert len(here.hub.connections) == 2
        assert here.hub.connections[id].user == User("ann")
        assert here.hub.connections[id].rooms == {"a", "b"}
        assert here.hub.rooms == {"a": 2, "b": 1}
        await here.hub.broadcast("a", Said(text="two"))
        await here.hub.broadcast("b", Said(text="one"))
        await here.hub.broadcast("c", Said(text="none"))
        await here.hub.send_to_user("ann", Said(text="one"))
        assert here.hub.stats() == HubStats(connections=2, rooms=2, users=1, published=3, delivered=4)
        rooms, connections = here.hub.rooms, here.hub.connections
        await one.close()
        await eventually(lambda: here.hub.rooms == {"a": 1})
        assert (rooms, len(connections)) == ({"a": 2, "b": 1}, 2)


async def test_order_of_a_room() -> None:
    """Members get what is broadcast to a room in the order in which it was, from one place or from several."""
    async with hall() as here:
        clients = [await here.enter("room=a&room=b") for _ in range(3)]
        for number in range(500):
            await here.hub.broadcast("ab"[number % 2], Said(text=str(number)))
        for ws in clients:
            await says(ws, *map(str, range(500)))


async def test_replies_and_broadcasts_keep_their_order() -> None:
    """What one handler replies, sends and broadcasts reaches its own client in the order in which it did so."""

    class Mixed(WebSocketHandler):
        async def on_connect(self) -> None:
            await self.join("a")

        @on("mix")
        async def mix(self, message: int) -> int:
            await self.broadcast("a", Said(text=f"{message} broadcast"))
            await self.send(Said(text=f"{message} sent"))
            await self.broadcast("a", Said(text=f"{message} broadcast again"))
            return message

        @on("stream")
        async def stream(self, message: int) -> AsyncIterator[int]:
            for item in range(message):
                yield item
                await self.broadcast("a", Said(text=f"after {item}"))

    async with client_of(Mixed) as ws:
        for number in range(200):
            await send(ws, "mix", number)
        for number in range(200):
            await says(ws, f"{number} broadcast", f"{number} sent", f"{number} broadcast again")
            assert (await receive(ws))["data"] == number
        await send(ws, "stream", 100)
        for item in range(100):
            assert (await receive(ws))["data"] == item
            await says(ws, f"after {item}")


async def test_from_http_routes() -> None:
    """An HTTP route broadcasts with the hub as it is, and a plain `def` route through `anyio.from_thread`."""
    hub = Hub()
    app = app_of(Member, hub=hub)

    @app.post("/announce")
    async def announce(text: str) -> None:
        await hub.broadcast("a", Said(text=text))

    @app.post("/announce-from-thread")
    def announce_from_thread(text: str) -> None:
        anyio.from_thread.run(hub.broadcast, "a", Said(text=text))

    @app.post("/kick")
    async def kick(user: str) -> None:
        await hub.send_to_user(user, Said(text="good bye"))
        await hub.disconnect_user(user)

    async with serve(app) as server, connect(server, "/?room=a&user=ann") as ws:
        await eventually(lambda: hub.rooms)
        async with httpx.AsyncClient(trust_env=False, verify=server.trust or True) as http:
            for path in "announce", "announce-from-thread":
                assert (await http.post(server.http(f"/{path}"), params={"text": path})).status_code == 200
                await says(ws, path)
            await http.post(server.http("/kick"), params={"user": "ann"})
            await says(ws, "good bye")
            assert (await close_of(ws))[0] == 4403


async def test_a_router_without_a_hub_has_its_own() -> None:
    """Members of one application are together without a hub being named, and apart from other applications."""
    async with (
        serve(app_of(Member)) as server,
        serve(app_of(Member)) as elsewhere,
        connect(server, "/?room=a") as one,
        connect(server) as two,
        connect(elsewhere, "/?room=a") as three,
    ):
        await send(one, "id", id=1)
        await receive(one)
        await send(three, "id", id=1)
        await receive(three)
        await send(two, "tell", ["a", "hi"], id=1)
        await receive(two)
        await says(one, "hi")
        await send(three, "id", id=2)
        assert (await receive(three))["id"] == 2


async def test_a_broadcast_from_another_event_loop_is_refused() -> None:
    """A coroutine in the loop of another thread is told to come over, and nothing reaches a socket from there."""
    hub = Hub()
    app = app_of(Member, hub=hub)

    def elsewhere() -> None:
        asyncio.run(hub.broadcast("tea", Said(text="hi")))

    async with serve(app) as server, connect(server, "/?room=tea") as ws:
        await eventually(lambda: hub.rooms == {"tea": 1})
        with pytest.raises(RuntimeError, match=r"another event loop: .* anyio\.from_thread\.run"):
            await asyncio.to_thread(elsewhere)
        await hub.broadcast("tea", Said(text="here"))
        assert (await receive(ws))["data"] == {"text": "here"}


class Threaded(WebSocketHandler):
    """Does something from a thread, in a loop of its own or in that of the connection."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def on_connect(self) -> None:
        await self.join("hall")

    @on("own")
    def do_in_a_loop_of_its_own(self, number: int) -> str:
        try:
            asyncio.run(CALLS[number][1](self))
        except RuntimeError as refused:
            return str(refused)
        return "done"

    @on("theirs")
    def do_in_the_loop_of_the_connection(self, number: int) -> str:
        anyio.from_thread.run(CALLS[number][1], self)
        return "done"


async def ask_who_is_there(self: Threaded) -> None:
    await self.hub.presence("hall")


CALLS: list[tuple[str, Callable[[Threaded], Coroutine[Any, Any, None]]]] = [
    ("send", lambda self: self.send(Said(text="hi"))),
    ("close", lambda self: self.close(4000)),
    ("join", lambda self: self.join("tea")),
    ("leave", lambda self: self.leave("hall")),
    ("join again", lambda self: self.join("hall", presence={"n": 2})),
    ("disconnect", lambda self: self.hub.disconnect_user("ada")),
    ("presence", ask_who_is_there),
]


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[name for name, _ in CALLS])
async def test_a_call_from_another_event_loop_is_refused(number: int) -> None:
    """Sockets and rooms are not for several threads; from a method in a thread one comes over."""
    hub = Hub(rooms={"hall": RoomOptions(presence=True)})
    async with serve(app_of(Threaded, hub=hub)) as server, connect(server) as ws:
        assert (await receive(ws))["type"] == "$presence"
        await send(ws, "own", number, id=1)
        answer = await receive(ws)
        assert "another event loop" in answer["data"]
        assert "anyio.from_thread.run" in answer["data"]
        assert hub.rooms == {"hall": 1}
        await send(ws, "theirs", number, id=2)
        if CALLS[number][0] == "close":
            assert (await close_of(ws))[0] == 4000
        else:
            while (frame := await receive(ws))["type"] != "$ok":
                assert frame["type"] in ("said", "$presence_diff")
            assert frame == {"type": "$ok", "id": 2, "data": "done"}


async def test_a_connection_that_is_closed_has_no_loop_to_be_called_in() -> None:
    """To close it again does nothing, in whatever loop."""
    kept: list[Connection] = []

    class Kept(WebSocketHandler):
        async def on_connect(self) -> None:
            kept.append(self.connection)

    async with serve(app_of(Kept)) as server, connect(server) as ws:
        await ws.close()
        await eventually(lambda: kept[0].closed is not None)
        await asyncio.to_thread(lambda: asyncio.run(kept[0].close()))
