"""Order, concurrency, and what becomes of messages when their client leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Literal

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event
from websockets.asyncio.client import ClientConnection

from tests.envelopes import app_of, client_of, close_of, receive, send
from tests.support import connect, eventually, no_task_left, serve, vanish
from wsrouter import CloseInfo, Limits, Message, WebSocketHandler, on

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


class Tick(Message):
    number: int


async def close(ws: ClientConnection) -> None:
    """Leave as a client should: with a close frame."""
    await ws.close()


async def finish(ws: ClientConnection) -> None:
    """Leave with FIN and without a close frame."""
    ws.transport.close()
    await ws.wait_closed()


Leave = Callable[[ClientConnection], Awaitable[None]]
each_way_to_leave = pytest.mark.parametrize("leave", [close, finish, vanish])


async def test_answers_come_in_order() -> None:
    """What comes while a slow message is handled waits, and is answered after it, in order."""
    go = asyncio.Event()

    class Mixed(WebSocketHandler):
        @on("slow")
        async def slow(self, message: None) -> None:
            await go.wait()

        @on("quick")
        async def quick(self, message: None) -> None: ...

        @on("suspending")
        async def suspending(self, message: None) -> None:
            await asyncio.sleep(0)

        @on("plain")
        def plain(self, message: None) -> None: ...

    async with client_of(Mixed) as ws:
        types = ["slow", "quick", "suspending", "quick", "plain", "nobody", "suspending", "plain", "quick", "quick"]
        for id, type in enumerate(types):
            await send(ws, type, id=id)
        await (await ws.ping())
        go.set()
        assert [(await receive(ws))["id"] for _ in types] == list(range(len(types)))


async def test_four_at_once() -> None:
    """With `max_in_flight = 4` four messages are handled at once, never five, and answered as they are ready."""
    running: dict[int, asyncio.Event] = {}
    most = 0

    class Four(WebSocketHandler):
        max_in_flight = 4

        @on("work")
        async def work(self, message: int) -> None:
            nonlocal most
            running[message] = asyncio.Event()
            most = max(most, len(running))
            await running[message].wait()
            del running[message]

    async with client_of(Four) as ws:
        for id in range(12):
            await send(ws, "work", id, id=id)
        for left in range(12, 0, -1):
            await eventually(lambda: len(running) == min(4, left))  # noqa: B023
            await (await ws.ping())
            latest = max(running)
            running[latest].set()
            assert (await receive(ws))["id"] == latest
    assert most == 4


@pytest.mark.parametrize("waiting", [0, 20])
@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_long_message_keeps_its_client(waiting: int, at_once: int) -> None:
    """Pings are answered while a handler works, whatever waits behind it."""

    class Long(WebSocketHandler):
        max_in_flight = at_once

        @on("work")
        async def work(self, message: float) -> None:
            await asyncio.sleep(message)

    async with (
        serve(app_of(Long), ws_ping_interval=0.2, ws_ping_timeout=0.4) as server,
        connect(server, ping_interval=None) as ws,
    ):
        for id in range(at_once):
            await send(ws, "work", 1.2, id=id)
        for id in range(waiting):
            await send(ws, "work", 0, id=at_once + id)
        answers = {(await receive(ws))["id"] for _ in range(at_once + waiting)}
        assert answers == set(range(at_once + waiting))


@pytest.mark.parametrize("sort", ["quick", "suspending", "at once"])
async def test_what_was_received_is_handled(sort: str) -> None:
    """A client that sends three messages and closes has all three handled, in order, 200 times of 200."""
    handled: list[list[int]] = []
    gone: list[CloseInfo] = []

    class Counting(WebSocketHandler):
        max_in_flight = 2 if sort == "at once" else 1

        async def on_connect(self) -> None:
            self.mine: list[int] = []
            handled.append(self.mine)

        @on("note")
        async def note(self, message: int) -> None:
            if sort != "quick":
                for _ in range(3):
                    await asyncio.sleep(0)
            self.mine.append(message)

        async def on_disconnect(self, close: CloseInfo) -> None:
            gone.append(close)

    async with serve(app_of(Counting)) as server:
        for _ in range(200):
            async with connect(server) as ws:
                for number in range(3):
                    await ws.send(f'{{"type":"note","data":{number}}}')
        await eventually(lambda: len(gone) == 200, timeout=10)
    assert handled == [[0, 1, 2]] * 200


@each_server
async def test_what_was_received_is_handled_by_slow_methods(server_name: ServerName) -> None:
    """Messages that wait when the client leaves are handled after it has left, before `on_disconnect`."""
    go = asyncio.Event()
    events: list[Any] = []

    class Slow(WebSocketHandler):
        @on("note")
        async def note(self, message: int) -> None:
            if message == 0:
                events.append("began")
                await go.wait()
            events.append(message)

        async def on_disconnect(self) -> None:
            events.append("left")

    async with serve(app_of(Slow), server=server_name) as server:
        async with connect(server) as ws:
            for number in range(3):
                await send(ws, "note", number)
            await eventually(lambda: events)
        go.set()
        await eventually(lambda: "left" in events)
    assert events == ["began", 0, 1, 2, "left"]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_the_drain_ends(at_once: int) -> None:
    """After `Limits.drain` what runs is cancelled, and what waits is dropped."""
    events: list[Any] = []

    class Endless(WebSocketHandler):
        max_in_flight = at_once

        @on("note")
        async def note(self, message: int) -> None:
            events.append(message)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.append("cancelled")
                raise

        async def on_disconnect(self) -> None:
            events.append("left")

    async with serve(app_of(Endless, limits=Limits(drain=0.05))) as server:
        async with connect(server) as ws:
            for number in range(5):
                await send(ws, "note", number)
            await eventually(lambda: len(events) == at_once)
        await eventually(lambda: "left" in events)
    assert events == [*range(at_once), *["cancelled"] * at_once, "left"]


@each_server
@each_way_to_leave
async def test_cancel_on_disconnect(server_name: ServerName, leave: Leave) -> None:
    """With `cancel_on_disconnect` a method is cancelled within a second, and what waits is dropped."""
    events: list[Any] = []

    class Eager(WebSocketHandler):
        cancel_on_disconnect = True

        @on("note")
        async def note(self, message: int) -> None:
            events.append(message)
            try:
                await asyncio.Event().wait()
            finally:
                events.append("cancelled")

        async def on_disconnect(self) -> None:
            events.append("left")

    async with serve(app_of(Eager), server=server_name) as server:
        ws = await connect(server)
        for number in range(3):
            await send(ws, "note", number)
        await eventually(lambda: events)
        await leave(ws)
        await eventually(lambda: "left" in events, timeout=1)
    assert events == [0, "cancelled", "left"]


@each_server
@each_way_to_leave
async def test_a_stream_is_cancelled_when_the_client_leaves(server_name: ServerName, leave: Leave) -> None:
    """A generator is always cancelled, at its `await`, and its clean-up runs."""
    events: list[Any] = []

    class Feed(WebSocketHandler):
        @on("feed")
        async def feed(self, message: None) -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                events.append("ended")

        async def on_disconnect(self) -> None:
            events.append("left")

    async with serve(app_of(Feed), server=server_name) as server:
        ws = await connect(server)
        await send(ws, "feed", id=1)
        assert (await receive(ws))["data"] == 1
        await leave(ws)
        await eventually(lambda: "left" in events, timeout=1)
    assert events == ["ended", "left"]


trace: ContextVar[str] = ContextVar("trace", default="outside")


class Demanding:
    """ASGI middleware that awaits in `receive` and `send`, sets a context variable, and has deadlines."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def demanding_receive() -> Event:
            token = trace.set("receiving")
            try:
                async with asyncio.timeout(30):
                    await asyncio.sleep(0)
                    event = await receive()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    return event
            finally:
                trace.reset(token)

        async def demanding_send(event: Event) -> None:
            token = trace.set("sending")
            try:
                async with asyncio.timeout(30):
                    await asyncio.sleep(0)
                    await send(event)
                    await asyncio.sleep(0)
            finally:
                trace.reset(token)

        if scope["type"] == "websocket":
            await self.app(scope, demanding_receive, demanding_send)
        else:
            await self.app(scope, receive, send)


@each_server
@pytest.mark.parametrize("at_once", [1, 4])
async def test_no_message_is_lost_behind_middleware(server_name: ServerName, at_once: int) -> None:
    """Two thousand messages of every sort are each answered once, whatever middleware does around the channels."""
    seen: set[str] = set()

    class Mixed(WebSocketHandler):
        max_in_flight = at_once

        @on("quick")
        async def quick(self, message: int) -> int:
            seen.add(trace.get())
            return message

        @on("suspending")
        async def suspending(self, message: int) -> int:
            for _ in range(message % 4):
                await asyncio.sleep(0)
            seen.add(trace.get())
            return message

        @on("timed")
        async def timed(self, message: int) -> int:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                return message
            return -1

        @on("stuck")
        async def stuck(self, message: int) -> int:
            await asyncio.Event().wait()
            return -1

    sorts = ["quick", "suspending", "quick", "timed", "suspending", "stuck", "quick", "suspending"]
    async with serve(Demanding(app_of(Mixed)), server=server_name) as server, connect(server) as ws:

        async def talk() -> None:
            for number in range(2000):
                sort = sorts[number % len(sorts)]
                await send(ws, sort, number, id=number)
                if sort == "stuck":
                    await send(ws, "$cancel", id=number)

        async with asyncio.TaskGroup() as group:
            group.create_task(talk())
            answers = [await receive(ws) for _ in range(2000)]
    ids = [answer["id"] for answer in answers]
    assert sorted(ids) == list(range(2000))
    for answer in answers:
        if sorts[answer["id"] % len(sorts)] == "stuck":
            assert answer["error"]["code"] == "cancelled"
        else:
            assert answer["data"] == answer["id"]
    assert seen == {"outside"}


async def test_a_send_to_a_vanished_client_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Once a client is gone, nothing that is sent to it reaches the server, and nothing is logged."""
    sent = 0
    left = asyncio.Event()
    done = asyncio.Event()

    class Chatty(WebSocketHandler):
        @on("chat")
        async def chat(self, message: None) -> None:
            await left.wait()
            for number in range(10_000):
                await self.connection.send(Tick(number=number))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            done.set()

    def counting(app: ASGIApp) -> ASGIApp:
        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            async def counted(event: Event) -> None:
                nonlocal sent
                sent += 1
                await send(event)

            await app(scope, receive, counted if scope["type"] == "websocket" else send)

        return count

    async with serve(counting(app_of(Chatty))) as server:
        ws = await connect(server)
        await send(ws, "chat")
        await (await ws.ping())
        await vanish(ws)
        left.set()
        await eventually(done.is_set, 20)
    assert sent < 300
    assert [record for record in caplog.records if record.levelno >= 30] == []


async def test_no_task_outlives_a_hundred_vanished_clients() -> None:
    """A hundred clients that vanish with replies in flight leave no task behind."""

    class Busy(WebSocketHandler):
        max_in_flight = 4

        @on("work")
        async def work(self, message: int) -> AsyncIterator[str]:
            while True:
                yield "x" * message
                await asyncio.sleep(0)

        @on("reply")
        async def reply(self, message: int) -> str:
            await asyncio.sleep(0)
            return "x" * message

    async with serve(app_of(Busy)) as server:
        before = asyncio.all_tasks()
        clients = [await connect(server) for _ in range(100)]
        for ws in clients:
            await send(ws, "work", 1000, id=1)
            for id in range(2, 8):
                await send(ws, "reply", 10_000, id=id)
        for ws in clients:
            await receive(ws)
        for ws in clients:
            await vanish(ws)
        await no_task_left(but=before, timeout=5)


@pytest.mark.logs_errors
async def test_a_send_that_fails_in_middleware_closes() -> None:
    """What middleware raises in `send` is logged and closes with 1011: no client is left without an answer."""

    class Echo(WebSocketHandler):
        async def on_message(self, message: str) -> str:
            return message

    def picky(app: ASGIApp) -> ASGIApp:
        async def pick(scope: Scope, receive: Receive, send: Send) -> None:
            async def picky_send(event: Event) -> None:
                if event.get("text") == "bad":
                    raise ValueError("I don't like it")
                await send(event)

            await app(scope, receive, picky_send if scope["type"] == "websocket" else send)

        return pick

    async with serve(picky(app_of(Echo, direct=False))) as server, connect(server) as ws:
        await ws.send("good")
        assert await ws.recv() == "good"
        await ws.send("bad")
        assert (await close_of(ws))[0] == 1011


async def test_how_the_client_left_is_known_although_a_send_failed() -> None:
    """A handler that sends while its client closes learns the client's code and reason."""
    ends: list[CloseInfo] = []

    class Ticking(WebSocketHandler):
        @on("tick")
        async def tick(self, message: None) -> None:
            for number in range(100_000):
                await self.send(Tick(number=number))

        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close)

    async with serve(app_of(Ticking, limits=Limits(drain=0.01))) as server:
        for _ in range(20):
            async with connect(server, max_queue=None) as ws:
                await send(ws, "tick")
                await receive(ws)
                await ws.close(4001, "bye")
        await eventually(lambda: len(ends) == 20)
    assert ends == [CloseInfo(4001, "bye", "client")] * 20
