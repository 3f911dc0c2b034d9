"""What is still handled of a client that has left, and how soon it is noticed that it has."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from tests.envelopes import app_of
from tests.paths import DIRECT, PORTABLE
from tests.support import eventually, serve
from tests.wire import CLOSE, RawClient, text
from wsrouter import CloseInfo, Hub, Limits, WebSocketHandler, on

LONG = 3600.0


def note(number: int, *, call: bool = True) -> bytes:
    """Return a message that is answered."""
    return text(json.dumps({"type": "note", "data": number, **({"id": number} if call else {})}))


@pytest.mark.parametrize("ws", [DIRECT, PORTABLE, "wsproto"])
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("suspends", [False, True], ids=["quick", "suspending"])
async def test_what_was_received_is_handled_although_replies_fail(ws: str, at_once: int, suspends: bool) -> None:
    """Messages before a close frame are handled, every one, although their replies reach nobody any more."""
    handled: list[int] = []
    ends: list[CloseInfo] = []

    class Noting(WebSocketHandler):
        max_in_flight = at_once

        @on("note")
        async def note(self, message: int) -> int:
            if suspends:
                await asyncio.sleep(0)
            handled.append(message)
            return message

        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close)

    async with serve(app_of(Noting), ws=ws) as server, RawClient(server) as client:
        await client.handshake()
        client.send(b"".join(note(number) for number in range(50)) + CLOSE)
        await eventually(lambda: ends)
    assert handled == list(range(50))
    assert ends == [CloseInfo(1000)]


def refusing(app: ASGIApp, failure: Callable[[], Exception]) -> ASGIApp:
    """Wrap an application in middleware whose ``send`` of messages fails."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        async def refusing_send(event: Event) -> None:
            if event["type"] == "websocket.send":
                raise failure()
            await send(event)

        await app(scope, receive, refusing_send if scope["type"] == "websocket" else send)

    return refuse


@pytest.mark.parametrize("failure", [RuntimeError, ConnectionError])
@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
async def test_a_client_that_nothing_can_be_sent_to_is_let_go(failure: type[Exception], idle: bool) -> None:
    """When sending failed and the server does not say that the client has left, the connection ends after the drain."""
    hub = Hub()
    events: list[Any] = []

    class Noting(WebSocketHandler):
        @on("note")
        async def note(self, message: int) -> int:
            events.append(message)
            if not idle and message:
                await asyncio.sleep(LONG)
            return message

        async def on_disconnect(self, close: CloseInfo) -> None:
            events.append(close.code)

    app = refusing(app_of(Noting, hub=hub, limits=Limits(drain=0.05)), failure)
    async with serve(app, ws=PORTABLE) as server, RawClient(server) as client:
        await client.handshake()
        client.send(note(0))
        await eventually(lambda: events)
        if not idle:
            client.send(note(1))
        await client.end()
        await eventually(lambda: not hub.connections)
    assert events == ([0, 1006] if idle else [0, 1, 1006])
