"""What a connection leaves behind: nothing that only the garbage collector could free."""

import asyncio
import gc
import weakref
from collections.abc import Generator
from typing import Any

import pytest

from tests.envelopes import app_of
from tests.paths import each_path
from tests.support import eventually, serve
from tests.uvicorn.serving import turns
from tests.wire import CLOSE, RawClient, text
from wsrouter import Connection, Deny, Envelope, WebSocketHandler
from wsrouter.transports import transport_of


@pytest.fixture
def no_collector() -> Generator[None]:
    """Turn the garbage collector off, so that only what nothing refers to is freed."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Answering(WebSocketHandler):
    async def on_message(self, message: Envelope) -> int:
        return 1


@each_path
@pytest.mark.parametrize("end", ["closes", "vanishes", "is denied", "leaves early"])
async def test_a_connection_is_freed_at_its_end(ws: str, end: str, no_collector: None) -> None:
    """The connection, and the protocol class that served it, are freed as soon as all is over."""
    kept: list[weakref.ref[Any]] = []
    asked, left = asyncio.Event(), asyncio.Event()

    async def guard(connection: Connection) -> None:
        kept.append(weakref.ref(connection))
        transport: Any = transport_of(connection.scope)
        if transport is not None:
            kept.append(weakref.ref(transport))
        asked.set()
        if end == "is denied":
            raise Deny(403)
        if end == "leaves early":
            await left.wait()

    async with serve(app_of(Answering, guards=[guard]), ws=ws) as server:
        async with RawClient(server) as client:
            asking = asyncio.create_task(client.handshake())
            await asked.wait()
            if end == "leaves early":
                client.drop()
                await asyncio.gather(asking, return_exceptions=True)
                left.set()
            else:
                assert await asking == (403 if end == "is denied" else 101)
            if end == "closes":
                client.send(text('{"type":"any","id":1}'))
                assert (await client.frame())[0] == 1
                client.send(CLOSE)
                await client.end()
            elif end == "vanishes":
                client.reset()
            await eventually(lambda: not [ref for ref in kept if ref() is not None])
        await turns()  # or uvicorn's own class is told to close while it does, over TLS, and fails
