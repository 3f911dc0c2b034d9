"""What members of a room with presence are told of each other, over real sockets, on both ways to them."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.envelopes import receive, send
from tests.support import Server, connect, eventually, serve, vanish
from tests.test_presence import Page
from tests.wire import CLOSE, RawClient
from wsrouter import (
    Connection,
    History,
    Hub,
    Limits,
    Member,
    Message,
    RoomOptions,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.listing import RosterOptions
from wsrouter.roster import Roster

ROOM: Final = "desk:a"
GRACE: Final = 0.4
"""Seconds, in place of 15."""


class Said(Message):
    text: str


class Status(Message):
    status: str


@dataclass
class User:
    id: str


async def named(connection: Connection, name: str = "") -> None:
    """Believe everybody."""
    if name:
        connection.scope["user"] = User(name)


class Desk(WebSocketHandler):
    """Joins with what the client says of itself, and changes it when it is asked to."""

    def __init__(self, room: str = ROOM, status: str | None = None) -> None:
        self.room, self.status = room, status

    async def on_connect(self) -> None:
        await self.join(self.room, presence=None if self.status is None else {"status": self.status})

    @on
    async def change(self, message: Status) -> None:
        await self.join(self.room, presence={"status": message.status})

    @on("leave")
    async def go(self, payload: None) -> None:
        await self.leave(self.room)

    @on("tell")
    async def tell(self, told: Any) -> None:
        await self.join("desk:other", presence=told)

    @on("ping")
    async def ping(self, payload: None) -> None: ...


@pytest.fixture(params=["websockets-sansio", "wsrouter.uvicorn:WebSocketProtocol"], ids=["portable", "direct"])
def ws(request: pytest.FixtureRequest) -> str:
    """Return uvicorn's option for each way that a connection has to its socket."""
    way: str = request.param
    return way


@pytest.fixture
def hub() -> Hub:
    """Return a hub whose desks have presence, with less patience than usual."""
    return patient(Hub(rooms={"desk:*": RoomOptions(presence=True)}))


def patient(hub: Hub, **options: Any) -> Hub:
    """Give the presence of a hub other times and numbers."""
    node = hub.node
    given: dict[str, Any] = {"grace": GRACE, **options}
    node.attendance = node.attendance.renewed(node.delivery.cork, node.id, RosterOptions(**given))
    return hub


@asynccontextmanager
async def served(hub: Hub, ws: str, **limits: Any) -> AsyncGenerator[Server]:
    router = WebSocketRouter(hub=hub, guards=[named], limits=Limits(**limits))
    router.add_handler("/", Desk)
    app = FastAPI()
    app.include_router(router)
    async with serve(app, ws=ws) as server:
        yield server


@dataclass
class Watcher:
    """A member that keeps who is here as the page on presence tells to."""

    socket: ClientConnection
    page: Page | None = None
    told: list[str] = field(default_factory=list[str])
    """Types of the frames of presence."""

    async def next(self) -> dict[str, Any]:
        """Return the next frame of presence, taken in."""
        while True:
            frame: dict[str, Any] = await receive(self.socket)
            if frame["type"].startswith("$presence"):
                assert frame["room"] == ROOM
                self.take(frame)
                return frame

    def take(self, frame: dict[str, Any]) -> None:
        if self.page is None:
            self.page = Page(frame["data"])
            assert frame["type"] == "$presence"
        else:
            self.page.get(frame["type"], frame["data"])
        self.told.append(frame["type"])

    async def until(self, condition: Callable[[dict[str, list[object]]], bool]) -> None:
        """Read until who is here is as it should be."""
        while not condition(self.members):
            await self.next()

    @property
    def members(self) -> dict[str, list[object]]:
        """Mapping of user to what is told of each of their devices."""
        known = {} if self.page is None or self.page.members is None else self.page.members
        return {user: list(devices.values()) for user, devices in known.items()}

    def counts(self) -> bool:
        """Whether it is told only how many are here."""
        return self.page is not None and self.page.members is None

    async def nothing_for(self, seconds: float) -> None:
        """Check that it is told nothing for a while."""
        told = len(self.told)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.next()
        assert len(self.told) == told, self.members


@asynccontextmanager
async def watching(server: Server, name: str = "watcher") -> AsyncGenerator[Watcher]:
    """Connect a member that watches, and wait until it sees itself."""
    async with connect(server, f"/?name={name}", compression=None) as socket:
        watcher = Watcher(socket)
        await watcher.until(lambda members: name in members)
        yield watcher


def devices(members: list[Member]) -> dict[str, dict[str, Any]]:
    return {member.user: {ref: dict(meta) for ref, meta in member.devices.items()} for member in members}


async def test_who_is_here_and_who_comes_and_goes(hub: Hub, ws: str) -> None:
    """`$presence` on join, then diffs: with the newcomer itself, and with each who comes and goes after it."""
    async with served(hub, ws) as server, watching(server, "ada") as ada:
        assert ada.told == ["$presence", "$presence_diff"]
        async with connect(server, "/?name=bob&status=here") as socket:
            bob = Watcher(socket)
            state = await bob.next()
            assert (state["type"], state["room"], state["data"]["count"]) == ("$presence", ROOM, 1)
            assert bob.members == {"ada": [{}]}
            diff = await ada.next()
            ((ref, told),) = diff["data"]["join"]["bob"].items()
            assert told == {"status": "here"}
            assert diff["data"]["leave"] == {}
            assert await bob.next() == diff
            assert ada.page is not None
            assert bob.page is not None
            assert ada.page.members == bob.page.members == devices(await hub.presence(ROOM))
            assert ref not in hub.connections, "the id of a connection is not told"
        diff = await ada.next()
        assert diff["data"] == {"join": {}, "leave": {"bob": {ref: {"status": "here"}}}}
        assert devices(await hub.presence(ROOM)).keys() == {"ada"}


async def test_a_user_with_two_devices(hub: Hub, ws: str) -> None:
    """Every device has an entry; the user is here while there is one."""
    async with served(hub, ws) as server, watching(server) as watcher:
        async with connect(server, "/?name=bob&status=a"):
            async with connect(server, "/?name=bob&status=b"):
                await watcher.until(lambda members: len(members.get("bob", ())) == 2)
                assert [member.user for member in await hub.presence(ROOM)] == ["watcher", "bob"]
            await watcher.until(lambda members: members.get("bob") == [{"status": "a"}])
        await watcher.until(lambda members: "bob" not in members)


async def test_a_change_is_told(hub: Hub, ws: str) -> None:
    """Joining again with something else changes what others see, under the same name of the device."""
    async with (
        served(hub, ws) as server,
        watching(server) as watcher,
        connect(server, "/?name=bob&status=here") as bob,
    ):
        ((ref, _),) = (await watcher.next())["data"]["join"]["bob"].items()
        await send(bob, "status", {"status": "away"})
        assert (await watcher.next())["data"] == {"join": {"bob": {ref: {"status": "away"}}}, "leave": {}}
        await send(bob, "status", {"status": "away"})
        await watcher.nothing_for(0.25)
        assert hub.rooms == {ROOM: 2}


@pytest.mark.logs_errors
@pytest.mark.parametrize("told", [{"text": "x" * 1024}, ["a list"], 7])
async def test_what_can_not_be_told_joins_nothing(hub: Hub, told: Any) -> None:
    """More than 1 KiB, or what is no object, is the handler's mistake: the client is no member."""
    async with served(hub, "websockets-sansio") as server, watching(server) as watcher:
        await send(watcher.socket, "tell", told, id=1)
        answer = await receive(watcher.socket)
        assert (answer["id"], answer["error"]["code"]) == (1, "internal")
        assert hub.rooms == {ROOM: 1}
        assert await hub.presence("desk:other") == []


@pytest.mark.logs_errors
async def test_a_change_that_can_not_be_told_changes_nothing(hub: Hub) -> None:
    """What was told before stays, and so does the membership."""
    async with (
        served(hub, "websockets-sansio") as server,
        watching(server) as watcher,
        connect(server, "/?name=bob&status=here") as bob,
    ):
        await watcher.until(lambda members: "bob" in members)
        await send(bob, "status", {"status": "x" * 1024}, id=1)
        while (answer := await receive(bob)).get("id") != 1:
            pass
        assert answer["error"]["code"] == "internal"
        await watcher.nothing_for(0.25)
        assert watcher.members["bob"] == [{"status": "here"}]
        assert hub.rooms == {ROOM: 2}


@pytest.mark.parametrize("how", ["1001", "dropped"])
async def test_a_reload_is_no_leave_and_join(hub: Hub, ws: str, how: str) -> None:
    """Who is dropped, or says 1001, and comes back in time, has never been away for the others."""
    async with served(hub, ws) as server, watching(server) as watcher:
        for _ in range(3):
            async with connect(server, "/?name=bob&status=here") as bob:
                await eventually(lambda: hub.rooms == {ROOM: 2})
                await (vanish(bob) if how == "dropped" else bob.close(1001))
                await eventually(lambda: hub.rooms == {ROOM: 1})
        async with connect(server, "/?name=bob&status=here"):
            await watcher.until(lambda members: "bob" in members)
            assert watcher.told == ["$presence", "$presence_diff", "$presence_diff"]
            await watcher.nothing_for(GRACE + 0.2)


async def test_a_reload_with_something_else_to_tell(hub: Hub, ws: str) -> None:
    """Who comes back and is told otherwise has changed, under the same name of the device."""
    async with served(hub, ws) as server, watching(server) as watcher:
        async with connect(server, "/?name=bob&status=here") as bob:
            ((ref, _),) = (await watcher.next())["data"]["join"]["bob"].items()
            await vanish(bob)
            await eventually(lambda: hub.rooms == {ROOM: 1})
        async with connect(server, "/?name=bob&status=back"):
            assert (await watcher.next())["data"] == {"join": {"bob": {ref: {"status": "back"}}}, "leave": {}}


@pytest.mark.parametrize("how", ["1001", "dropped"])
async def test_who_does_not_come_back_leaves_after_a_while(hub: Hub, ws: str, how: str) -> None:
    """The grace over, a dropped device leaves; until then it is on the list."""
    async with served(hub, ws) as server, watching(server) as watcher:
        async with connect(server, "/?name=bob") as bob:
            await watcher.until(lambda members: "bob" in members)
            began = time.monotonic()
            await (vanish(bob) if how == "dropped" else bob.close(1001))
        await eventually(lambda: hub.rooms == {ROOM: 1})
        assert "bob" in devices(await hub.presence(ROOM))
        await watcher.until(lambda members: "bob" not in members)
        assert time.monotonic() - began >= GRACE
        assert "bob" not in devices(await hub.presence(ROOM))


@pytest.mark.parametrize("how", ["1000", "leave", "disconnect_user", "4000"])
async def test_a_goodbye_is_told_at_once(hub: Hub, ws: str, how: str) -> None:
    """Who leaves, closes with 1000 or is closed with a code that says not to come back, is gone within a moment."""
    patient(hub, grace=30)
    async with served(hub, ws) as server, watching(server) as watcher, connect(server, "/?name=bob") as bob:
        await watcher.until(lambda members: "bob" in members)
        if how == "1000":
            await bob.close(1000)
        elif how == "leave":
            await send(bob, "leave")
        elif how == "disconnect_user":
            await hub.disconnect_user("bob")
        else:
            await next(each for each in hub.connections.values() if each.user_id == "bob").close(4000)
        async with asyncio.timeout(3):
            await watcher.until(lambda members: "bob" not in members)
        if how == "leave":
            await send(bob, "ping", id=1)
            frames = [await receive(bob)]
            while frames[-1].get("id") != 1:
                frames.append(await receive(bob))
            assert hub.rooms == {ROOM: 1}


async def test_a_code_that_says_to_come_back_is_no_goodbye(hub: Hub, ws: str) -> None:
    """Who is closed with a 45xx is expected back."""
    async with served(hub, ws) as server, watching(server) as watcher, connect(server, "/?name=bob") as bob:
        await watcher.until(lambda members: "bob" in members)
        await hub.disconnect_user("bob", code=4519)
        await bob.wait_closed()
        assert bob.close_code == 4519
        await eventually(lambda: hub.rooms == {ROOM: 1})
        await watcher.nothing_for(GRACE / 2)
        assert "bob" in devices(await hub.presence(ROOM))


async def test_anonymous_members(hub: Hub, ws: str) -> None:
    """Those without a user share the empty key, are members of their own, and leave at once however they go."""
    patient(hub, grace=30)
    async with (
        served(hub, ws) as server,
        watching(server) as watcher,
        connect(server, "/?status=a") as one,
        connect(server, "/?status=b"),
    ):
        await watcher.until(lambda members: len(members.get("", ())) == 2)
        assert [member.user for member in await hub.presence(ROOM)] == ["watcher", "", ""]
        await vanish(one)
        async with asyncio.timeout(3):
            await watcher.until(lambda members: members[""] == [{"status": "b"}])


async def come_and_go(server: Server, number: int, count: int) -> None:
    """Connect many, some at a time, of which each says goodbye or does not."""
    for begin in range(0, count, 50):
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(RawClient(server)) for _ in range(50)]
            for place, client in enumerate(clients):
                assert await client.handshake(f"/?name=u{number}-{begin + place}") == 101
            for place, client in enumerate(clients):
                if place % 2:
                    client.send(CLOSE)
                else:
                    client.reset()
            await asyncio.sleep(0)


@pytest.mark.timeout(120)
async def test_a_thousand_who_come_and_go(hub: Hub, ws: str) -> None:
    """However many come and go, there is at most one frame in a tenth of a second, and in the end all agree."""
    async with served(hub, ws) as server, watching(server, "one") as one, watching(server, "two") as two:
        began, told = time.monotonic(), len(one.told)

        async def watch(watcher: Watcher) -> None:
            with suppress(asyncio.CancelledError):
                while True:
                    await watcher.next()

        watches = [asyncio.create_task(watch(watcher)) for watcher in (one, two)]
        await asyncio.gather(come_and_go(server, 0, 500), come_and_go(server, 1, 500))
        await eventually(lambda: hub.rooms == {ROOM: 2}, timeout=10)
        await eventually(lambda: one.members.keys() == two.members.keys() == {"one", "two"}, timeout=10)
        seconds = time.monotonic() - began
        for watching_ in watches:
            watching_.cancel()
        await asyncio.gather(*watches)
        assert 2 <= len(one.told) - told <= seconds / 0.1 + 1
        assert one.page is not None
        assert one.page.members == devices(await hub.presence(ROOM))


async def test_big_rooms_tell_their_number(ws: str) -> None:
    """Above a number of devices only that is told, and more seldom; four fifths of it, and members are told again."""
    hub = patient(Hub(rooms={"desk:*": RoomOptions(presence=True)}), most=5, counted_window=0.2)
    async with served(hub, ws) as server, watching(server) as watcher, AsyncExitStack() as stack:
        others = [await stack.enter_async_context(connect(server, f"/?name=u{number}")) for number in range(6)]
        while not watcher.counts():
            await watcher.next()
        began, told = time.monotonic(), len(watcher.told)
        while watcher.page is None or watcher.page.count != 7:
            await watcher.next()
        assert len(watcher.told) - told <= (time.monotonic() - began) / 0.2 + 1
        assert len(await hub.presence(ROOM)) == 7
        async with connect(server, "/?name=late") as late:
            state = await receive(late)
            assert state == {"type": "$presence", "room": ROOM, "data": {"count": 7}}
        for other in others[:4]:
            await other.close()
        while watcher.counts():
            assert (await watcher.next())["type"] == "$presence"
        assert watcher.page.members == devices(await hub.presence(ROOM))
        await others[4].close()
        await watcher.until(lambda members: len(members) == 2)
        assert watcher.told[-1] == "$presence_diff"


@pytest.mark.parametrize("overflow", ["drop_new", "drop_old", "latest"])
async def test_presence_is_not_dropped(ws: str, overflow: Any) -> None:
    """A room may drop what is broadcast; a member that can't be told who is here is closed with 4508."""
    hub = patient(Hub(rooms={"desk:*": RoomOptions(presence=True, overflow=overflow)}), window=0.01)
    async with (
        served(hub, ws, outbox_frames=4) as server,
        watching(server) as watcher,
        connect(server, "/?name=slow", max_queue=1, compression=None, ping_interval=None) as slow,
    ):
        await watcher.until(lambda members: "slow" in members)
        for _ in range(150):
            await hub.broadcast(ROOM, Said(text="x" * 100 * 1024))
            await receive(watcher.socket)
        await eventually(lambda: hub.stats().dropped + hub.stats().superseded > 0)
        assert hub.rooms == {ROOM: 2}
        assert hub.stats().slow == 0
        async with asyncio.timeout(10):
            while hub.stats().slow == 0:
                async with connect(server, "/?name=passer-by"):
                    await watcher.until(lambda members: "passer-by" in members)
                await watcher.until(lambda members: "passer-by" not in members)
        await vanish(slow)
        await eventually(lambda: hub.rooms == {ROOM: 1})


async def test_history_comes_before_presence(ws: str) -> None:
    """A room may have both: first where the client stands and what it missed, then who is here."""
    hub = Hub(rooms={"desk:*": RoomOptions(presence=True, history=History())})
    async with served(hub, ws) as server:
        await hub.broadcast(ROOM, Said(text="before"))
        async with connect(server, "/?name=ada") as ada:
            assert [(await receive(ada))["type"] for _ in range(3)] == ["$joined", "$presence", "$presence_diff"]
            await hub.broadcast(ROOM, Said(text="after"))
            assert (await receive(ada))["offset"] == 2, "frames of presence have no offset, and take none"


async def test_nothing_is_left(hub: Hub, ws: str) -> None:
    """When all are gone, and nobody can come back any more, nothing is kept of the room."""
    others = rosters()
    async with served(hub, ws) as server:
        async with AsyncExitStack() as stack:
            for number in range(20):
                await stack.enter_async_context(connect(server, f"/?name=u{number}&room=desk:{number % 3}"))
            await eventually(lambda: len(hub.rooms) == 3)
            for number, connection in enumerate(list(hub.connections.values())):
                await connection.close(4000 if number % 2 else 4503)
        await eventually(lambda: hub.rooms == {})
        await eventually(lambda: rosters() <= others, timeout=20)  # each look collects garbage
        assert [await hub.presence(f"desk:{number}") for number in range(3)] == [[], [], []]


def rosters() -> int:
    gc.collect()
    return sum(isinstance(each, Roster) for each in gc.get_objects())


async def test_other_rooms_tell_nothing(hub: Hub) -> None:
    """Without the option there is no frame."""
    async with served(hub, "websockets-sansio") as server, connect(server, "/?room=plain&name=a") as ada:
        await send(ada, "ping", id=1)
        assert await receive(ada) == {"type": "$ok", "id": 1}
        assert hub.rooms == {"plain": 1}


async def test_what_is_told_is_what_was_given(hub: Hub) -> None:
    """What a join gave is copied: a mapping that changes afterwards is not told."""

    class Sharing(WebSocketHandler):
        async def on_connect(self) -> None:
            told: dict[str, object] = {"status": "before"}
            await self.join(ROOM, presence=told)
            told["status"] = "after"

    router = WebSocketRouter(hub=hub, guards=[named])
    router.add_handler("/", Sharing)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server, "/?name=ada") as ada:
        await receive(ada)
        frame = json.dumps(await receive(ada))
        assert "before" in frame
        with suppress(ConnectionClosed):
            await ada.close()
