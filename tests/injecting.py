"""What tests of injection share: an application with handlers, and a call over the client in process."""

from typing import Any

from fastapi import FastAPI

from wsrouter import WebSocketHandler, WebSocketRouter
from wsrouter.testing import TestConnection


def app_of(handler: type[WebSocketHandler], path: str = "/ws", **options: Any) -> FastAPI:
    """Return an application with one handler, on a router with these options."""
    router = WebSocketRouter(**options)
    router.add_handler(path, handler)
    app = FastAPI()
    app.include_router(router)
    return app


async def call(ws: TestConnection, type: str = "use", data: Any = None) -> Any:
    """Send a message with an id, and return the data of what comes next, which is to be a success."""
    await ws.send_json({"type": type, "id": 1} if data is None else {"type": type, "id": 1, "data": data})
    reply = await ws.receive()
    assert reply["type"] == "$ok", reply
    return reply.get("data")
