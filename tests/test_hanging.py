"""What never ends by itself: every wait for an application's clean-up has a deadline once the client has left."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support import connect, eventually, serve, vanish
from wsrouter import Limits, Message, WebSocketHandler, WebSocketRouter, on

LIMITS = Limits(drain=0.1, on_disconnect=0.3, close=0.1)


class Work(Message):
    pass


class Place:
    """One place in which a message hangs for good."""

    def __init__(self) -> None:
        self.hangs = asyncio.Event()
        self.events: list[str] = []

    async def hang(self) -> None:
        self.hangs.set()
        await asyncio.Event().wait()

    async def dependency(self) -> AsyncIterator[None]:
        yield
        await self.hang()

    async def middleware(self, message: Any, connection: Any, call_next: Callable[[Any], Awaitable[Any]]) -> None:
        await call_next(message)
        await self.hang()

    async def handled(self, exc: LookupError) -> None:
        await self.hang()


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("where", ["clean-up", "middleware", "exception handler"])
@pytest.mark.logs_errors
async def test_a_message_that_hangs_after_its_method_ends_with_the_connection(
    where: str, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The client leaves: after the drain and the time for clean-up it is cancelled, and `on_disconnect` runs."""
    place = Place()

    async def plain() -> None: ...

    dependency: Any = place.dependency if where == "clean-up" else plain

    class Worker(WebSocketHandler):
        max_in_flight = most

        @on
        async def work(self, message: Work, opened: Annotated[None, Depends(dependency)]) -> None:
            if where == "exception handler":
                raise LookupError

        async def on_disconnect(self) -> None:
            place.events.append("on_disconnect")

    router = WebSocketRouter(limits=LIMITS, middleware=[place.middleware] if where == "middleware" else ())
    router.exception_handler(LookupError)(place.handled)
    router.add_handler("/", Worker)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        ws = await connect(server)
        await ws.send('{"type":"work","id":1}')
        await asyncio.wait_for(place.hangs.wait(), 5)
        await vanish(ws)
        await eventually(lambda: place.events == ["on_disconnect"], timeout=5)
    assert "did not end after the client had left" in caplog.text


async def test_a_scope_around_the_application_does_not_make_it_spin() -> None:
    """An anyio scope that a middleware cancels ends the connection through `on_disconnect`, at no cost meanwhile."""
    events: list[str] = []
    used: list[float] = []

    class Guest(WebSocketHandler):
        async def on_disconnect(self) -> None:
            began = time.thread_time()
            await asyncio.sleep(0.5)
            used.append(time.thread_time() - began)
            events.append("on_disconnect")

    router = WebSocketRouter()
    router.add_handler("/", Guest)
    app = FastAPI()
    app.include_router(router)

    class Hurried:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with anyio.move_on_after(0.2 if scope["type"] == "websocket" else None):
                await self.app(scope, receive, send)

    app.add_middleware(Hurried)
    async with serve(app) as server, connect(server) as ws:
        await asyncio.wait_for(ws.wait_closed(), 5)
        assert ws.close_code == 1012
        await eventually(lambda: events == ["on_disconnect"], timeout=5)
    assert used[0] < 0.25
