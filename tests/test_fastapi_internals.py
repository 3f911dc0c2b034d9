"""What is taken from FastAPI and Starlette without a public way is there, in every version that is tested."""

# What is private is looked at here.
# pyright: reportPrivateUsage=false

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from fastapi import Depends, FastAPI, WebSocket, routing
from fastapi.dependencies.utils import get_dependant
from fastapi.routing import iter_route_contexts
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.support import connect, serve
from wsrouter import ConfigurationError, Hub, WebSocketHandler, WebSocketRouter, _fastapi
from wsrouter.brokers.redis import RedisBroker
from wsrouter.routes import bind_routes


async def test_frames_go_past_what_starlette_wraps_around_send_and_no_further() -> None:
    """Of the functions around ``send`` only those of Starlette's exception handlers are passed by."""
    seen: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        seen.append(_fastapi.raw_channels(*_fastapi.channels_of(websocket))[1])
        await websocket.close()

    app = FastAPI()
    app.add_api_websocket_route("/", endpoint)
    given: list[Send] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(event: Any) -> None:
            await send(event)

        given.append(wrapped)
        await app(scope, receive, wrapped if scope["type"] == "websocket" else send)

    async with serve(outer) as server:
        with pytest.raises(InvalidStatus):
            await connect(server)
    assert seen == given[-1:]


async def test_a_middleware_sees_every_frame() -> None:
    """With ``direct=False`` a ``send`` that an ASGI middleware wraps is called for accept, messages and the close."""
    router = WebSocketRouter(direct=False)

    @router.handler("/")
    class Greeter(WebSocketHandler):
        async def on_connect(self) -> None:
            await self.close(1000, "done")

    app = FastAPI()
    app.include_router(router)
    sent: list[str] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(event: Any) -> None:
            sent.append(event["type"])
            await send(event)

        await app(scope, receive, wrapped if scope["type"] == "websocket" else send)

    async with serve(outer) as server, connect(server) as ws:
        await ws.wait_closed()
    assert sent == ["websocket.accept", "websocket.close"]


async def test_fastapi_solves_only_what_users_list() -> None:
    """What marks the routers of a handler is found at start, and costs a handshake nothing; other dependencies run."""
    calls: list[str] = []

    async def listed() -> None:
        calls.append("listed")

    inner = WebSocketRouter(prefix="/inner")
    inner.add_handler("/", WebSocketHandler)
    outer = WebSocketRouter(prefix="/outer")
    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer, dependencies=[Depends(listed)])
    async with serve(app) as server:
        for _ in range(2):
            async with connect(server, "/outer/inner/"):
                pass
        (route,) = [
            effective
            for context in iter_route_contexts(app.routes)
            if hasattr(effective := _fastapi.effective_route(context), "dependant")
            and effective.path == "/outer/inner/"
        ]
        assert [each.call for each in route.dependant.dependencies] == [listed]
    assert calls == ["listed", "listed"]


@pytest.mark.parametrize(("listed", "solved"), [((), False), ((Depends(lambda: None),), True)], ids=["none", "one"])
async def test_fastapi_is_passed_by_where_it_has_nothing_to_solve(listed: tuple[Any, ...], solved: bool) -> None:
    """Its exit stacks are there for dependencies that are listed on a router, and only then."""
    seen: list[bool] = []

    class Plain(WebSocketHandler):
        async def on_connect(self) -> None:
            seen.append("fastapi_inner_astack" in self.connection.scope)

    inner = WebSocketRouter(prefix="/inner", dependencies=listed)
    inner.add_handler("/", Plain)
    outer = WebSocketRouter(prefix="/outer")
    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer)
    async with serve(app) as server, connect(server, "/outer/inner/"):
        pass
    assert seen == [solved]


class Seen(WebSocketHandler):
    calls: ClassVar[list[str]] = []

    async def on_connect(self) -> None:
        self.calls.append("handler")


def around_the_endpoint(route: Any, note: Callable[[], None]) -> None:
    """Wrap an endpoint before its router is included, as some put a check of their own around every one."""
    endpoint = route.endpoint

    @functools.wraps(endpoint)
    async def wrapper(websocket: WebSocket) -> None:
        note()
        await endpoint(websocket)

    route.endpoint = wrapper


def around_the_call(route: Any, note: Callable[[], None]) -> None:
    call = route.dependant.call

    async def wrapper(websocket: WebSocket) -> None:
        note()
        await call(websocket)

    route.dependant.call = wrapper


def around_the_application(route: Any, note: Callable[[], None]) -> None:
    application = route.app

    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        note()
        await application(scope, receive, send)

    route.app = wrapper


def around_what_solves(route: Any, note: Callable[[], None]) -> None:
    """The application has FastAPI's outer part, with something else in it."""
    solve = routing.get_websocket_app(route.dependant)

    async def wrapper(websocket: WebSocket) -> None:
        note()
        await solve(websocket)

    route.app = routing.websocket_session(wrapper)


def a_dependency(route: Any, note: Callable[[], None]) -> None:
    async def dependency() -> None:
        note()

    route.dependant.dependencies.append(get_dependant(path=route.path, call=dependency))


@pytest.mark.parametrize("when", ["before it is bound", "later"])
@pytest.mark.parametrize(
    "change", [around_the_endpoint, around_the_call, around_the_application, around_what_solves, a_dependency]
)
async def test_what_others_put_into_a_route_runs_for_every_connection(
    change: Callable[[Any, Callable[[], None]], None], when: str
) -> None:
    """Whatever is put around an endpoint, it is not passed by."""

    def note() -> None:
        Seen.calls.append("theirs")

    router = WebSocketRouter()
    router.add_handler("/", Seen)
    if change is around_the_endpoint:
        change(router.routes[0], note)  # FastAPI takes it when it includes the route
    app = FastAPI()
    app.include_router(router)
    if when == "later":
        bind_routes(app.routes)
    if change is not around_the_endpoint:
        (route,) = [
            each for each in map(_fastapi.effective_route, iter_route_contexts(app.routes)) if each.name == "Seen"
        ]
        change(route, note)
    Seen.calls.clear()
    async with serve(app, lifespan="off") as server:
        for _ in range(2):
            async with connect(server):
                pass
    assert Seen.calls == ["theirs", "handler"] * 2


@pytest.mark.parametrize("part", ["solve_dependencies", "wrap_app_handling_exceptions", "WebSocket"])
async def test_who_puts_something_in_the_place_of_a_part_of_fastapi_sees_sessions_too(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that trace or check do so; it may be done while the application runs."""
    calls: list[str] = []
    usual = vars(routing)[part]

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append(part)
        return usual(*args, **kwargs)

    router = WebSocketRouter()
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        monkeypatch.setattr(routing, part, recorded)
        async with connect(server):
            pass
    assert calls == [part]


IMPORTED_LATER = """
import sys
from fastapi import FastAPI, routing
from fastapi.dependencies import utils
from starlette.testclient import TestClient

part = sys.argv[1]
usual = getattr(routing, part)
calls = []

async def solve(**arguments):
    calls.append(part)
    return await usual(**arguments)

def make(*arguments, **options):
    made = usual(*arguments, **options)

    async def recorded(*arguments):
        calls.append(part)
        await made(*arguments)

    return recorded

for module in (routing, utils):
    if hasattr(module, part):
        setattr(module, part, solve if part == "solve_dependencies" else make)

from wsrouter import WebSocketHandler, WebSocketRouter

router = WebSocketRouter()
router.add_handler("/", WebSocketHandler)
app = FastAPI()
app.include_router(router)
with TestClient(app) as client, client.websocket_connect("/"):
    pass
assert calls == [part]
"""


@pytest.mark.parametrize("part", ["solve_dependencies", "websocket_session", "get_websocket_app"])
def test_what_was_put_in_its_place_before_is_not_taken_for_fastapi_s(part: str) -> None:
    """It makes no difference who is imported first."""
    command = [sys.executable, "-c", IMPORTED_LATER, part]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr


async def test_a_handler_of_exceptions_may_accept_to_say_why() -> None:
    """What escapes from a session comes to the application's handler for it, as from any endpoint."""
    router = WebSocketRouter(hub=Hub(RedisBroker("redis://127.0.0.1:1")))
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)

    @app.exception_handler(ConfigurationError)
    async def explain(websocket: WebSocket, failure: ConfigurationError) -> None:
        await websocket.accept()
        await websocket.send_text("not started")
        await websocket.close(1011)

    async with serve(app, lifespan="off") as server:
        for _ in range(2):
            async with connect(server) as ws:
                assert await ws.recv() == "not started"


async def test_a_server_that_begins_with_something_else_is_told() -> None:
    """An event in the place of ``websocket.connect`` is an error of the server, and no handler is made."""
    router = WebSocketRouter()
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "extensions": {}}

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.receive", "text": "{}"}

    async def send(event: Any) -> None:
        raise AssertionError(f"nothing is answered, not {event}")

    bind_routes(app.routes)
    with pytest.raises(RuntimeError, match=r"'websocket\.connect', but got 'websocket\.receive'"):
        await app(scope, receive, send)
