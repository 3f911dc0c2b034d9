"""Ends that come from the server: it shuts down, it cancels, or it does not let anything out any more."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event
from websockets.exceptions import InvalidHandshake

from tests.support import connect, eventually, serve, vanish
from wsrouter import ConnectionScoped, Disconnect, Limits, WebSocketHandler, WebSocketRouter, on

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


def in_router(handler: type[WebSocketHandler], **options: Any) -> FastAPI:
    router = WebSocketRouter(**options)
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


SHORT_PATIENCE: dict[ServerName, dict[str, Any]] = {
    "uvicorn": {"timeout_graceful_shutdown": 0.2},
    "hypercorn": {"graceful_timeout": 0.2},
}


@pytest.mark.logs_errors
@each_server
async def test_a_server_that_shuts_down_ends_a_handshake(server_name: ServerName) -> None:
    """When the server goes while a guard waits, the guard is cancelled, what was held is released, and the
    handler is never constructed."""
    events: list[str] = []
    waiting = asyncio.Event()

    async def holding() -> AsyncGenerator[None]:
        yield
        events.append("released")

    async def guard() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    class Quiet(WebSocketHandler):
        guards = [holding, guard]

        def __init__(self) -> None:
            events.append("constructed")

    async with serve(in_router(Quiet), server=server_name, **SHORT_PATIENCE[server_name]) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await waiting.wait()
    with pytest.raises((InvalidHandshake, OSError)):
        await opening
    await eventually(lambda: events == ["cancelled", "released"])


@each_server
async def test_a_stream_of_on_connect_ends_when_the_client_leaves(server_name: ServerName) -> None:
    """An on_connect that streams is cancelled as soon as the client is gone, not only after the drain."""
    events: list[str] = []

    class Ticker(WebSocketHandler):
        async def on_connect(self) -> AsyncGenerator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                events.append("stream closed")

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    app = in_router(Ticker, limits=Limits(drain=30))
    async with serve(app, server=server_name) as server:
        ws = await connect(server)
        await ws.recv()
        await vanish(ws)
        await eventually(lambda: events == ["stream closed", "on_disconnect"])


@each_server
async def test_a_stream_that_never_waits_ends_when_the_client_leaves(server_name: ServerName) -> None:
    """A stream that only yields, as fast as it can, ends with the client, and does not stop the event loop."""
    events: list[str] = []

    class Firehose(WebSocketHandler):
        async def on_connect(self) -> AsyncGenerator[str]:
            try:
                while True:
                    yield "x" * 10_000
            finally:
                events.append("stream closed")

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    async with serve(in_router(Firehose), server=server_name) as server:
        ws = await connect(server, compression=None)
        await ws.recv()
        await vanish(ws)
        await eventually(lambda: events == ["stream closed", "on_disconnect"])


class SlowAccept:
    """ASGI middleware in which accept returns only when the client has left again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note() -> Event:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self.left.set()
            return event

        async def slow(event: Event) -> None:
            await send(event)
            if event["type"] == "websocket.accept":
                await self.left.wait()

        await self.app(scope, note, slow)


@each_server
@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_has_left_before_on_connect_is_not_waited_for(
    streams: bool, server_name: ServerName
) -> None:
    """With cancel_on_disconnect, or in a stream, an on_connect that begins after the client has left is
    cancelled as well."""
    events: list[str] = []

    async def guard() -> None:
        await asyncio.sleep(0)  # so that somebody reads from here on

    class Ends(WebSocketHandler):
        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    class Waits(Ends):
        cancel_on_disconnect = True

        async def on_connect(self) -> None:
            await asyncio.Event().wait()

    class Streams(Ends):
        async def on_connect(self) -> AsyncGenerator[int]:
            await asyncio.Event().wait()
            yield 1

    app = SlowAccept(in_router(Streams if streams else Waits, guards=[guard], limits=Limits(drain=30)))
    async with serve(app, server=server_name) as server:
        ws = await connect(server)
        await vanish(ws)
        await eventually(lambda: events == ["on_disconnect"])


class Stubborn:
    """ASGI middleware whose send of a close frame can't be cancelled before it is told."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.cancels = 0
        self.give_in = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hold(event: Event) -> None:
            if event["type"] == "websocket.close":
                while not self.give_in.is_set():
                    try:
                        await self.give_in.wait()
                    except asyncio.CancelledError:
                        self.cancels += 1
            await send(event)

        if scope["type"] == "websocket":
            self.task = asyncio.current_task()
        await self.app(scope, receive, hold)


@pytest.mark.logs_errors
async def test_a_send_that_can_not_be_stopped_does_not_keep_anything_open() -> None:
    """When middleware holds the last frame and even a cancel of it, all is released when the server cancels."""
    events: list[str] = []

    async def lease() -> AsyncGenerator[None]:
        yield
        events.append("released")

    class Closes(WebSocketHandler):
        def __init__(self, lease: Annotated[None, ConnectionScoped(lease)]) -> None: ...

        @on("leave")
        async def go(self, data: None) -> None:
            raise Disconnect

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    app = Stubborn(in_router(Closes, limits=Limits(close=0.5), direct=False))
    async with serve(app) as server:
        ws = await connect(server)
        await ws.send('{"type":"leave"}')
        await eventually(lambda: app.cancels > 0 and "on_disconnect" in events)
        assert app.task is not None
        app.task.cancel()
        await eventually(lambda: events == ["on_disconnect", "released"])
        app.give_in.set()
        await ws.close()


async def test_a_clean_up_takes_its_time_whatever_the_deadline_of_messages() -> None:
    """message_timeout is for the method: a clean-up that takes longer completes, and the reply is $ok."""
    events: list[str] = []

    async def session() -> AsyncGenerator[None]:
        yield
        await asyncio.sleep(0.2)
        events.append("committed")

    class Saves(WebSocketHandler):
        @on("save")
        async def save(self, data: None, session: Annotated[None, Depends(session)]) -> None: ...

    async with serve(in_router(Saves, limits=Limits(message_timeout=0.05))) as server, connect(server) as ws:
        await ws.send('{"type":"save","id":1}')
        assert await ws.recv() == '{"type":"$ok","id":1}'
    assert events == ["committed"]
