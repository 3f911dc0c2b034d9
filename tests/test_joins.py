"""Joins that overlap, are cancelled or end amid their way: nothing of them is left behind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from tests.envelopes import receive, send
from tests.support import Server, connect, eventually, serve, vanish
from wsrouter import Connection, History, Hub, Limits, Message, RoomOptions, WebSocketHandler, WebSocketRouter, on
from wsrouter.brokers import MemoryBroker
from wsrouter.brokers.base import Publication, Target
from wsrouter.history import Position, Recovery

KIB: Final = 1024
ROOM: Final = "desk:tea"


class News(Message):
    number: int
    text: str = ""


class Holding(MemoryBroker):
    """A broker that stops at one of its methods until it is told to go on."""

    def __init__(self, at: str = "") -> None:
        super().__init__()
        self.at = at
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.subscribed: set[str] = set()

    async def stop(self, name: str) -> None:
        if name == self.at:
            self.reached.set()
            await self.go.wait()

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        if target == "room":
            await self.stop("subscribe")
            self.subscribed.add(name)
        await super().subscribe(target, name, history)

    async def unsubscribe(self, target: Target, name: str) -> None:
        await super().unsubscribe(target, name)
        self.subscribed.discard(name)

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        await self.stop("recover")
        recovery = await super().recover(room, history, since)
        await self.stop("recovered")
        return recovery


@dataclass
class User:
    id: str = "ada"


async def ada(connection: Connection) -> None:
    connection.scope["user"] = User()


class Asking(WebSocketHandler):
    client_rooms = ["*"]
    max_in_flight = 3

    @on("ping")
    async def ping(self, payload: None) -> None: ...


@dataclass
class Place:
    hub: Hub
    broker: Holding
    server: Server

    async def untouched(self) -> None:
        """Check that nothing of a join is left."""
        await eventually(lambda: self.hub.node.joining.members(ROOM) == 0)
        await eventually(lambda: self.broker.subscribed == set())
        assert self.hub.rooms == {}
        assert await self.hub.presence(ROOM) == []
        assert all(not each.rooms for each in self.hub.connections.values())


@asynccontextmanager
async def place(at: str, ws: str = "websockets-sansio", **limits: Any) -> AsyncGenerator[Place]:
    """Serve a handler whose clients join, on a broker that stops somewhere."""
    broker = Holding(at)
    options = RoomOptions(history=History(), presence=True)
    hub = Hub(broker, rooms={"desk:*": options, "small:*": RoomOptions(history=History(), max_members=1)})
    router = WebSocketRouter(hub=hub, guards=[ada], limits=Limits(**limits))
    router.add_handler("/", Asking)
    app = FastAPI()
    app.include_router(router)
    async with serve(app, ws=ws) as server:
        yield Place(hub, broker, server)


async def join(ws: ClientConnection, id: int, room: str = ROOM, **data: Any) -> None:
    await send(ws, "$join", {"room": room, **data}, id=id)


async def answer(ws: ClientConnection, id: int) -> str:
    """Return how a call was answered: its error, or "ok"; what else comes is passed over."""
    while (frame := await receive(ws)).get("id") != id:
        pass
    code: str = frame["error"]["code"] if frame["type"] == "$error" else "ok"
    return code


STOPS = ["subscribe", "recover", "recovered"]


@pytest.mark.parametrize("at", STOPS)
async def test_a_cancelled_join_leaves_nothing(at: str) -> None:
    """After a `$cancel` while the broker is asked nothing is left, and the next join is as the first."""
    async with place(at) as here, connect(here.server) as ws:
        await join(ws, 1)
        await here.broker.reached.wait()
        await send(ws, "$cancel", id=1)
        assert await answer(ws, 1) == "cancelled"
        await here.untouched()
        here.broker.go.set()
        await join(ws, 2)
        assert (await receive(ws))["type"] == "$joined"
        assert await answer(ws, 2) == "ok"
        assert here.hub.rooms == {ROOM: 1}


@pytest.mark.parametrize("at", STOPS)
async def test_a_join_that_takes_too_long_leaves_nothing(at: str) -> None:
    """The same, when `Limits.message_timeout` is over."""
    async with place(at, message_timeout=0.05) as here, connect(here.server) as ws:
        await join(ws, 1)
        assert await answer(ws, 1) == "timeout"
        await here.untouched()


@pytest.mark.parametrize("at", STOPS)
async def test_a_client_that_goes_amid_a_join_leaves_nothing(at: str) -> None:
    """The same, when the client is gone before the broker answers."""
    async with place(at) as here:
        async with connect(here.server) as ws:
            await join(ws, 1)
            await here.broker.reached.wait()
            await vanish(ws)
        await eventually(lambda: next(iter(here.hub.connections.values())).closed is not None)
        here.broker.go.set()
        await eventually(lambda: here.hub.connections == {})
        await here.untouched()


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsrouter.uvicorn:WebSocketProtocol"], ids=["portable", "direct"])
@pytest.mark.parametrize("how", ["cancel", "timeout", "vanish", "leave"])
async def test_a_replay_that_is_cut_off_leaves_nothing(ws: str, how: str) -> None:
    """The same, while the client is sent what it missed and does not read."""
    limits = {"message_timeout": 1.0} if how == "timeout" else {}
    async with place("", ws, outbox_bytes=256 * KIB, send=5, **limits) as here:
        options: Any = {"max_queue": 1, "compression": None, "ping_interval": None}
        async with connect(here.server, "/", **options) as client:
            await join(client, 1)
            epoch = (await receive(client))["data"]["epoch"]
            assert await answer(client, 1) == "ok"
            await send(client, "$leave", {"room": ROOM}, id=2)
            assert await answer(client, 2) == "ok"
            await here.untouched()
            for number in range(80):
                await here.hub.broadcast(ROOM, News(number=number, text="x" * 150 * KIB))
            await join(client, 3, since=f"{epoch}:0")
            await eventually(lambda: here.hub.node.joining.members(ROOM) == 1)
            assert (await receive(client))["data"]["count"] == 80
            if how == "vanish":
                await vanish(client)
                await eventually(lambda: here.hub.connections == {}, timeout=10)
                await here.untouched()
                return
            if how == "leave":
                await send(client, "$leave", {"room": ROOM}, id=4)
            elif how == "cancel":
                await send(client, "$cancel", id=3)
            if how != "leave":  # which is noted by the next frame, and that waits for the client
                await here.untouched()
            outcome = {"cancel": "cancelled", "timeout": "timeout", "leave": "ok"}[how]
            answers: dict[int, str] = {}
            while 3 not in answers or (how == "leave" and 4 not in answers):
                frame = await receive(client)
                if "id" in frame:
                    answers[frame["id"]] = frame["error"]["code"] if frame["type"] == "$error" else "ok"
            assert answers[3] == outcome
            await here.untouched()


@pytest.mark.parametrize("at", STOPS)
async def test_one_room_is_joined_once(at: str) -> None:
    """A second join of a room that is being joined is a conflict; the first goes on."""
    async with place(at) as here, connect(here.server) as ws:
        await join(ws, 1)
        await here.broker.reached.wait()
        await join(ws, 2)
        assert await answer(ws, 2) == "conflict"
        here.broker.go.set()
        assert (await receive(ws))["type"] == "$joined"
        assert await answer(ws, 1) == "ok"
        assert here.hub.rooms == {ROOM: 1}
        await send(ws, "$leave", {"room": ROOM}, id=3)
        assert await answer(ws, 3) == "ok"
        await here.untouched()


@pytest.mark.parametrize("at", STOPS)
async def test_who_leaves_amid_a_join_is_no_member(at: str) -> None:
    """A leave counts for a join that is under way as well."""
    async with place(at) as here, connect(here.server) as ws:
        await join(ws, 1)
        await here.broker.reached.wait()
        await send(ws, "$leave", {"room": ROOM}, id=2)
        assert await answer(ws, 2) == "ok"
        here.broker.go.set()
        assert await answer(ws, 1) == "ok"
        await here.untouched()


@pytest.mark.parametrize("at", STOPS)
async def test_those_on_their_way_count(at: str) -> None:
    """Joins that overlap stay within the limits of rooms and of members."""
    async with place(at, rooms=2) as here, connect(here.server) as one, connect(here.server) as two:
        await join(one, 1, "small:a")
        await here.broker.reached.wait()
        await join(two, 1, "small:a")
        assert await answer(two, 1) == "conflict"
        await join(one, 2, "desk:b")
        await eventually(lambda: here.hub.node.joining.members("desk:b"))
        await join(one, 3, "desk:c")
        assert await answer(one, 3) == "conflict"
        here.broker.go.set()
        await eventually(lambda: here.hub.rooms == {"small:a": 1, "desk:b": 1})


@pytest.mark.parametrize("at", ["subscribe", "recover"])
async def test_what_is_published_amid_a_join_comes_once(at: str) -> None:
    """What is published while the broker is asked is in its answer, and not sent once more."""
    async with place(at) as here, connect(here.server) as ws:
        await here.hub.broadcast(ROOM, News(number=0))
        await join(ws, 1, since="x:0")
        await here.broker.reached.wait()
        await here.hub.broadcast(ROOM, News(number=1))
        here.broker.go.set()
        frames = [await receive(ws) for _ in range(3)]
        assert [frame["type"] for frame in frames] == ["$joined", "$presence", "$ok"]
        assert frames[0]["data"]["offset"] == 2
        await here.hub.broadcast(ROOM, News(number=2))
        frames = [await receive(ws) for _ in range(2)]
        assert [frame["offset"] for frame in frames if "offset" in frame] == [3]


async def test_what_is_published_behind_a_recovery_follows_it() -> None:
    """What is published after the broker has said what was missed, and before it is sent, comes next."""
    async with place("recovered") as here, connect(here.server) as ws:
        await here.hub.broadcast(ROOM, News(number=0))
        await join(ws, 1)
        await here.broker.reached.wait()
        for number in 1, 2:
            await here.hub.broadcast(ROOM, News(number=number))
        here.broker.go.set()
        frames = [await receive(ws) for _ in range(3)]
        assert [frame["type"] for frame in frames] == ["$joined", "news", "news"]
        assert [frames[0]["data"]["offset"], *(frame["offset"] for frame in frames[1:])] == [1, 2, 3]
