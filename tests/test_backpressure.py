"""Clients that send faster than they are served, and clients that do not read."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.envelopes import app_of, close_of, receive, send
from tests.support import Server, at_rest, connect, eventually, no_task_left, serve
from wsrouter import CloseInfo, Connection, Hub, Limits, Message, WebSocketHandler, on

KIB = 1024


class Chunk(Message):
    number: int
    text: str = ""


def chunk(number: int, size: int = 32 * KIB) -> Chunk:
    """Return a message of a good many bytes."""
    return Chunk(number=number, text="x" * size)


async def connect_reluctantly(server: Server, path: str = "/") -> ClientConnection:
    """Connect as a client that reads nothing until somebody calls `recv`."""
    return await connect(server, path, max_queue=1, compression=None, ping_interval=None, close_timeout=1)


async def numbers_until_closed(ws: ClientConnection) -> list[int]:
    """Read to the end, and return the numbers of the chunks that came."""
    numbers: list[int] = []
    with suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            while frame := await ws.recv():
                numbers.append(json.loads(frame)["data"]["number"])
    return numbers


class Blocked(WebSocketHandler):
    """Handles nothing until the application says go, and notes what it handled and how it ended."""

    @on
    async def chunk(self, message: Chunk) -> None:
        state = self.connection.scope["app"].state
        await state.go.wait()
        state.events.append(message.number)

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.connection.scope["app"].state.events.append(close)


def app_with_state(handler: type[WebSocketHandler], **limits: Any) -> FastAPI:
    """Return an application with a handler, and what its tests look at."""
    hub = Hub()
    app = app_of(handler, hub=hub, limits=Limits(**limits))
    app.state.hub = hub
    app.state.go = asyncio.Event()
    app.state.events = []
    app.state.sent = 0
    return app


async def connection_of(app: FastAPI) -> Connection:
    """Return the one connection of an application."""
    await eventually(lambda: len(app.state.hub.connections) == 1)
    (connection,) = app.state.hub.connections.values()
    assert isinstance(connection, Connection)
    return connection


@pytest.mark.parametrize("limits", [{"inbox_messages": 4}, {"inbox_bytes": 64 * KIB}])
async def test_a_full_inbox_closes(limits: dict[str, int]) -> None:
    """A client whose messages fill the inbox for `Limits.inbox_full` seconds is closed with 4529."""
    app = app_with_state(Blocked, inbox_full=0.1, drain=0.1, **limits)
    async with serve(app) as server, connect(server) as ws:
        for number in range(10):
            await send(ws, "chunk", {"number": number, "text": "x" * 30 * KIB})
        assert await close_of(ws) == (4529, "messages come faster than they are handled")
        await eventually(lambda: app.state.events)
    assert app.state.events == [CloseInfo(4529, "messages come faster than they are handled", "server")]


class Flood:
    """A client that sends chunks as fast as the server takes them."""

    def __init__(self, ws: ClientConnection) -> None:
        self.sent = 0
        self.task = asyncio.create_task(self._send_to(ws))

    async def _send_to(self, ws: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while self.sent < 2000:
                await send(ws, "chunk", {"number": self.sent, "text": "x" * 30 * KIB})
                self.sent += 1


@pytest.mark.parametrize("limits", [{"inbox_messages": 4}, {"inbox_bytes": 64 * KIB}])
async def test_a_full_inbox_stops_reading(limits: dict[str, int]) -> None:
    """While it is full the client is held back by TCP, and nothing is lost when it is not full any more."""
    app = app_with_state(Blocked, **limits)
    async with serve(app) as server, connect(server, compression=None) as ws:
        flood = Flood(ws)
        assert await at_rest(lambda: flood.sent) < 1000
        app.state.go.set()
        await flood.task
        await eventually(lambda: len(app.state.events) == 2000, timeout=20)
    assert app.state.events[:2000] == list(range(2000))


async def test_a_full_inbox_does_not_delay_a_close() -> None:
    """When the server closes, what waits is dropped, and the client's answer is read at once."""
    app = app_with_state(Blocked, inbox_messages=4, drain=0.01)
    async with serve(app) as server, connect(server, compression=None) as ws:
        connection = await connection_of(app)
        flood = Flood(ws)
        await at_rest(lambda: flood.sent)
        async with asyncio.timeout(1.5):
            await connection.close(4000, "enough")
            assert await close_of(ws) == (4000, "enough")
            await eventually(lambda: app.state.events)
        await flood.task
    assert app.state.events == [CloseInfo(4000, "enough", "server")]


class Pushing(WebSocketHandler):
    """Sends chunks, and counts how many it has sent."""

    @on("send")
    async def send_chunks(self, message: int) -> None:
        state = self.connection.scope["app"].state
        for number in range(message):
            await self.send(chunk(number))
            state.sent += 1

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[Chunk]:
        state = self.connection.scope["app"].state
        try:
            for number in range(message):
                state.sent += 1
                try:
                    yield chunk(number)
                except asyncio.CancelledError:
                    state.events.append("cancelled at its yield")
                    raise
        finally:
            state.events.append("ended")

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.connection.scope["app"].state.events.append(close.code)


class PushingTwo(Pushing):
    max_in_flight = 2


each_pusher = pytest.mark.parametrize("pusher", [Pushing, PushingTwo])
each_way_to_push = pytest.mark.parametrize("type", ["send", "stream"])


@each_pusher
@each_way_to_push
async def test_a_client_sets_the_pace(pusher: type[WebSocketHandler], type: str) -> None:
    """What is sent or streamed waits for a client that does not read, and nothing of it is lost."""
    app = app_with_state(pusher)
    async with serve(app) as server:
        ws = await connect_reluctantly(server)
        await send(ws, type, 1000, id=1)
        assert await at_rest(lambda: app.state.sent) < 900
        for number in range(1000):
            assert (await receive(ws))["data"]["number"] == number
        assert await receive(ws) == {"type": "$ok", "id": 1}
        await ws.close()


@each_pusher
@each_way_to_push
async def test_a_client_that_never_reads_is_closed(pusher: type[WebSocketHandler], type: str) -> None:
    """After `Limits.send` seconds it is taken for gone, and its stream ends at its `yield`."""
    app = app_with_state(pusher, send=0.2, drain=0.2, close=0.2)
    async with serve(app) as server:
        before = asyncio.all_tasks()
        ws = await connect_reluctantly(server)
        await send(ws, type, 100_000, id=1)
        await eventually(lambda: 4508 in app.state.events, timeout=10)
        assert app.state.events == [*(["cancelled at its yield", "ended"] if type == "stream" else []), 4508]
        ws.transport.abort()
        await no_task_left(but=before)


async def test_a_slow_client_learns_why() -> None:
    """One that begins to read while it is being closed finds 4508 behind what was sent before."""
    app = app_with_state(Pushing, send=0.2, drain=0.1, close=20)
    async with serve(app) as server:
        ws = await connect_reluctantly(server)
        await send(ws, "send", 100_000)
        connection = await connection_of(app)
        await eventually(lambda: connection.closed, timeout=10)
        numbers = await numbers_until_closed(ws)
        assert ws.close_code == 4508
        assert numbers == list(range(len(numbers)))


@each_pusher
async def test_cancel_between_items(pusher: type[WebSocketHandler]) -> None:
    """`$cancel` of a stream that waits for its client is thrown into the generator at its `yield`."""
    app = app_with_state(pusher)
    async with serve(app) as server:
        ws = await connect_reluctantly(server)
        await send(ws, "stream", 100_000, id=1)
        await at_rest(lambda: app.state.sent)
        await send(ws, "$cancel", id=1)
        await eventually(lambda: app.state.events == ["cancelled at its yield", "ended"])
        while (frame := await receive(ws))["type"] == "$item":
            pass
        assert frame["error"]["code"] == "cancelled"
        await ws.close()


@each_pusher
async def test_a_stream_that_waits_for_its_client_ends_with_it(pusher: type[WebSocketHandler]) -> None:
    """When the client leaves, the generator is cancelled at its `yield`."""
    app = app_with_state(pusher)
    async with serve(app) as server:
        ws = await connect_reluctantly(server)
        await send(ws, "stream", 100_000, id=1)
        await at_rest(lambda: app.state.sent)
        ws.transport.abort()
        await eventually(lambda: len(app.state.events) == 3)
        assert app.state.events[:2] == ["cancelled at its yield", "ended"]


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("place", ["method", "stream", "on_connect", "stalled stream"])
async def test_what_goes_on_after_a_close_is_ended(place: str, at_once: int, eager: bool) -> None:
    """A handler that closes its own connection, or whose client does not read, and then waits for ever is cancelled."""
    ends: list[int] = []

    class Lingering(WebSocketHandler):
        max_in_flight = at_once
        cancel_on_disconnect = eager

        async def on_connect(self) -> None:
            if place == "on_connect":
                await self.close(4000)
                await asyncio.Event().wait()

        @on("method")
        async def method(self, message: None) -> None:
            await self.close(4000)
            await asyncio.Event().wait()

        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[int]:
            yield 1
            await self.close(4000)
            await asyncio.Event().wait()

        @on("stalled stream")
        async def stall(self, message: None) -> AsyncIterator[Chunk]:
            while self.connection.closed is None:
                yield chunk(0)
            await asyncio.Event().wait()

        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close.code)

    async with serve(app_of(Lingering, limits=Limits(drain=0.1, send=0.1, close=0.1))) as server:
        before = asyncio.all_tasks()
        ws = await connect_reluctantly(server)
        if place != "on_connect":
            await send(ws, place, id=1)
        await eventually(lambda: ends, timeout=10)
        ws.transport.abort()
        await no_task_left(but=before)
    assert ends == [4508 if place == "stalled stream" else 4000]


@pytest.mark.parametrize("leave", ["client", "server"])
async def test_a_loop_that_sends_to_nobody_holds_up_nobody(leave: str) -> None:
    """A handler that sends for ever, without another wait, is ended after its client left; others are served."""
    ends: list[int] = []

    class Ticking(WebSocketHandler):
        @on("tick")
        async def tick(self, message: None) -> None:
            number = 0
            while True:
                await self.send(chunk(number, 10))
                number += 1
                if leave == "server" and number == 10:
                    await self.connection.close(4000)

        @on("echo")
        async def echo(self, message: str) -> str:
            return message

        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close.code)

    async with serve(app_of(Ticking, limits=Limits(drain=0.1))) as server, connect(server) as neighbour:
        async with connect(server) as ws:
            await send(ws, "tick")
            await receive(ws)
            if leave == "client":
                ws.transport.abort()
            await ws.wait_closed()
        await send(neighbour, "echo", "still here")
        assert (await receive(neighbour))["data"] == "still here"
        await eventually(lambda: ends)


class Listening(WebSocketHandler):
    async def on_connect(self) -> None:
        await self.join("hall")

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.connection.scope["app"].state.events.append(close.code)


async def test_publications_never_wait() -> None:
    """A member that does not read is closed with 4508, its neighbours get everything, and no broadcast waits."""
    app = app_with_state(Listening, outbox_bytes=256 * KIB, close=0.2)
    hub: Hub = app.state.hub
    async with serve(app) as server:
        neighbours = [await connect(server, compression=None) for _ in range(3)]
        stalled = await connect_reluctantly(server)
        await eventually(lambda: hub.rooms == {"hall": 4})
        count = 0
        while not app.state.events:
            await hub.broadcast("hall", chunk(count))
            for ws in neighbours:
                assert (await receive(ws))["data"]["number"] == count
            count += 1
            assert count < 2000
        assert app.state.events == [4508]
        await eventually(lambda: hub.rooms == {"hall": 3})
        await hub.broadcast("hall", chunk(count))
        for ws in neighbours:
            assert (await receive(ws))["data"]["number"] == count
            await ws.close()
        stalled.transport.abort()


async def test_a_stalled_member_that_reads_again_learns_why() -> None:
    """It gets an unbroken beginning of what was published, then the close frame."""
    app = app_with_state(Listening, outbox_frames=16)
    hub: Hub = app.state.hub
    async with serve(app) as server:
        stalled = await connect_reluctantly(server)
        connection = await connection_of(app)
        await eventually(lambda: hub.rooms)
        count = 0
        while connection.closed is None:
            await hub.broadcast("hall", chunk(count))
            await asyncio.sleep(0)
            count += 1
        numbers = await numbers_until_closed(stalled)
        assert stalled.close_code == 4508
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < count
