"""What is taken from FastAPI and Starlette without a public way is there, in every version that is tested."""

# What is private is looked at here.
# pyright: reportPrivateUsage=false

from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.routing import iter_route_contexts
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.support import connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter, _fastapi
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
