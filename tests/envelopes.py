"""What tests of messages share: one handler on a real server, one client, and the envelope by hand."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support import connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter


def app_of(handler: type[WebSocketHandler], **options: Any) -> FastAPI:
    """Return an application with one handler at ``/``, on a router with these options."""
    router = WebSocketRouter(**options)
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


@asynccontextmanager
async def client_of(
    served: type[WebSocketHandler] | WebSocketRouter,
    **options: Any,  # of the router around a handler
) -> AsyncGenerator[ClientConnection]:
    """Serve a handler, or a router with a handler at ``/``, and connect to it."""
    if isinstance(served, WebSocketRouter):
        app = FastAPI()
        app.include_router(served)
    else:
        app = app_of(served, **options)
    async with serve(app) as server, connect(server) as ws:
        yield ws


async def send(ws: ClientConnection, type: str, data: Any = None, **keys: Any) -> None:
    """Send a message."""
    await ws.send(json.dumps({"type": type, "data": data, **keys}))


async def receive(ws: ClientConnection) -> Any:
    """Return the next envelope."""
    async with asyncio.timeout(10):
        return json.loads(await ws.recv())


async def close_of(ws: ClientConnection) -> tuple[int | None, str | None]:
    """Return code and reason of the close frame, which comes next."""
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(10):
            await ws.recv()
    return ws.close_code, ws.close_reason
