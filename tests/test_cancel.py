"""`$cancel`, ids that are in flight, and the deadline of a message."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.envelopes import client_of, close_of, receive, send
from tests.support import eventually
from wsrouter import Envelope, Limits, WebSocketHandler, on

CANCELLED = {"code": "cancelled", "message": "Cancelled", "retry": False}
TIMEOUT = {"code": "timeout", "message": "Timeout", "retry": True}


class Stage:
    """What happened to the calls of a test, and the event that they wait for."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.go = asyncio.Event()

    async def wait(self, name: str) -> None:
        """Wait for `go`, and note how it went."""
        self.events.append(f"{name} began")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.events.append(f"{name} cancelled")
            raise
        self.events.append(f"{name} ended")


def worker_of(stage: Stage, at_once: int = 1) -> type[WebSocketHandler]:
    """Return a handler that works until the stage says go."""

    class Worker(WebSocketHandler):
        max_in_flight = at_once

        @on("work")
        async def work(self, message: str) -> str:
            await stage.wait(message)
            return message

        @on("stream")
        async def stream(self, message: str) -> AsyncIterator[str]:
            yield message
            await stage.wait(message)
            yield message

        async def on_message(self, message: Envelope) -> Any:
            return message.data

    return Worker


@pytest.fixture
async def stage() -> Stage:
    """A stage of the test's own."""
    return Stage()


at_once = pytest.mark.parametrize("at_once", [1, 2])


@at_once
async def test_cancel_of_a_running_call(stage: Stage, at_once: int) -> None:
    """It is cancelled, answered with `cancelled`, and its id is free again."""
    async with client_of(worker_of(stage, at_once)) as ws:
        await send(ws, "work", "first", id=1)
        await eventually(lambda: stage.events)
        await send(ws, "$cancel", id=1)
        assert await receive(ws) == {"type": "$error", "id": 1, "error": CANCELLED}
        assert stage.events == ["first began", "first cancelled"]
        stage.go.set()
        await send(ws, "work", "again", id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "again"}


@at_once
async def test_cancel_of_a_waiting_call(stage: Stage, at_once: int) -> None:
    """It never begins, and is answered at once, before the calls that it waited for."""
    async with client_of(worker_of(stage, at_once)) as ws:
        for id in range(at_once):
            await send(ws, "work", f"call {id}", id=id)
        await send(ws, "work", "waiting", id="w")
        await send(ws, "work", "also waiting", id="x")
        await send(ws, "$cancel", id="w")
        assert await receive(ws) == {"type": "$error", "id": "w", "error": CANCELLED}
        await send(ws, "echo", "in its place", id="w")
        stage.go.set()
        answers = [await receive(ws) for _ in range(at_once + 2)]
        assert {answer["id"] for answer in answers} == {*range(at_once), "x", "w"}
        assert "waiting began" not in stage.events


@at_once
async def test_cancel_of_a_finished_call(stage: Stage, at_once: int) -> None:
    """It changes nothing, nor does a second one for a call that is being cancelled."""
    stage.go.set()
    async with client_of(worker_of(stage, at_once)) as ws:
        await send(ws, "work", "first", id=1)
        assert (await receive(ws))["data"] == "first"
        await send(ws, "$cancel", id=1)
        await send(ws, "work", "next", id=2)
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": "next"}
        stage.go.clear()
        await send(ws, "work", "last", id=3)
        await eventually(lambda: "last began" in stage.events)
        await send(ws, "$cancel", id=3)
        await send(ws, "$cancel", id=3)
        assert await receive(ws) == {"type": "$error", "id": 3, "error": CANCELLED}
        await send(ws, "echo", "still here", id=4)
        assert await receive(ws) == {"type": "$ok", "id": 4, "data": "still here"}


@at_once
async def test_cancel_of_a_stream_that_works(stage: Stage, at_once: int) -> None:
    """A generator that waits for something is cancelled there, and `cancelled` follows its items."""
    async with client_of(worker_of(stage, at_once)) as ws:
        await send(ws, "stream", "items", id=1)
        assert await receive(ws) == {"type": "$item", "id": 1, "data": "items"}
        await send(ws, "$cancel", id=1)
        assert await receive(ws) == {"type": "$error", "id": 1, "error": CANCELLED}
        assert stage.events == ["items began", "items cancelled"]


async def test_cancel_reaches_neither_the_next_message_nor_its_waits(stage: Stage) -> None:
    """After a cancelled call, the next one suspends and uses deadlines as if nothing had been."""
    events = stage.events

    class Careful(WebSocketHandler):
        @on("work")
        async def work(self, message: str) -> str:
            try:
                async with asyncio.timeout(10):
                    await stage.wait(message)
            except TimeoutError:
                events.append("timeout")
            return message

        @on("next")
        async def following(self, message: None) -> int:
            for _ in range(5):
                await asyncio.sleep(0)
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                events.append("expired")
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

    async with client_of(Careful) as ws:
        for id in range(20):
            await send(ws, "work", "work", id=id)
            await send(ws, "next", id="next")
            await eventually(lambda: events)
            await send(ws, "$cancel", id=id)
            assert await receive(ws) == {"type": "$error", "id": id, "error": CANCELLED}
            assert await receive(ws) == {"type": "$ok", "id": "next", "data": 0}
            assert events == ["work began", "work cancelled", "expired"]
            events.clear()


@at_once
async def test_cancel_leaves_clean_up_alone(stage: Stage, at_once: int) -> None:
    """A call that has returned is no longer cancelled: its clean-up completes, and its result is the reply."""

    async def transaction() -> AsyncIterator[None]:
        yield
        await stage.wait("commit")

    class Storing(WebSocketHandler):
        max_in_flight = at_once

        @on("store")
        async def store(self, message: None, _: Annotated[None, Depends(transaction)]) -> str:
            return "stored"

        @on("echo")
        async def echo(self, message: str) -> str:
            return message

    async with client_of(Storing) as ws:
        await send(ws, "store", id=1)
        await eventually(lambda: stage.events)
        await send(ws, "$cancel", id=1)
        await send(ws, "$cancel", id="x")
        await ws.ping()  # answered, so the server has read what came before
        stage.go.set()
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "stored"}
        assert stage.events == ["commit began", "commit ended"]


@at_once
async def test_cancel_of_a_plain_method(at_once: int) -> None:
    """A thread cannot be cancelled: the call ends, as `cancelled`, when it has ended."""
    began, go, ended = threading.Event(), threading.Event(), threading.Event()

    class Threads(WebSocketHandler):
        max_in_flight = at_once

        @on("work")
        def work(self, message: None) -> str:
            began.set()
            assert go.wait(5)
            ended.set()
            return "done"

    async with client_of(Threads) as ws:
        await send(ws, "work", id=1)
        await eventually(began.is_set)
        await send(ws, "$cancel", id=1)
        await (await ws.ping())
        assert not ended.is_set()
        go.set()
        assert await receive(ws) == {"type": "$error", "id": 1, "error": CANCELLED}
        assert ended.is_set()


async def test_a_method_may_answer_its_cancellation(stage: Stage) -> None:
    """What a cancelled method returns all the same is the one reply."""

    class Stubborn(WebSocketHandler):
        @on("work")
        async def work(self, message: None) -> str:
            try:
                await stage.wait("work")
            except asyncio.CancelledError:
                return "half of it"
            return "all of it"

    async with client_of(Stubborn) as ws:
        await send(ws, "work", id=1)
        await eventually(lambda: stage.events)
        await send(ws, "$cancel", id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "half of it"}
        await send(ws, "work", id=2)
        stage.go.set()
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": "all of it"}


@at_once
@pytest.mark.parametrize(
    "second",
    [
        '{"type":"echo","id":1}',
        '{"type":"work","id":1,"data":[]}',
        '{"type":"$nobody","id":1}',
        '{"id":1}',
    ],
)
async def test_an_id_in_flight_again(stage: Stage, at_once: int, second: str) -> None:
    """A second message with the id of one that is not answered yet closes 4400, whatever it is."""
    async with client_of(worker_of(stage, at_once)) as ws:
        await send(ws, "work", "first", id=1)
        await ws.send(second)
        assert await close_of(ws) == (4400, "that id is in flight")
        stage.go.set()


async def test_an_id_that_waits_is_in_flight(stage: Stage) -> None:
    """So does one with the id of a message that has not begun."""
    async with client_of(worker_of(stage)) as ws:
        await send(ws, "work", "first", id=1)
        await send(ws, "echo", "waiting", id=2)
        await send(ws, "echo", "the same", id=2)
        assert (await close_of(ws))[0] == 4400
        stage.go.set()


async def test_ids_are_told_apart(stage: Stage) -> None:
    """A text and an integer are two ids, and a message without an id is never in flight."""
    async with client_of(worker_of(stage)) as ws:
        await send(ws, "work", "first", id=1)
        for id in "1", 0, "":
            await send(ws, "echo", "x", id=id)
        await send(ws, "echo", "without")
        await send(ws, "echo", "without")
        stage.go.set()
        assert [(await receive(ws)).get("id") for _ in range(6)] == [1, "1", 0, "", None, None]


@at_once
async def test_the_deadline_of_a_message(stage: Stage, at_once: int) -> None:
    """A method that takes longer is cancelled and answered with `timeout`; the connection lives."""
    async with client_of(worker_of(stage, at_once), limits=Limits(message_timeout=0.02)) as ws:
        await send(ws, "work", "slow", id=1)
        assert await receive(ws) == {"type": "$error", "id": 1, "error": TIMEOUT}
        assert stage.events == ["slow began", "slow cancelled"]
        await send(ws, "work", "slow")
        assert await receive(ws) == {"type": "$error", "error": TIMEOUT}
        await send(ws, "echo", "quick", id=2)
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": "quick"}


async def test_streams_have_no_deadline(stage: Stage) -> None:
    """A stream may last; only the message methods that return have a deadline."""

    class Slow(WebSocketHandler):
        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[int]:
            for item in range(5):
                yield item
                await asyncio.sleep(0.01)

    async with client_of(Slow, limits=Limits(message_timeout=0.02)) as ws:
        await send(ws, "stream", id=1)
        assert [(await receive(ws))["type"] for _ in range(6)] == ["$item"] * 5 + ["$ok"]


async def test_a_raw_handler_has_a_deadline_too() -> None:
    """There is no frame to tell it with, so the connection is closed."""

    class Raw(WebSocketHandler):
        async def on_message(self, message: str) -> str:
            if message == "slow":
                await asyncio.Event().wait()
            return message

    async with client_of(Raw, limits=Limits(message_timeout=0.02)) as ws:
        await ws.send("quick")
        assert await ws.recv() == "quick"
        await ws.send("slow")
        assert (await close_of(ws))[0] == 1011
