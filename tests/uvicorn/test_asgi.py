"""The ASGI side of the protocol class: what uvicorn's own does, and a close frame where that has none."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support import connect, eventually, serve, vanish
from tests.uvicorn.serving import OURS, STOCK, Recorder, StalledClient, close, fill, frame, turns
from tests.wire import RawClient, text
from wsrouter.transports import framed
from wsrouter.uvicorn import WebSocketProtocol

each_class = pytest.mark.parametrize("ws", [STOCK, OURS])


async def test_the_scope_is_that_of_uvicorns_own_class() -> None:
    """Every key is there with the same value; `extensions` has one more."""
    scopes: list[Scope] = []
    headers = [("Sec-WebSocket-Protocol", "one, two"), ("Sec-WebSocket-Protocol", "three"), ("X-Odd", "\xe9")]
    for ws in (STOCK, OURS):
        app = Recorder()
        async with serve(app, ws=ws, lifespan="off", root_path="/api") as server, RawClient(server) as client:
            assert await client.handshake("/a%20path/%E2%82%AC?q=1&q=2?", headers) == 101
        scopes.append(app.scope)
    stock, ours = scopes
    assert ours["subprotocols"] == ["one", "two", "three"]
    assert ours["path"] == "/api/a path/€"
    assert ours["extensions"].keys() - stock["extensions"].keys() == {"wsrouter.transport"}
    for scope in scopes:
        del scope["extensions"], scope["client"], scope["server"]
    assert ours == stock


async def test_accept_answers_with_subprotocol_and_headers() -> None:
    """What `websocket.accept` carries is in the response, beside the server's own headers, once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"x-one", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        await receive()

    async with serve(app, ws=OURS, lifespan="off") as server, RawClient(server) as client:
        assert await client.handshake("/", [("Sec-WebSocket-Protocol", "one, two")]) == 101
        lines = client.head.split(b"\r\n")
        for line in (b"sec-websocket-protocol: two", b"x-one: 1", b"set-cookie: a=1", b"set-cookie: b=2"):
            assert lines.count(line) == 1
        assert len([line for line in lines if line.startswith(b"date:")]) == 1
        assert b"server: uvicorn" in lines
        client.send(close())
        await client.end()


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["path"] == "/accepted":
        await send({"type": "websocket.accept"})
    raise LookupError("on purpose")


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["path"] == "/accepted":
        await send({"type": "websocket.accept"})


@pytest.mark.logs_errors
@pytest.mark.parametrize(("app", "code", "line"), [(fails, 1011, "on purpose"), (returns, 1000, "")])
async def test_an_application_that_ends_closes(
    app: ASGIApp, code: int, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After accept, an exception closes with 1011 and is logged with its traceback, a return closes with 1000."""
    async with serve(app, ws=OURS, lifespan="off") as server, connect(server, "/accepted") as ws:
        await ws.wait_closed()
        assert ws.close_code == code
    assert line in caplog.text
    assert bool(line) is bool([record for record in caplog.records if record.levelno >= logging.ERROR])


@pytest.mark.logs_errors
@pytest.mark.parametrize(("app", "line"), [(fails, "on purpose"), (returns, "without completing handshake")])
async def test_an_application_that_decides_nothing_is_500(
    app: ASGIApp, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before accept either is an error of the application's: HTTP 500, and a line in the log."""
    async with serve(app, ws=OURS, lifespan="off") as server, RawClient(server) as client:
        assert await client.handshake() == 500
        assert b"Internal Server Error" in await client.end()
    assert line in caplog.text


@each_class
async def test_a_close_of_the_application_ends_both_sides(ws: str) -> None:
    """The client gets code and reason, the application `websocket.disconnect` at once, and may not send any more."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        seen.append(await receive())
        with pytest.raises(RuntimeError, match="Unexpected ASGI message"):
            await send({"type": "websocket.send", "text": "late"})

    async with serve(app, ws=ws, lifespan="off") as server, connect(server) as client:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4001, "enough")
    assert seen == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]


@each_class
async def test_after_the_clients_close_nothing_can_be_sent(ws: str) -> None:
    """`send` raises an OSError once the client has closed, and `websocket.close` does nothing."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as exc:
            seen.append(type(exc).__name__)

    async with serve(app, ws=ws, lifespan="off") as server, connect(server) as client:
        await client.close(4000, "bye")
        await eventually(lambda: len(seen) == 2)
    assert seen == [{"type": "websocket.disconnect", "code": 4000, "reason": "bye"}, "ClientDisconnected"]


@pytest.mark.logs_errors
@pytest.mark.parametrize("code", [0, 1005, 1006, 2999, 5000])
async def test_a_code_that_nobody_may_send_is_an_error(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """It raises, so that it is seen; the client still gets a close frame."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code})

    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as client:
        await client.wait_closed()
        assert client.close_code == 1011
    assert f"{code} is no close code" in caplog.text


@pytest.mark.logs_errors
@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.body", "http.response.start"])
async def test_an_event_that_may_not_come_now_raises(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no event of an open connection raises, and says which are."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": kind})

    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as client:
        await client.wait_closed()
        assert client.close_code == 1011
    assert f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'" in caplog.text


async def test_a_client_that_vanishes_is_1006() -> None:
    """A connection that is lost is `websocket.disconnect` with 1006; asking again gives it again."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.extend([await receive() for _ in range(3)])

    async with serve(app, ws=OURS, lifespan="off") as server:
        await vanish(await connect(server))
        await eventually(lambda: len(seen) == 3)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}] * 3


async def test_two_may_receive_at_once() -> None:
    """Every message goes to one of those who wait for it; one that is cancelled loses none."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        first, second, third = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await send({"type": "websocket.send", "text": "now"})
        seen.extend([(await each)["text"] for each in (second, third)])
        await receive()

    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as client:
        await client.recv()
        await client.send("a")
        await client.send("b")
        await eventually(lambda: sorted(seen) == ["a", "b"])


async def test_what_was_received_before_the_client_vanished_is_given() -> None:
    """Messages that the socket gave before it broke are all received, in order, and the end after them."""
    go = asyncio.Event()
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        scope["extensions"]["wsrouter.transport"]["transport"].abort()
        await turns()
        while (event := await receive())["type"] == "websocket.receive":
            seen.append(event["text"])
        seen.append(event["code"])

    async with serve(app, ws=OURS, lifespan="off") as server, RawClient(server) as client:
        await client.handshake()
        client.send(b"".join(text(str(number)) for number in range(1000)))
        await turns()
        go.set()
        await eventually(lambda: seen and seen[-1] == 1006)
    assert seen == [*map(str, range(1000)), 1006]


async def test_shutdown_closes_with_1012() -> None:
    """When the server ends, the client gets 1012, the application too, and a handshake that is under way 503."""
    app = Recorder()
    decide = asyncio.Event()

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/undecided":
            await receive()
            decide.set()
            assert (await receive())["code"] == 1006
        else:
            await app(scope, receive, send)

    async with serve(either, ws=OURS, lifespan="off") as server:
        open_client = await RawClient(server).__aenter__()
        await open_client.handshake()
        other = await RawClient(server).__aenter__()
        handshake = asyncio.ensure_future(other.handshake("/undecided"))
        await decide.wait()
    assert await open_client.close_code() == 1012
    assert await handshake == 503
    assert [(event["type"], event["code"]) for event in app.events] == [("websocket.disconnect", 1012)]
    open_client.drop()
    other.drop()


async def test_a_stalled_client_does_not_hold_up_the_shutdown() -> None:
    """A client that does not read is aborted when the time for closing is up, and the server ends."""

    class Quick(WebSocketProtocol):
        close_timeout = 0.2

    stalled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        fill(scope["extensions"]["wsrouter.transport"]["transport"], framed(bytes(5000)))
        stalled.set()
        await receive()

    loop = asyncio.get_running_loop()
    async with serve(app, ws=Quick, lifespan="off", timeout_graceful_shutdown=None) as server:
        client = await StalledClient(server).__aenter__()
        await client.handshake()
        await stalled.wait()
        begin = loop.time()
    assert loop.time() - begin < 2
    client.drop()


@pytest.mark.logs_errors
async def test_a_handler_that_does_not_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """What uvicorn cancels at its shutdown leaves no traceback."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    async with serve(app, ws=OURS, lifespan="off", timeout_graceful_shutdown=0.2) as server:
        client = await connect(server)
    assert "Traceback" not in caplog.text
    await client.wait_closed()
    assert client.close_code == 1012


async def test_text_that_is_not_utf8_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes of a client's are no error of the server's: nothing is logged above INFO."""
    with caplog.at_level(logging.DEBUG):
        async with serve(Recorder(), ws=OURS, lifespan="off") as server, RawClient(server) as client:
            await client.handshake()
            client.send(frame(1, b"\xff"))
            assert await client.close_code() == 1007
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
