"""What is taken from FastAPI and Starlette without a public way is there, in every version that is tested."""

# What is private is looked at here.
# pyright: reportPrivateUsage=false

from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.support import connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter, _fastapi


async def test_frames_go_past_what_starlette_wraps_around_send_and_no_further() -> None:
    """Of the functions around ``send`` only those of Starlette's exception handlers are passed by."""
    seen: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        seen.append(_fastapi.raw_channels(websocket)[1])
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
    """A ``send`` that an ASGI middleware wraps is called for accept, messages and the close."""
    router = WebSocketRouter()

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
