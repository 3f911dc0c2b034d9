"""What a connection leaves behind: nothing that only the garbage collector could free."""

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.envelopes import app_of
from tests.paths import each_path
from tests.support import eventually, serve
from tests.uvicorn.serving import turns
from tests.wire import CLOSE, RawClient, text
from wsrouter import Connection, ConnectionScoped, Deny, Disconnect, Envelope, WebSocketError, WebSocketHandler
from wsrouter.auth import Authenticator, Principal
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


class Renewed(Authenticator):
    async def __call__(self) -> Principal:
        return Principal("ada")

    async def renew(self, connection: Any, token: str) -> Principal:
        if token == "bad":
            raise WebSocketError("invalid", "The token is not valid")
        if token == "denied":
            raise Deny(403)
        return Principal(token)


@each_path
@pytest.mark.parametrize("token", ["ada", "eve", "bad", "denied"])
async def test_a_connection_is_freed_whose_token_was_looked_at(ws: str, token: str, no_collector: None) -> None:
    """So it is after `$auth`, also with another subject's token, and with one that is refused."""
    kept: list[weakref.ref[Any]] = []

    async def keep(connection: Connection) -> None:
        kept.append(weakref.ref(connection))

    async with serve(app_of(Answering, guards=[Renewed(), keep]), ws=ws) as server, RawClient(server) as client:
        await client.handshake()
        client.send(text(json.dumps({"type": "$auth", "id": 1, "data": {"token": token}})))
        answer = (await client.frame())[1]
        assert (b"$ok" if token == "ada" else b"$error") in answer
        client.send(CLOSE)
        await client.end()
        await eventually(lambda: not [ref for ref in kept if ref() is not None])
        await turns()


@each_path
@pytest.mark.parametrize("end", ["closes", "is disconnected"])
async def test_a_handler_is_freed_before_what_it_uses_is_closed(ws: str, end: str, no_collector: None) -> None:
    """What a handler does when it is freed can still use what is `ConnectionScoped`."""
    order: list[str] = []

    async def engine() -> AsyncGenerator[str]:
        yield "engine"
        order.append("engine")

    class Using(WebSocketHandler):
        def __init__(self, engine: str = ConnectionScoped(engine)) -> None:
            weakref.finalize(self, order.append, "handler")

        async def on_connect(self) -> None:
            if end == "is disconnected":
                raise Disconnect(4000)

    async with serve(app_of(Using), ws=ws) as server, RawClient(server) as client:
        await client.handshake()
        if end == "is disconnected":
            await client.frame()
        client.send(CLOSE)
        await client.end()
        await eventually(lambda: len(order) == 2)
        await turns()
    assert order == ["handler", "engine"]


@each_path
async def test_a_connection_is_freed_that_was_cancelled(ws: str, no_collector: None) -> None:
    """A middleware with a deadline cancels the session; nothing of it is left either."""
    kept: list[weakref.ref[Any]] = []

    async def keep(connection: Connection) -> None:
        kept.append(weakref.ref(connection))

    app = app_of(Answering, guards=[keep])

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1 if scope["type"] == "websocket" else None):
                await app(scope, receive, send)

    async with serve(limited, ws=ws) as server, RawClient(server) as client:
        await client.handshake()
        assert await client.frame() == (8, (1012).to_bytes(2))
        client.send(CLOSE)
        await client.end()
        await eventually(lambda: not [ref for ref in kept if ref() is not None])
        await turns()
