"""Before accept: the first guard that fails, in any way, is the last thing that ran; and accept itself can fail."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, Query
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.support import Server, connect, eventually, serve
from wsrouter import Deny, Limits, WebSocketHandler, WebSocketRouter

PLACES = ["outer guard", "guard's dependency", "inner guard", "class guard", "constructor", "on_connect"]
PARAMETERS = ["outer", "of_dependency", "inner", "of_class", "of_constructor", "of_on_connect"]


async def status_of_denial(server: Server, path: str) -> int:
    with pytest.raises(InvalidStatus) as denied:
        await connect(server, path)
    return denied.value.response.status_code


def application_with_parameters(events: list[str]) -> FastAPI:
    """Everything that runs before accept wants a query parameter of its own."""

    async def outer_guard(outer: int) -> None:
        events.append("outer guard")

    async def dependency(of_dependency: int) -> None:
        events.append("guard's dependency")

    async def inner_guard(dependency: Annotated[None, Depends(dependency)], inner: int) -> None:
        events.append("inner guard")

    async def class_guard(of_class: int) -> AsyncGenerator[None]:
        events.append("class guard")
        yield

    class Quiet(WebSocketHandler):
        guards = [class_guard]

        def __init__(self, of_constructor: int) -> None:
            events.append("constructor")

        async def on_connect(self, of_on_connect: int) -> None:
            events.append("on_connect")

    inner = WebSocketRouter(guards=[inner_guard])
    inner.add_handler("/quiet", Quiet)
    outer = WebSocketRouter(guards=[outer_guard])
    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer)
    return app


@pytest.mark.parametrize("given", ["", "x"], ids=["missing", "malformed"])
@pytest.mark.parametrize("bad", range(len(PLACES)), ids=PARAMETERS)
async def test_a_parameter_that_does_not_validate_stops_all_that_comes_after(bad: int, given: str) -> None:
    """A query parameter that is missing or malformed denies with 422 in its turn, and nothing after it runs."""
    values = ["1"] * len(PARAMETERS)
    values[bad] = given
    query = "&".join(f"{name}={value}" for name, value in zip(PARAMETERS, values, strict=True) if value)
    events: list[str] = []
    async with serve(application_with_parameters(events)) as server:
        assert await status_of_denial(server, f"/quiet?{query}") == 422
    assert events == PLACES[:bad]


async def test_parameters_are_read_by_everything_before_accept() -> None:
    """With all parameters given, guards, constructor and on_connect run in their order."""
    events: list[str] = []
    async with serve(application_with_parameters(events)) as server:
        query = "&".join(f"{name}=1" for name in PARAMETERS)
        async with connect(server, f"/quiet?{query}"):
            await eventually(lambda: len(events) == len(PLACES))
    assert events == PLACES


async def test_parameters_of_headers_and_cookies_are_validated_in_their_turn() -> None:
    """A header that is missing in the first guard is what the client hears of, not the cookie of the second."""

    async def wants_header(x_key: Annotated[str, Header()]) -> None: ...

    async def wants_query(token: Annotated[str, Query(min_length=3)]) -> None:
        raise Deny(401)

    router = WebSocketRouter(guards=[wants_header, wants_query])
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        assert await status_of_denial(server, "/?token=abc") == 422
        with pytest.raises(InvalidStatus) as denied:
            await connect(server, "/?token=abc", additional_headers={"x-key": "k"})
        assert denied.value.response.status_code == 401


async def test_a_guard_that_swallows_its_cancellation_does_not_outwit_the_deadline() -> None:
    """A guard that goes on after its time is up is denied with 503, and nothing after it runs."""
    events: list[str] = []

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        events.append("stubborn guard")

    async def next_guard() -> None:
        events.append("next guard")

    class Quiet(WebSocketHandler):
        guards = [stubborn, next_guard]

        def __init__(self) -> None:
            events.append("constructor")

        async def on_connect(self) -> None:
            events.append("on_connect")

    router = WebSocketRouter(limits=Limits(handshake=0.1))
    router.add_handler("/", Quiet)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        assert await status_of_denial(server, "/") == 503
    assert events == ["stubborn guard"]


async def test_the_deadline_interrupts_a_guard_that_runs_in_a_thread_no_later_than_it_ends() -> None:
    """A plain def guard can't be interrupted: the denial comes when its thread ends, and nothing after it runs."""
    events: list[str] = []
    loop = asyncio.get_running_loop()
    denied_late = asyncio.Event()

    def slow() -> None:
        asyncio.run_coroutine_threadsafe(denied_late.wait(), loop).result()
        events.append("slow guard")

    async def next_guard() -> None:
        events.append("next guard")

    router = WebSocketRouter(guards=[slow, next_guard], limits=Limits(handshake=0.1))
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        loop.call_later(0.3, denied_late.set)
        assert await status_of_denial(server, "/") == 503
    assert events == ["slow guard"]


class AroundAccept:
    """ASGI middleware with something to do around the sending of ``websocket.accept``."""

    def __init__(self, app: ASGIApp, around: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
        self.app = app
        self.around = around
        self.received = asyncio.Event()
        """Set when the application has read a message, or that the client left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        async def note() -> Event:
            event = await receive()
            if event["type"] != "websocket.connect":
                self.received.set()
            return event

        async def accept(event: Event) -> None:
            if event["type"] == "websocket.accept":
                await self.around(lambda: send(event))
            else:
                await send(event)

        await self.app(scope, note, accept)


def application_that_holds(events: list[str], *, send: float = 0.1) -> FastAPI:
    """A guard and on_connect's dependency that hold something, for connections that fail at accept."""

    async def guard() -> AsyncGenerator[None]:
        await asyncio.sleep(0)  # so that somebody reads from here on
        events.append("guard opened")
        yield
        events.append("guard closed")

    async def greeting() -> AsyncGenerator[None]:
        events.append("greeting opened")
        try:
            yield
        finally:
            events.append("greeting closed")

    class Quiet(WebSocketHandler):
        async def on_connect(self, greeting: Annotated[None, Depends(greeting)]) -> None:
            events.append("on_connect")

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    router = WebSocketRouter(guards=[guard], limits=Limits(send=send))
    router.add_handler("/", Quiet)
    app = FastAPI()
    app.include_router(router)
    return app


RELEASED_AT_ACCEPT = ["guard opened", "greeting opened", "greeting closed", "guard closed"]


async def test_a_client_that_leaves_at_accept_is_no_connection() -> None:
    """When the server says at accept that the client has left, all is released, no hook runs, nothing is logged."""
    events: list[str] = []
    at_accept = asyncio.Event()

    async def around(accept: Callable[[], Awaitable[None]]) -> None:
        at_accept.set()
        await app.received.wait()
        await accept()

    app = AroundAccept(application_that_holds(events), around)
    async with serve(app) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await at_accept.wait()
        opening.cancel()
        await asyncio.wait([opening])
        await eventually(lambda: events == RELEASED_AT_ACCEPT)


@pytest.mark.logs_errors
async def test_an_accept_that_raises_releases_what_was_opened() -> None:
    """When middleware fails at accept, all is released, no hook runs, and the client gets HTTP 500."""
    events: list[str] = []

    async def around(accept: Callable[[], Awaitable[None]]) -> None:
        raise RuntimeError("no")

    async with serve(AroundAccept(application_that_holds(events), around)) as server:
        assert await status_of_denial(server, "/") == 500
    assert events == RELEASED_AT_ACCEPT


async def test_an_accept_that_does_not_get_out_is_given_up() -> None:
    """When accept is not sent within the time of a send, all is released and the client is turned away."""
    events: list[str] = []

    async def around(accept: Callable[[], Awaitable[None]]) -> None:
        await asyncio.Event().wait()

    async with serve(AroundAccept(application_that_holds(events), around)) as server:
        with pytest.raises(InvalidHandshake):
            await connect(server)
    assert events == RELEASED_AT_ACCEPT


async def test_a_message_that_comes_before_accept_has_returned_obeys_the_limits() -> None:
    """A client that sends too much at once, while middleware still works after accept, is closed with 1009."""
    events: list[str] = []

    async def around(accept: Callable[[], Awaitable[None]]) -> None:
        await accept()
        await app.received.wait()

    app = AroundAccept(application_that_holds(events, send=10), around)
    async with serve(app) as server, connect(server) as ws:
        await ws.send("x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert events[-2:] == ["on_disconnect", "guard closed"]


async def test_guards_constructor_and_on_connects_dependencies_share_one_deadline() -> None:
    """What each does within the deadline is too long together: the client gets 503, and on_connect never runs."""
    events: list[str] = []

    async def slow(name: str) -> None:
        await asyncio.sleep(0.4)
        events.append(name)

    async def guard() -> None:
        await slow("guard")

    async def of_constructor() -> None:
        await slow("constructor's dependency")

    async def of_on_connect() -> None:
        await slow("on_connect's dependency")

    class Quiet(WebSocketHandler):
        def __init__(self, dependency: Annotated[None, Depends(of_constructor)]) -> None: ...

        async def on_connect(self, dependency: Annotated[None, Depends(of_on_connect)]) -> None:
            events.append("on_connect")

    router = WebSocketRouter(guards=[guard], limits=Limits(handshake=1.0))
    router.add_handler("/", Quiet)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        assert await status_of_denial(server, "/") == 503
    assert events == ["guard", "constructor's dependency"]


@pytest.mark.logs_errors
async def test_a_guard_that_fails_to_let_go_does_not_change_the_denial(caplog: pytest.LogCaptureFixture) -> None:
    """When a guard denies and an earlier one fails, or hangs, as it is closed, the client gets the denial, the
    others are closed all the same, and it is logged."""
    events: list[str] = []

    async def first() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            events.append("first closed")

    async def fails() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            events.append("second fails")
            raise KeyError("lost")

    async def hangs() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            events.append("third hangs")
            await asyncio.Event().wait()

    async def denies() -> None:
        raise Deny(429)

    router = WebSocketRouter(guards=[first, fails, hangs, denies], limits=Limits(on_disconnect=0.1))
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        assert await status_of_denial(server, "/") == 429
    assert events == ["third hangs", "second fails", "first closed"]
    assert "while it let go of a denied connection" in caplog.text
