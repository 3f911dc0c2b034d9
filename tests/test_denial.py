"""Denials as clients get them: HTTP status, headers and body, or a close code, over real sockets."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, WebSocketException
from fastapi.exceptions import WebSocketRequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol

from tests.support import Server, connect, eventually, serve
from tests.wire import RawClient
from wsrouter import Deny, Disconnect, Limits, WebSocketError, WebSocketHandler, WebSocketRouter
from wsrouter.guards import ConnectionLimit

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])

CHALLENGE = 'Bearer realm="chat", error="invalid_token"'


class Detail(BaseModel):
    field: str


Status = Literal["401", "403", "404", "422", "429", "503", "418", "400"]
How = Status | Literal["own-code", "error", "close", "fastapi", "starlette", "starlette-close", "validation", "none"]


async def refuse(how: How) -> None:
    """Deny in one of many ways."""
    match how:
        case "401":
            raise Deny(401, reason="who are you", headers={"WWW-Authenticate": CHALLENGE})
        case "403":
            raise Deny
        case "404":
            raise HTTPException(404, "no such room")
        case "422":
            raise Deny(422, reason="wrong")
        case "429":
            raise Deny(429, headers={"Retry-After": "7"})
        case "503":
            raise HTTPException(503, "later", headers={"Retry-After": "1"})
        case "418":
            raise Deny(418)
        case "400":
            raise HTTPException(400, {"missing": ["name"], "number": 3})
        case "own-code":
            raise Deny(403, code=4999, reason="mine alone")
        case "error":
            raise WebSocketError("not_found", "no such room")
        case "close":
            raise Disconnect(4321, "not today")
        case "fastapi":
            raise WebSocketException(1008, "as in FastAPI")
        case "starlette":
            raise StarletteHTTPException(409, "as in Starlette")
        case "validation":
            raise WebSocketRequestValidationError([])
        case "starlette-close":
            raise StarletteWebSocketException(4321, "as in Starlette")
        case _:
            return


class Constructed:
    """How many handlers were made, and how many hooks of theirs ran."""

    def __init__(self) -> None:
        self.count = 0


def application(*guards: Any, constructed: Constructed | None = None, limits: Limits | None = None) -> FastAPI:
    """One handler under three ways to be denied: /http, /close and /auto."""
    counter = constructed or Constructed()

    class Quiet(WebSocketHandler):
        def __init__(self) -> None:
            counter.count += 1

        async def on_connect(self) -> None:
            counter.count += 1

        async def on_disconnect(self) -> None:
            counter.count += 1

    app = FastAPI()
    reject: Literal["http", "close", "auto"]
    for reject in ("http", "close", "auto"):
        router = WebSocketRouter(prefix=f"/{reject}", reject=reject, guards=guards, limits=limits)
        router.add_handler("", Quiet)
        app.include_router(router)
    return app


async def denied(server: Server, path: str, **options: Any) -> Response:
    """Return the HTTP response that a client is denied with."""
    with pytest.raises(InvalidStatus) as failure:
        await connect(server, path, **options)
    return failure.value.response


async def closed(server: Server, path: str, **options: Any) -> tuple[int, str]:
    """Return code and reason of the close frame that an accepted client is denied with."""
    async with connect(server, path, **options) as ws:
        return await close_of(ws)


async def close_of(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closing:
        await ws.recv()
    assert closing.value.rcvd is not None
    return closing.value.rcvd.code, closing.value.rcvd.reason


def body_of(response: Response) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response.body or b"")
    return body


@each_server
@pytest.mark.parametrize(
    ("how", "status", "body", "headers"),
    [
        ("401", 401, {"code": "unauthenticated", "detail": "who are you"}, {"WWW-Authenticate": CHALLENGE}),
        ("403", 403, {"code": "forbidden", "detail": "Forbidden"}, {}),
        ("404", 404, {"code": "not_found", "detail": "no such room"}, {}),
        ("422", 422, {"code": "invalid", "detail": "wrong"}, {}),
        ("429", 429, {"code": "rate_limited", "detail": "Too Many Requests"}, {"Retry-After": "7"}),
        ("503", 503, {"code": "unavailable", "detail": "later"}, {"Retry-After": "1"}),
        ("418", 418, {"code": "invalid", "detail": "I'm a Teapot"}, {}),
        ("400", 400, {"code": "invalid", "detail": {"missing": ["name"], "number": 3}}, {}),
        ("own-code", 403, {"code": "forbidden", "detail": "mine alone"}, {}),
        ("error", 404, {"code": "not_found", "detail": "no such room"}, {}),
        ("close", 403, {"code": "forbidden", "detail": "not today"}, {}),
        ("fastapi", 403, {"code": "forbidden", "detail": "as in FastAPI"}, {}),
        ("starlette", 409, {"code": "conflict", "detail": "as in Starlette"}, {}),
        ("validation", 422, {"code": "invalid", "detail": "The request is not valid"}, {}),
        ("starlette-close", 403, {"code": "forbidden", "detail": "as in Starlette"}, {}),
    ],
)
async def test_a_denial_is_an_http_response(
    how: str, status: int, body: dict[str, Any], headers: Mapping[str, str], server_name: ServerName
) -> None:
    """By default a denied client gets status, headers and a JSON body, and the handler is never constructed."""
    constructed = Constructed()
    async with serve(application(refuse, constructed=constructed), server=server_name) as server:
        response = await denied(server, f"/http?how={how}")
    assert response.status_code == status
    assert body_of(response) == body
    assert response.headers["Content-Type"] == "application/json"
    for name, value in headers.items():
        assert response.headers[name] == value
    assert constructed.count == 0


@each_server
@pytest.mark.parametrize("subprotocols", [None, ["wsrouter.v1"], ["wsrouter.v1", "bearer.abc"]])
@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("401", 4401, "who are you"),
        ("403", 4403, "Forbidden"),
        ("404", 4404, "no such room"),
        ("422", 4422, "wrong"),
        ("429", 4529, "Too Many Requests"),
        ("503", 4503, "later"),
        ("418", 4400, "I'm a Teapot"),
        ("400", 4400, "Bad Request"),
        ("own-code", 4999, "mine alone"),
        ("error", 4404, "no such room"),
        ("close", 4321, "not today"),
        ("fastapi", 1008, "as in FastAPI"),
        ("starlette", 4409, "as in Starlette"),
        ("starlette-close", 4321, "as in Starlette"),
        ("validation", 4422, "The request is not valid"),
    ],
)
async def test_a_denial_is_a_close_frame(
    how: str, code: int, reason: str, subprotocols: list[Subprotocol] | None, server_name: ServerName
) -> None:
    """With reject="close" a denied client is accepted, with a subprotocol that it offered, and closed at once
    with the code of the table; the handler is never constructed."""
    constructed = Constructed()
    async with (
        serve(application(refuse, constructed=constructed), server=server_name) as server,
        connect(server, f"/close?how={how}", subprotocols=subprotocols) as ws,
    ):
        assert ws.subprotocol == (subprotocols[0] if subprotocols else None)
        assert await close_of(ws) == (code, reason)
    assert constructed.count == 0


@each_server
async def test_auto_tells_a_browser_from_the_rest(server_name: ServerName) -> None:
    """With reject="auto" a request with an Origin gets a close frame, one without an HTTP response."""
    constructed = Constructed()
    async with serve(application(refuse, constructed=constructed), server=server_name) as server:
        assert (await denied(server, "/auto?how=401")).status_code == 401
        origin = Origin("https://app.example")
        assert await closed(server, "/auto?how=401", origin=origin) == (4401, "who are you")
        assert (await denied(server, "/http?how=401", origin=origin)).status_code == 401
        assert await closed(server, "/close?how=401") == (4401, "who are you")
    assert constructed.count == 0


@each_server
async def test_who_is_not_denied_is_let_in_whatever_reject_says(server_name: ServerName) -> None:
    """A guard that returns lets the client in, in every mode."""
    constructed = Constructed()
    async with serve(application(refuse, constructed=constructed), server=server_name) as server:
        for path in ("/http", "/close", "/auto"):
            async with connect(server, f"{path}?how=none"):
                pass
        await eventually(lambda: constructed.count == 9)


class WithoutDenialResponse:
    """ASGI middleware that hides the extension, as a server does that has none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            scope = {**scope, "extensions": {}}
        await self.app(scope, receive, send)


@each_server
@pytest.mark.parametrize("how", ["401", "422x", "503"])
async def test_a_server_without_the_extension_denies_with_403(how: str, server_name: ServerName) -> None:
    """Where the server offers no denial response, a denied client gets a bare 403; the close mode is as ever."""
    async with serve(WithoutDenialResponse(application(refuse)), server=server_name) as server:
        assert (await denied(server, f"/http?how={how}")).status_code == 403
        assert await closed(server, "/close?how=401") == (4401, "who are you")


@each_server
async def test_a_validation_error_shows_what_is_wrong_without_the_input(server_name: ServerName) -> None:
    """A parameter that does not validate is 422 with place and message of each error, never the client's input."""

    async def guard(number: int, limit: float, x_secret: Annotated[int, Header()]) -> None: ...

    constructed = Constructed()
    async with serve(application(guard, constructed=constructed), server=server_name) as server:
        response = await denied(server, "/http?number=hunter2", additional_headers={"x-secret": "hunter3"})
        assert await closed(server, "/close?number=hunter2&limit=hunter4") == (4422, "The request is not valid")
    assert response.status_code == 422
    assert body_of(response) == {
        "code": "invalid",
        "detail": [
            {
                "type": "int_parsing",
                "loc": ["query", "number"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
            },
            {"type": "missing", "loc": ["query", "limit"], "msg": "Field required"},
            {
                "type": "int_parsing",
                "loc": ["header", "x-secret"],
                "msg": "Input should be a valid integer, unable to parse string as an integer",
            },
        ],
    }
    assert b"hunter" not in (response.body or b"")
    assert constructed.count == 0


@each_server
@pytest.mark.parametrize(
    ("name", "value", "received"),
    [
        ("X-Reason", "a\r\nSet-Cookie: admin=1\r\n\r\nbody", "a Set-Cookie: admin=1 body"),
        ("X-Reason", "a\nb\x00c\x85d", "a b c d"),
        ("X-Reason", "日本 for you", "?? for you"),
        ("X-Reason", " padded\t", "padded"),
        ("X-Bad\r\nSet-Cookie", "x", None),
        ("X-Bäd", "x", None),
        ("", "x", None),
        ("Content-Length", "2", "44"),
        ("Transfer-Encoding", "chunked", None),
    ],
)
async def test_header_values_can_do_no_harm(
    name: str, value: str, received: str | None, server_name: ServerName
) -> None:
    """Whatever text gets into a header of a Deny, the response is whole and has no header of the client's making."""

    async def guard() -> None:
        raise Deny(403, headers={name: value})

    async with serve(application(guard), server=server_name) as server:
        response = await denied(server, "/http")
    assert response.status_code == 403
    assert body_of(response) == {"code": "forbidden", "detail": "Forbidden"}
    assert "Set-Cookie" not in response.headers
    if received is None:
        assert not {header for header, _ in response.headers.raw_items()} & {name, name.lower()}
    else:
        assert response.headers[name] == received


@each_server
async def test_a_reason_of_any_text_reaches_the_client(server_name: ServerName) -> None:
    """Line breaks and text beyond latin-1 arrive in the body; a close reason is cut to 123 bytes of UTF-8."""
    reason = "日本語\r\n" * 20

    async def guard() -> None:
        raise Deny(403, reason=reason)

    async with serve(application(guard), server=server_name) as server:
        assert body_of(await denied(server, "/http"))["detail"] == reason
        code, cut = await closed(server, "/close")
    assert code == 4403
    assert reason.startswith(cut)
    assert 120 <= len(cut.encode()) <= 123


@each_server
@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"missing": ["name"]}, {"missing": ["name"]}),
        ([1, 2.5, None], [1, 2.5, None]),
        (Detail(field="name"), {"field": "name"}),
        ({"at": float("nan"), 3: {4}}, {"at": None, "3": [4]}),
        (b"\xff", "Forbidden"),
        (None, "Forbidden"),
    ],
)
async def test_a_detail_of_any_sort_is_json(detail: object, expected: object, server_name: ServerName) -> None:
    """The detail of an HTTPException is sent as JSON, as FastAPI would; what can't be JSON is replaced."""

    async def guard() -> None:
        raise HTTPException(403, detail)

    async with serve(application(guard), server=server_name) as server:
        assert body_of(await denied(server, "/http"))["detail"] == expected
        assert await closed(server, "/close") == (4403, "Forbidden")


def errors_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what wsrouter and the servers logged as an error, without sansio's remark on every denial."""
    return [
        record
        for record in caplog.records
        if record.levelno >= logging.ERROR and "without completing handshake" not in record.getMessage()
    ]


@pytest.mark.logs_errors
@each_server
async def test_an_unexpected_exception_is_masked_and_logged_once(
    server_name: ServerName, caplog: pytest.LogCaptureFixture
) -> None:
    """A guard that fails denies with 500 and tells nothing; its traceback is logged once."""

    async def guard() -> None:
        raise ValueError("the password is hunter2")

    constructed = Constructed()
    async with serve(application(guard, constructed=constructed), server=server_name) as server:
        response = await denied(server, "/http")
        assert response.status_code == 500
        assert body_of(response) == {"code": "internal", "detail": "Internal Server Error"}
        [record] = errors_of(caplog)
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)
        assert await closed(server, "/close") == (1011, "Internal Server Error")
    assert constructed.count == 0


@pytest.mark.logs_errors
@each_server
@pytest.mark.parametrize("status", [200, 302])
async def test_an_http_exception_that_is_no_denial_is_a_mistake(status: int, server_name: ServerName) -> None:
    """An HTTPException with a status outside 400 to 599 denies with 500."""

    async def guard() -> None:
        raise HTTPException(status, headers={"Location": "/login"})

    async with serve(application(guard), server=server_name) as server:
        response = await denied(server, "/http")
    assert response.status_code == 500
    assert "Location" not in response.headers


@pytest.mark.logs_errors
@each_server
async def test_an_exception_group_is_denied_by_its_strongest_member(
    server_name: ServerName, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what a TaskGroup in a guard raised, a Deny rules however deep it lies; what else failed is logged."""

    async def fail() -> None:
        raise ValueError("beside")

    async def refuse_deeply() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse("429"))

    async def guard() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(refuse_deeply())

    async with serve(application(guard), server=server_name) as server:
        response = await denied(server, "/http")
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "7"
    [record] = errors_of(caplog)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.logs_errors
@each_server
async def test_an_exception_group_without_a_denial_is_masked(
    server_name: ServerName, caplog: pytest.LogCaptureFixture
) -> None:
    """A TaskGroup in a guard that failed unexpectedly denies with 500, logged once."""

    async def fail() -> None:
        raise ValueError("alone")

    async def guard() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    async with serve(application(guard), server=server_name) as server:
        assert (await denied(server, "/http")).status_code == 500
    assert len(errors_of(caplog)) == 1


@each_server
@pytest.mark.parametrize("path", ["/http", "/close", "/auto"])
async def test_a_client_that_leaves_while_a_guard_waits_cancels_it(path: str, server_name: ServerName) -> None:
    """When the client is gone the guard that waits is cancelled, what guards hold is released, nothing is logged."""
    events: list[str] = []
    waiting = asyncio.Event()

    async def holding() -> AsyncGenerator[None]:
        yield
        events.append("released")

    async def guard() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    constructed = Constructed()
    async with serve(application(holding, guard, constructed=constructed), server=server_name) as server:
        opening = asyncio.ensure_future(connect(server, path).__aenter__())
        await waiting.wait()
        opening.cancel()
        await asyncio.wait([opening])
        await eventually(lambda: events == ["cancelled", "released"])
    assert constructed.count == 0


@each_server
async def test_a_guard_that_takes_too_long_is_denied_with_503(server_name: ServerName) -> None:
    """When guards are not through within the deadline of the handshake, the client gets 503, in either mode."""

    async def guard() -> None:
        await asyncio.Event().wait()

    app = application(guard, limits=Limits(handshake=0.1))
    async with serve(app, server=server_name) as server:
        response = await denied(server, "/http")
        assert response.status_code == 503
        assert body_of(response) == {"code": "unavailable", "detail": "The handshake took too long"}
        assert await closed(server, "/close") == (4503, "The handshake took too long")


@each_server
async def test_dependencies_of_include_router_deny_before_any_guard(server_name: ServerName) -> None:
    """What FastAPI's own include_router lists runs before the guards, and denies as FastAPI does it."""
    ran: list[str] = []

    async def of_fastapi(how: How) -> None:
        ran.append("of FastAPI")
        await refuse(how)

    async def guard() -> None:
        ran.append("guard")

    class Quiet(WebSocketHandler): ...

    router = WebSocketRouter(guards=[guard])
    router.add_handler("/", Quiet)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(of_fastapi)])
    async with serve(app, server=server_name) as server:
        response = await denied(server, "/?how=401")
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == CHALLENGE
        assert ran == ["of FastAPI"]
        async with connect(server, "/?how=none"):
            assert ran == ["of FastAPI", "of FastAPI", "guard"]


async def test_a_denied_socket_counts_until_it_is_gone() -> None:
    """A client that was closed in mode `close` and does not go keeps its place, until its socket is aborted."""
    places = ConnectionLimit(total=1)
    router = WebSocketRouter(guards=[places, refuse], reject="close", limits=Limits(close=0.5))
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with (
        serve(app, ws="wsrouter.uvicorn:WebSocketProtocol") as server,
        RawClient(server) as stays,
    ):
        assert await stays.handshake("/?how=403") == 101
        assert (await closed(server, "/?how=403"))[0] == 4529
        await stays.end()
        await eventually(lambda: places.stats().taken == 0)
        assert (await closed(server, "/?how=403"))[0] == 4403


@pytest.mark.parametrize("ws", ["wsrouter.uvicorn:WebSocketProtocol", "websockets-sansio"])
async def test_what_a_denied_client_sends_is_not_read(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """Between accept and close, which middleware may take time for, a client that breaks a rule is denied, no more."""
    received = asyncio.Event()

    async def guard() -> None:
        await asyncio.sleep(0)  # so that somebody receives
        raise Deny

    router = WebSocketRouter(guards=[guard], reject="close")
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_tell() -> Any:
            event = await receive()
            if event["type"] == "websocket.receive":
                received.set()
            return event

        async def send_slowly(event: Any) -> None:
            await send(event)
            if event["type"] == "websocket.accept":
                await received.wait()
                await asyncio.sleep(0)

        await app(scope, receive_and_tell, send_slowly)

    async with serve(middleware, ws=ws) as server, connect(server) as client:
        await client.send("x" * 70_000)
        await client.wait_closed()
        assert client.close_code == 4403
    assert not [record for record in caplog.records if record.name == "wsrouter"]


async def test_a_server_that_closes_before_the_denial_does(caplog: pytest.LogCaptureFixture) -> None:
    """A server that has closed the connection by itself, as at its shutdown, refuses our close: nothing to report."""
    router = WebSocketRouter(guards=[refuse], reject="close")
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_twice(event: Any) -> None:
            await send(event)
            if event["type"] == "websocket.accept":
                await send({"type": "websocket.close", "code": 1012})

        await app(scope, receive, send_twice)

    async with serve(middleware, ws="websockets-sansio") as server:
        assert (await closed(server, "/?how=403"))[0] == 1012
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_server_that_answers_before_the_denial_does(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that has answered by itself, as at its shutdown, fails at our answer: one line in the log."""
    router = WebSocketRouter(guards=[refuse])
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)

    protocols: list[Any] = []

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        protocol: Any = getattr(send, "__self__", None)
        protocols.append(protocol)

        async def send_late(event: Any) -> None:
            if event["type"] == "websocket.http.response.start":
                protocol.send_500_response()
            await send(event)

        await app(scope, receive, send_late)

    async with serve(middleware, ws=ws) as server:
        assert (await denied(server, "/?how=403")).status_code == 500
        # uvicorn on wsproto fails at a shutdown between its own answer and the loss of that connection.
        await eventually(lambda: protocols[-1] not in protocols[-1].connections)
    logged = [record for record in caplog.records if record.name == "wsrouter"]
    assert [record.levelname for record in logged] == ["WARNING"]
    assert "denial" in logged[0].getMessage()
