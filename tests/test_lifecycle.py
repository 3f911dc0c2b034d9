"""The life of a connection: what is called and released, in which order, whatever goes wrong at whatever point."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import Server, connect, serve, vanish
from wsrouter import CloseInfo, ConnectionScoped, Deny, Limits, Message, WebSocketHandler, WebSocketRouter, on

Fault = Literal["raise", "deny", "time out", "leave", "cancel"]

GUARDS = ["pool opened", "outer guard opened", "inner guard", "class guard opened", "pool closed"]
CONSTRUCTOR = ["settings", "lease opened", "constructor"]
CONNECT = ["greeting opened", "on_connect", "on_connect went on", "greeting closed"]
SAY_1 = ["session opened", "say 1", "session closed"]
SAY_2 = ["session opened", "say 2", "session closed"]
LEAVE = ["farewell opened", "on_disconnect", "farewell closed"]
RELEASE = ["lease closed", "class guard closed", "outer guard closed"]
WHOLE_LIFE = [*GUARDS, *CONSTRUCTOR, *CONNECT, *SAY_1, *SAY_2, *LEAVE, *RELEASE]

LIMITS = Limits(handshake=0.25, message_timeout=0.25, on_disconnect=0.25, drain=0.25)


class Say(Message):
    number: int


class Story:
    """What happened, in order, and the one point at which something goes wrong."""

    def __init__(self, point: str = "", fault: Fault = "raise") -> None:
        self.point = point
        self.fault: Fault = fault
        self.events: list[str] = []
        self.reached = asyncio.Event()
        self.close: CloseInfo | None = None

    async def reach(self, point: str) -> None:
        self.reach_now(point)
        if point == self.point and not self.reached.is_set():
            self.reached.set()
            await asyncio.Event().wait()

    def reach_now(self, point: str) -> None:
        self.events.append(point)
        if point == self.point and not self.reached.is_set():
            if self.fault == "raise":
                self.reached.set()
                raise ValueError(point)
            if self.fault == "deny":
                self.reached.set()
                raise Deny(403, reason=point)

    @asynccontextmanager
    async def holding(self, name: str) -> AsyncGenerator[None]:
        await self.reach(f"{name} opened")
        try:
            yield
        except BaseException as exc:
            self.events.append(f"{name} closed after {type(exc).__name__}")
            raise
        await self.reach(f"{name} closed")


def application(story: Story, in_flight: int = 1) -> FastAPI:
    """A handler under two routers, with something to open and to close at every point of its life."""

    async def pool() -> AsyncGenerator[None]:
        async with story.holding("pool"):
            yield

    async def outer_guard(connection: Annotated[None, Depends(pool)]) -> AsyncGenerator[None]:
        async with story.holding("outer guard"):
            yield

    async def inner_guard() -> None:
        await story.reach("inner guard")

    async def class_guard() -> AsyncGenerator[None]:
        async with story.holding("class guard"):
            yield

    async def settings() -> None:
        await story.reach("settings")

    async def lease() -> AsyncGenerator[None]:
        async with story.holding("lease"):
            yield

    async def greeting() -> AsyncGenerator[None]:
        async with story.holding("greeting"):
            yield

    async def session() -> AsyncGenerator[None]:
        async with story.holding("session"):
            yield

    async def farewell() -> AsyncGenerator[None]:
        async with story.holding("farewell"):
            yield

    class Talk(WebSocketHandler):
        guards = [class_guard]
        max_in_flight = in_flight

        def __init__(
            self, settings: Annotated[None, Depends(settings)], lease: Annotated[None, ConnectionScoped(lease)]
        ) -> None:
            story.reach_now("constructor")

        async def on_connect(self, greeting: Annotated[None, Depends(greeting)]) -> None:
            await story.reach("on_connect")
            await asyncio.sleep(0)
            await story.reach("on_connect went on")

        @on
        async def say(self, message: Say, session: Annotated[None, Depends(session)]) -> None:
            await story.reach(f"say {message.number}")

        async def on_disconnect(self, close: CloseInfo, farewell: Annotated[None, Depends(farewell)]) -> None:
            story.close = close
            await story.reach("on_disconnect")

    inner = WebSocketRouter(prefix="/inner", guards=[inner_guard])
    inner.add_handler("/talk", Talk)
    between = APIRouter()
    between.include_router(inner)
    outer = WebSocketRouter(prefix="/outer", guards=[outer_guard], limits=LIMITS)
    outer.include_router(between)
    app = FastAPI()
    app.include_router(outer)
    return app


async def visit(server: Server, story: Story) -> list[str]:
    """Connect, say two things and leave, or leave before where the story says so; return what was heard."""
    opening = asyncio.ensure_future(open_talk(server))
    if story.fault == "leave" and story.point in BEFORE_ACCEPT:
        await story.reached.wait()
        opening.cancel()
        await asyncio.wait([opening])
        return []
    try:
        ws = await opening
    except InvalidStatus as denied:
        return [f"HTTP {denied.response.status_code}"]
    talking = asyncio.ensure_future(talk(ws))
    if story.fault == "leave":
        await story.reached.wait()
        await vanish(ws)
    return await talking


async def open_talk(server: Server) -> ClientConnection:
    return await connect(server, "/outer/inner/talk")


async def talk(ws: ClientConnection) -> list[str]:
    heard: list[str] = []
    try:
        for number in (1, 2):
            await ws.send(json.dumps({"type": "say", "id": number, "data": {"number": number}}))
            reply = json.loads(await ws.recv())
            heard.append(f"{reply['type']} {reply.get('error', {}).get('code', '')}".strip())
        await ws.close(1000, "enough")
    except ConnectionClosed as closed:
        heard.append(f"closed {closed.rcvd.code}" if closed.rcvd else "closed")
    return heard


async def test_a_connection_is_served_from_the_outermost_guard_to_the_last_release() -> None:
    """Guards run from outer to inner, then constructor, on_connect, messages, on_disconnect; what was opened
    is closed with the call that it was opened for, or at the end in the reverse order."""
    story = Story()
    async with serve(application(story)) as server:
        assert await visit(server, story) == ["$ok", "$ok"]
    assert story.events == WHOLE_LIFE
    assert story.close == CloseInfo(1000, "enough", "client")


BEFORE_ACCEPT = {
    "pool opened": "",
    "outer guard opened": "pool",
    "inner guard": "pool, outer guard",
    "class guard opened": "pool, outer guard",
    "pool closed": "class guard, outer guard",
    "settings": "class guard, outer guard",
    "lease opened": "class guard, outer guard",
    "constructor": "lease, class guard, outer guard",
    "greeting opened": "lease, class guard, outer guard",
}
"""What is closed when something fails at a point before accept."""

SEEN: dict[Fault, tuple[str, str]] = {
    "raise": (" after ValueError", " after ValueError"),
    "deny": (" after Deny", " after Deny"),
    "time out": (" after CancelledError", " after Deny"),
    "leave": (" after CancelledError", ""),
    "cancel": (" after CancelledError", ""),
}
"""The exception that a dependency of the guards sees, and one that lives as long as the connection."""

HEARD_BEFORE_ACCEPT: dict[Fault, list[str]] = {
    "raise": ["HTTP 500"],
    "deny": ["HTTP 403"],
    "time out": ["HTTP 503"],
    "leave": [],
    "cancel": ["HTTP 500"],
}


def until(point: str) -> list[str]:
    """Return what happens up to a point when nothing goes wrong before it."""
    return WHOLE_LIFE[: WHOLE_LIFE.index(point) + 1]


def closed_before_accept(point: str, fault: Fault) -> list[str]:
    of_call, of_connection = SEEN[fault]
    names = [name for name in BEFORE_ACCEPT[point].split(", ") if name]
    return [f"{name} closed{of_call if name == 'pool' else of_connection}" for name in names]


def failures_before_accept() -> Iterator[tuple[str, Fault]]:
    for point in BEFORE_ACCEPT:
        yield point, "raise"
        yield point, "deny"
        if point != "constructor":  # which can't wait
            yield point, "time out"
            yield point, "leave"


@pytest.mark.logs_errors
@pytest.mark.parametrize(("point", "fault"), list(failures_before_accept()))
async def test_what_fails_before_accept_is_the_last_thing_that_ran(point: str, fault: Fault) -> None:
    """After a failure before accept nothing more is called, what was opened is closed once, and the client
    hears why; on_disconnect does not run."""
    story = Story(point, fault)
    async with serve(application(story)) as server:
        assert await visit(server, story) == HEARD_BEFORE_ACCEPT[fault]
    assert story.events == [*until(point), *closed_before_accept(point, fault)]


def failures_after_accept() -> Iterator[tuple[str, Fault, list[str], list[str]]]:
    """Yield a point, a fault, what happens after it, and what the client hears."""
    end = [*LEAVE, *RELEASE]
    for point in ("on_connect", "on_connect went on"):
        yield point, "raise", ["greeting closed after ValueError", *end], ["closed 1011"]
        yield point, "deny", ["greeting closed after Deny", *end], ["closed 4403"]
        yield point, "leave", ["greeting closed after CancelledError", *end], ["closed"]
    yield "greeting closed", "raise", end, ["closed 1011"]
    yield "greeting closed", "deny", end, ["closed 4403"]

    goes_on = [*SAY_2, *LEAVE, *RELEASE]
    yield "session opened", "raise", goes_on, ["$error internal", "$ok"]
    yield "session opened", "deny", goes_on, ["$error forbidden", "$ok"]
    yield "session opened", "time out", goes_on, ["$error timeout", "$ok"]
    yield "session opened", "leave", end, ["closed"]
    yield "say 1", "raise", ["session closed after ValueError", *goes_on], ["$error internal", "$ok"]
    yield "say 1", "deny", ["session closed after Deny", *goes_on], ["$error forbidden", "$ok"]
    yield "say 1", "time out", ["session closed after CancelledError", *goes_on], ["$error timeout", "$ok"]
    yield "say 1", "leave", ["session closed after CancelledError", *end], ["closed"]
    yield "session closed", "raise", goes_on, ["$error internal", "$ok"]
    yield "session closed", "deny", goes_on, ["$error forbidden", "$ok"]

    well: tuple[str, str] = ("$ok", "$ok")
    yield "farewell opened", "raise", RELEASE, [*well]
    yield "farewell opened", "deny", RELEASE, [*well]
    yield "farewell opened", "time out", RELEASE, [*well]
    yield "on_disconnect", "raise", ["farewell closed after ValueError", *RELEASE], [*well]
    yield "on_disconnect", "deny", ["farewell closed after Deny", *RELEASE], [*well]
    yield "on_disconnect", "time out", ["farewell closed after CancelledError", *RELEASE], [*well]
    yield "farewell closed", "raise", RELEASE, [*well]
    yield "farewell closed", "time out", RELEASE, [*well]

    guards_after = ["class guard closed after {}", "outer guard closed after {}"]
    yield "lease closed", "raise", [each.format("ValueError") for each in guards_after], [*well]
    yield "lease closed", "time out", [each.format("CancelledError") for each in guards_after], [*well]
    yield "outer guard closed", "raise", [], [*well]
    yield "outer guard closed", "time out", [], [*well]


@pytest.mark.logs_errors
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize(("point", "fault", "then", "heard"), list(failures_after_accept()))
async def test_what_fails_after_accept_skips_nothing_of_the_end(
    point: str, fault: Fault, then: list[str], heard: list[str], in_flight: int
) -> None:
    """After a failure since accept every call is closed, on_disconnect runs once, and everything is released
    once; a failed message leaves the connection alive."""
    story = Story(point, fault)
    async with serve(application(story, in_flight)) as server:
        assert await visit(server, story) == heard
    assert story.events == [*until(point), *then]


class Cancellable:
    """ASGI middleware through which a test cancels what is served, as a server does that won't wait longer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            self.task = asyncio.current_task()
        await self.app(scope, receive, send)

    def cancel(self) -> None:
        assert self.task is not None, "a client has connected"
        self.task.cancel()


def cancelled_after_accept() -> Iterator[tuple[str, list[str]]]:
    end = [*LEAVE, *RELEASE]
    yield "on_connect", ["greeting closed after CancelledError", *end]
    yield "greeting closed", end
    yield "session opened", end
    yield "say 1", ["session closed after CancelledError", *end]
    yield "session closed", end
    yield "farewell opened", RELEASE
    yield "on_disconnect", ["farewell closed after CancelledError", *RELEASE]
    yield "lease closed", ["class guard closed after CancelledError", "outer guard closed after CancelledError"]
    yield "outer guard closed", []


@pytest.mark.logs_errors
@pytest.mark.parametrize("point", [point for point in BEFORE_ACCEPT if point != "constructor"])
async def test_a_cancel_from_outside_before_accept_releases_what_was_opened(point: str) -> None:
    """A server that cancels a handshake gets it back with everything closed, and nothing more called."""
    story = Story(point, "cancel")
    app = Cancellable(application(story))
    async with serve(app) as server:
        visiting = asyncio.ensure_future(visit(server, story))
        await story.reached.wait()
        app.cancel()
        assert await visiting == ["HTTP 500"]
    assert story.events == [*until(point), *closed_before_accept(point, "cancel")]


@pytest.mark.logs_errors
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize(("point", "then"), list(cancelled_after_accept()))
async def test_a_cancel_from_outside_ends_a_connection_through_on_disconnect(
    point: str, then: list[str], in_flight: int
) -> None:
    """A server that cancels a connection has on_disconnect run once and everything released once, and the
    client hears 1012."""
    story = Story(point, "cancel")
    app = Cancellable(application(story, in_flight))
    async with serve(app) as server:
        visiting = asyncio.ensure_future(visit(server, story))
        await story.reached.wait()
        app.cancel()
        heard = await visiting
    assert story.events == [*until(point), *then]
    if point not in (*LEAVE, *RELEASE):
        assert heard[-1] == "closed 1012"
        assert story.close == CloseInfo(1012, "", "server")
