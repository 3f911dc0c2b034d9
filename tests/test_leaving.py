"""What is still handled of a client that has left, and how soon it is noticed that it has."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from tests.envelopes import app_of
from tests.paths import DIRECT, PORTABLE, connection_at, each_path
from tests.support import eventually, serve
from tests.uvicorn.serving import turns
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
        await client.end()
        client.drop()
        await turns()  # or uvicorn's own classes are told to close while they do, over TLS, and fail
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


FULL = Limits(inbox_messages=4, inbox_full=LONG, drain=LONG)


@pytest.mark.parametrize("leave", ["closes", "ends", "resets"])
@pytest.mark.parametrize("sort", ["method", "stream"])
@pytest.mark.parametrize("sent", [10, 200], ids=["some", "many"])
async def test_a_client_that_leaves_while_its_inbox_is_full(leave: str, sort: str, sent: int) -> None:
    """On our class a stream, and what `cancel_on_disconnect` says, ends at once although nobody reads its client."""
    events: list[Any] = []
    began = asyncio.Event()

    class Busy(WebSocketHandler):
        cancel_on_disconnect = sort == "method"

        @on("work")
        async def work(self, message: None) -> None:
            await self.long()

        @on("feed")
        async def feed(self, message: None) -> AsyncIterator[int]:
            yield 0
            await self.long()

        async def long(self) -> None:
            began.set()
            try:
                await asyncio.sleep(LONG)
            finally:
                events.append("cancelled")

        @on("note")
        async def note(self, message: int) -> None:
            events.append(message)

        async def on_disconnect(self, close: CloseInfo) -> None:
            events.append(close.code)

    async with serve(app_of(Busy, limits=FULL), ws=DIRECT) as server, RawClient(server) as client:
        await client.handshake()
        client.send(text(json.dumps({"type": "work" if sort == "method" else "feed", "data": None})))
        await began.wait()
        client.send(b"".join(note(number) for number in range(sent)))
        if leave == "closes":
            client.send(CLOSE)
        if leave == "resets":
            client.reset()
        else:
            client.drop()
        await eventually(lambda: "cancelled" in events, timeout=2)
        await eventually(lambda: events[-1] in (1000, 1006))
    handled = list(range(sent)) if sort == "stream" else []
    assert events == ["cancelled", *handled, 1000 if leave == "closes" else 1006]


@each_path
@pytest.mark.parametrize("leave", ["closes", "ends"])
async def test_nothing_is_lost_of_a_client_that_leaves_while_its_inbox_is_full(ws: str, leave: str) -> None:
    """All that it had sent is handled, in order, and then the connection ends as the client has ended it."""
    handled: list[int] = []
    ends: list[CloseInfo] = []
    go = asyncio.Event()

    class Slow(WebSocketHandler):
        @on("note")
        async def note(self, message: int) -> None:
            await go.wait()
            handled.append(message)

        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close)

    hub = Hub()
    async with serve(app_of(Slow, limits=FULL, hub=hub), ws=ws) as server, RawClient(server) as client:
        if ws == PORTABLE and server.certificate is not None:
            pytest.skip("uvicorn's own class fails in receive() then, over TLS")
        await client.handshake()
        client.send(b"".join(note(number, call=False) for number in range(500)))
        if leave == "closes":
            client.send(CLOSE)
        client.drop()
        connection = connection_at(hub, "/")
        if ws == DIRECT:
            await eventually(lambda: connection.closed is not None)
        go.set()
        await eventually(lambda: ends)
        await turns()
    assert handled == list(range(500))
    assert [end.code for end in ends] == [1000 if leave == "closes" else 1006]


async def test_nothing_is_written_to_a_socket_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that never waits notices by itself that its client has vanished: asyncio has nothing to warn of."""
    hub = Hub()

    class Endless(WebSocketHandler):
        @on("count")
        async def count(self, message: None) -> AsyncIterator[int]:
            for number in range(10**9):
                yield number

    async with serve(app_of(Endless, hub=hub), ws=DIRECT) as server:
        for _ in range(5):
            async with RawClient(server) as client:
                await client.handshake()
                client.send(text('{"type":"count","data":null,"id":1}'))
                await client.frame()
                client.reset()
                await eventually(lambda: not hub.connections)
    if server.certificate is None:  # over TLS, asyncio does not tell before the event loop has its turn
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
