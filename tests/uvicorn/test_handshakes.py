"""Handshakes that can't be accepted, or are not in time: each is answered, and no answer or log quotes the client."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.support import eventually, serve
from tests.uvicorn.serving import OURS, Recorder, turns
from tests.wire import RawClient, request, text
from wsrouter.uvicorn import WebSocketProtocol

SECRET = "s3cret-token"


@dataclass(frozen=True)
class Bad:
    """A request and the status that answers it."""

    name: str
    data: bytes
    status: int
    contains: bytes = b""
    """In the response's head, in lower case."""


def odd(name: str, value: str | bytes) -> bytes:
    return request(f"/?token={SECRET}", [(name, value)])


BAD = [
    Bad("a header of 9 KiB", odd("X-Long", SECRET * 800), 431),
    Bad("200 headers", request("/", [(f"X-{number}", SECRET) for number in range(200)]), 431),
    Bad("a path of 9 KiB", request(f"/{SECRET * 800}"), 414),
    Bad("a body", request("/", [("Content-Length", "5")]) + b"hello", 400),
    Bad("a body in chunks", request("/", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n0\r\n\r\n", 400),
    Bad("a malformed subprotocol", odd("Sec-WebSocket-Protocol", f"wsrouter.v1, bearer {SECRET}"), 400),
    Bad("an empty subprotocol", odd("Sec-WebSocket-Protocol", ""), 400),
    Bad("a subprotocol in quotes", odd("Sec-WebSocket-Protocol", f'"{SECRET}"'), 400),
    Bad("a malformed extension", odd("Sec-WebSocket-Extensions", f"permessage-deflate; {SECRET}=="), 400),
    Bad("two Origin headers", request("/", [("Origin", f"https://{SECRET}"), ("Origin", "https://b.example")]), 400),
    Bad("a second key", odd("Sec-WebSocket-Key", SECRET), 400),
    Bad("no key", request().replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    Bad("a key of another length", request().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhl"), 400),
    Bad("another version", request().replace(b"Version: 13", b"Version: 8"), 400),
    Bad("no GET", request().replace(b"GET", b"POST"), 405, b"allow: get"),
    Bad("two upgrades", request("/", [("Upgrade", "websocket")]), 426, b"upgrade: websocket"),
]


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_a_bad_handshake_is_answered(bad: Bad, http: str, caplog: pytest.LogCaptureFixture) -> None:
    """It gets a status and a sentence, the connection ends, the application never hears of it."""
    app = Recorder()
    with caplog.at_level(logging.DEBUG):
        async with serve(app, ws=OURS, lifespan="off", http=http) as server, RawClient(server) as client:
            client.send(bad.data)
            assert await client.answer() == bad.status
            assert bad.contains in client.head
            body = await client.end()
    assert body
    assert app.scope == {}
    assert not [text for text in (client.head.decode(), body.decode(), caplog.text) if SECRET in text]
    assert f'"WebSocket handshake" {bad.status}' in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_an_answer_that_does_not_come_is_503(caplog: pytest.LogCaptureFixture) -> None:
    """An application that does not decide in time: the client gets 503, the application that it has left."""
    seen: list[Any] = []

    class Quick(WebSocketProtocol):
        accept_timeout = 0.2

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        seen.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as exc:
            seen.append(type(exc).__name__)

    with caplog.at_level(logging.INFO, "uvicorn.error"):
        async with serve(app, ws=Quick, lifespan="off") as server, RawClient(server) as client:
            assert await client.handshake(f"/late?token={SECRET}") == 503
            assert b"in time" in await client.end()
            await eventually(lambda: len(seen) == 3)
    assert seen[1:] == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}, "ClientDisconnected"]
    assert '"WebSocket /late" 503' in caplog.text


async def test_a_denial_that_is_not_finished_in_time_is_503() -> None:
    """A response that has begun and does not go on is answered in place of the application."""

    class Quick(WebSocketProtocol):
        accept_timeout = 0.2

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await receive()
        await receive()

    async with serve(app, ws=Quick, lifespan="off") as server, RawClient(server) as client:
        assert await client.handshake() == 503


async def test_a_client_that_leaves_before_accept_is_noticed() -> None:
    """The application gets `websocket.disconnect` with 1006, and can't accept any more."""
    seen: list[Any] = []
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        asked.set()
        seen.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as exc:
            seen.append(type(exc).__name__)

    async with serve(app, ws=OURS, lifespan="off") as server:
        async with RawClient(server) as client:
            client.send(request())
            await asked.wait()
        await eventually(lambda: len(seen) == 2)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}, "ClientDisconnected"]


async def deny_with_a_close(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4403})


async def deny_with_a_response(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"www-authenticate", b"Bearer")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"who are ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"you?"})


@pytest.mark.parametrize(
    ("app", "status", "body"), [(deny_with_a_close, 403, b""), (deny_with_a_response, 401, b"who are you?")]
)
async def test_a_denial_is_one_line_of_the_log(
    app: Any, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A denial is no error; the line that tells of it has the path, and not the query."""
    with caplog.at_level(logging.INFO):
        async with serve(app, ws=OURS, lifespan="off") as server, RawClient(server) as client:
            assert await client.handshake(f"/a%20room?token={SECRET}") == status
            assert await client.end() == body
    lines = [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]
    assert [line.partition(" - ")[2] for line in lines] == [f'"WebSocket /a%20room" {status}']
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_an_accept_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the client's address and the path, and not the query."""
    with caplog.at_level(logging.INFO):
        async with serve(Recorder(), ws=OURS, lifespan="off") as server, RawClient(server) as client:
            assert await client.handshake(f"/room?token={SECRET}") == 101
    [line] = [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]
    assert line.startswith("127.0.0.1:")
    assert line.endswith(' - "WebSocket /room" [accepted]')
    assert SECRET not in caplog.text


async def test_what_comes_before_accept_is_received_after_it() -> None:
    """A client that does not wait for the response loses nothing, and takes no more than 64 KiB and a read."""
    asked, decide = asyncio.Event(), asyncio.Event()
    app = Recorder()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await decide.wait()
        await app(scope, receive, send)

    async with serve(slow, ws=OURS, lifespan="off") as server, RawClient(server) as client:
        client.send(request())
        await asked.wait()
        client.send(text("x" * 100) * 5000)
        await turns()
        decide.set()
        assert await client.answer() == 101
        await eventually(lambda: len(app.events) == 5000, 10)
