"""A client that is always there with another message, without a socket: exact counts in place of times."""

import asyncio
import json
import time
from collections.abc import Iterable
from itertools import chain, count
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator
from starlette.types import ASGIApp, Scope
from starlette.types import Message as Event

from tests.envelopes import app_of
from tests.support import eventually
from wsrouter import Hub, Limits, WebSocketHandler, on


class Wire:
    """A client without a socket: what it sends is there at once, and it reads when it is told to."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self.taken = 0
        self.sent: list[Event] = []
        self.reads = asyncio.Event()
        self.left = asyncio.Event()

    async def receive(self) -> Event:
        for event in self._events:
            self.taken += 1
            return event
        await self.left.wait()
        return {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    async def send(self, event: Event) -> None:
        if event["type"] == "websocket.send":
            await self.reads.wait()
        self.sent.append(event)
        if event["type"] == "websocket.close":
            self.left.set()

    async def run(self, app: ASGIApp) -> None:
        """Serve this client."""
        scope: Scope = {
            "type": "websocket",
            "path": "/",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
            "state": {},
        }
        await app(scope, self.receive, self.send)


def text(type: str, data: Any = None, **keys: Any) -> Event:
    """Return the event of a message."""
    return {"type": "websocket.receive", "text": json.dumps({"type": type, "data": data, **keys})}


async def most_without_a_break(wire: Wire, number: int) -> int:
    """Wait until so many events are taken, and return how many were at most between two turns of the event loop."""
    most = before = 0
    async with asyncio.timeout(20):
        while wire.taken < number:
            most = max(most, wire.taken - before)
            before = wire.taken
            await asyncio.sleep(0)
    return most


def burn(value: list[int]) -> list[int]:
    """Take 2 ms to validate."""
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass
    return value


class Busy(WebSocketHandler):
    @on("quick")
    async def quick(self, message: None) -> None: ...

    @on("slow")
    async def slow(self, message: None) -> None:
        burn([])

    @on("sent")
    async def send_one(self, message: None) -> int:
        return 1

    @on("suspending")
    async def suspending(self, message: Annotated[list[int], AfterValidator(burn)]) -> None:
        await asyncio.sleep(0)

    @on("stuck")
    async def stuck(self, message: None) -> None:
        await asyncio.Event().wait()

    @on("validated")
    async def validated(self, message: Annotated[list[int], AfterValidator(burn)]) -> None: ...


@pytest.mark.parametrize(
    ("event", "most"),
    [
        (text("quick"), 64),
        (text("quick", id=1), 64),
        (text("sent"), 64),
        (text("nobody"), 64),
        (text("$cancel", id=1), 64),
        ({"type": "websocket.receive", "text": "{}"}, 64),
        ({"type": "websocket.receive", "bytes": b""}, 64),
        (text("slow"), 4),
        (text("validated", [1]), 4),
        (text("validated", ["no"]), 64),
        (text("suspending", [1]), 4),
    ],
)
async def test_a_flood_gives_the_loop_back(event: Event, most: int) -> None:
    """After 64 messages or 5 ms, decoding included, others have their turn, although messages are always there."""
    wire = Wire([{"type": "websocket.connect"}, *[event] * 500])
    wire.reads.set()
    served = asyncio.create_task(wire.run(app_of(Busy)))
    assert await most_without_a_break(wire, 501) <= most + 1
    wire.left.set()
    await served


async def test_reading_ahead_gives_the_loop_back() -> None:
    """What is decoded while a message is handled takes no longer without a break."""
    wire = Wire([{"type": "websocket.connect"}, text("stuck"), *[text("validated", [1])] * 500])
    served = asyncio.create_task(wire.run(app_of(Busy, limits=Limits(drain=0.01))))
    assert await most_without_a_break(wire, 60) <= 5
    served.cancel()
    await asyncio.wait([served])


async def test_answers_to_cancels_are_bounded() -> None:
    """A client that cancels what waits, again and again, and reads no answer, is closed as a slow one."""
    pairs = (event for id in count() for event in (text("stuck", id=id), text("$cancel", id=id)))
    hub = Hub()
    limits = Limits(outbox_frames=100, close=0.1, drain=0.1, send=5)
    wire = Wire(chain([{"type": "websocket.connect"}, text("stuck")], pairs))
    served = asyncio.create_task(wire.run(app_of(Busy, hub=hub, limits=limits)))
    await eventually(lambda: hub.connections)
    (connection,) = hub.connections.values()
    pending = 0
    while connection.closed is None:
        pending = max(pending, connection.pending_bytes)
        await asyncio.sleep(0)
    assert connection.closed.code == 4508
    assert 0 < pending < 101 * 100
    await served
