"""What an exception in a message method comes to: a frame, a close, and what the log says."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException, WebSocketException
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.exceptions import WebSocketException as StarletteWebSocketException

from tests.envelopes import client_of, close_of, receive, send
from wsrouter import (
    Connection,
    Deny,
    Disconnect,
    Hub,
    Message,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.errors import MAX_REASON_BYTES


class Sorry(Message):
    why: str


class SoldOut(Exception):
    """An exception of the application's own."""


class Gone(SoldOut):
    """A more special one."""


def raising(exception: Callable[[], BaseException], **attributes: Any) -> type[WebSocketHandler]:
    """Return a handler whose methods raise, in each place in which one can."""

    async def broken() -> None:
        raise exception()

    class Raising(WebSocketHandler):
        @on("method")
        async def method(self, message: None) -> None:
            raise exception()

        @on("plain method")
        def plain_method(self, message: None) -> None:
            raise exception()

        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[int]:
            await broken()
            yield 1

        @on("dependency")
        async def dependency(self, message: None, _: Annotated[None, Depends(broken)]) -> None: ...

        @on("echo")
        async def echo(self, message: str) -> str:
            return message

    for name, value in attributes.items():
        setattr(Raising, name, value)
    return Raising


PLACES = ["method", "plain method", "stream", "dependency"]
INTERNAL = {"code": "internal", "message": "Internal error", "retry": False}


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        (WebSocketError("taken"), {"code": "taken", "message": "Taken", "retry": False}),
        (
            WebSocketError("taken", "It is taken", details={"by": "ann"}, retry=True, after_ms=50),
            {"code": "taken", "message": "It is taken", "retry": True, "after_ms": 50, "details": {"by": "ann"}},
        ),
        (WebSocketError("rate_limited"), {"code": "rate_limited", "message": "Rate limited", "retry": True}),
        (Deny(), {"code": "forbidden", "message": "Forbidden", "retry": False}),
        (Deny(401, reason="who are you"), {"code": "unauthenticated", "message": "who are you", "retry": False}),
        (Deny(503, code=4999), {"code": "unavailable", "message": "Service Unavailable", "retry": True}),
        (HTTPException(404), {"code": "not_found", "message": "Not Found", "retry": False}),
        (HTTPException(400, "no"), {"code": "invalid", "message": "no", "retry": False}),
        (
            HTTPException(409, {"of": 7}),
            {"code": "conflict", "message": "Conflict", "retry": False, "details": {"of": 7}},
        ),
        (StarletteHTTPException(404, "gone"), {"code": "not_found", "message": "gone", "retry": False}),
        (RequestValidationError([]), {"code": "invalid", "message": "The request is not valid", "retry": False}),
        (HTTPException(413, "too long"), {"code": "too_large", "message": "too long", "retry": False}),
        (HTTPException(422, "no"), {"code": "invalid", "message": "no", "retry": False}),
        (HTTPException(418, "tea"), {"code": "invalid", "message": "tea", "retry": False}),
        (HTTPException(500, "secret"), {"code": "internal", "message": "secret", "retry": False}),
        (
            HTTPException(429, headers={"Retry-After": "3"}),
            {"code": "rate_limited", "message": "Too Many Requests", "retry": True, "after_ms": 3000},
        ),
        (
            HTTPException(503, "later", headers={"retry-after": "1"}),
            {"code": "unavailable", "message": "later", "retry": True, "after_ms": 1000},
        ),
        (
            HTTPException(503, "later", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            {"code": "unavailable", "message": "later", "retry": True},
        ),
    ],
    ids=repr,
)
async def test_what_tells_the_client(exception: Exception, error: dict[str, Any]) -> None:
    """`WebSocketError`, `Deny` and `HTTPException` answer with an error frame from wherever they come."""
    async with client_of(raising(lambda: exception)) as ws:
        for place in PLACES:
            await send(ws, place, id=place)
            assert await receive(ws) == {"type": "$error", "id": place, "error": error}
        await send(ws, "method")
        assert await receive(ws) == {"type": "$error", "error": error}
        await send(ws, "echo", "hi", id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "hi"}


@pytest.mark.logs_errors
async def test_an_unexpected_exception_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback and the method's name, answered with `internal`, and the connection lives."""
    handler = raising(lambda: LookupError("password"))
    async with client_of(handler) as ws:
        for place in PLACES:
            caplog.clear()
            await send(ws, place, id=place)
            assert await receive(ws) == {"type": "$error", "id": place, "error": INTERNAL}
            (record,) = [each for each in caplog.records if each.name == "wsrouter"]
            assert record.levelno == logging.ERROR
            assert "Raising." in record.getMessage()
            assert record.exc_info is not None
            assert isinstance(record.exc_info[1], LookupError)
        await send(ws, "echo", "hi", id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "hi"}


@pytest.mark.parametrize("exception", [WebSocketError("taken"), Deny(403), StarletteHTTPException(409)], ids=repr)
async def test_a_validator_may_say_what_the_client_is_told(exception: Exception) -> None:
    """What tells the client does so from a validator too, which pydantic does not take for an invalid value."""

    def refuse(value: str) -> str:
        raise exception

    class Picky(WebSocketHandler):
        @on("pick")
        async def pick(self, payload: Annotated[str, AfterValidator(refuse)]) -> None: ...

    async with client_of(Picky) as ws:
        await send(ws, "pick", "a", id=1)
        error = (await receive(ws))["error"]
        code = exception.code if isinstance(exception, WebSocketError) else None
        assert error["code"] == code or error["code"] in ("forbidden", "conflict")


async def test_an_expected_exception_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What the application says on purpose is nobody's fault."""
    async with client_of(raising(lambda: WebSocketError("taken"))) as ws:
        await send(ws, "method", id=1)
        await receive(ws)
    assert [record for record in caplog.records if record.name == "wsrouter"] == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("exception", [Disconnect, WebSocketException, StarletteWebSocketException])
async def test_disconnect_closes(exception: Callable[[int, str], Exception], place: str) -> None:
    """`Disconnect`, and what FastAPI has for it, closes with its code and reason, and is answered in no other way."""
    async with client_of(raising(lambda: exception(4000, "that is all"))) as ws:
        await send(ws, place, id=1)
        assert await close_of(ws) == (4000, "that is all")


@pytest.mark.logs_errors
async def test_a_close_code_that_no_endpoint_may_send() -> None:
    """FastAPI's exception takes any code; with one that can't go into a close frame it is a mistake like any other."""
    async with client_of(raising(lambda: WebSocketException(1005))) as ws:
        await send(ws, "method")
        assert (await receive(ws))["error"] == INTERNAL


@pytest.mark.logs_errors
@pytest.mark.parametrize("place", PLACES)
async def test_close_on_error(place: str) -> None:
    """With `close_on_error` an unexpected exception closes with 1011, and the reason says nothing of it."""
    async with client_of(raising(lambda: LookupError("password"), close_on_error=True)) as ws:
        await send(ws, place, id=1)
        assert await close_of(ws) == (1011, "internal error")


async def test_close_on_error_is_for_the_unexpected() -> None:
    """What tells the client still does."""
    async with client_of(raising(lambda: WebSocketError("taken"), close_on_error=True)) as ws:
        await send(ws, "method", id=1)
        assert (await receive(ws))["error"]["code"] == "taken"


def group(*members: Exception) -> ExceptionGroup[Exception]:
    """Return what a task group raises."""
    return ExceptionGroup("unhandled errors in a TaskGroup", members)


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (group(WebSocketError("taken")), "taken"),
        (group(LookupError("x"), WebSocketError("taken")), "taken"),
        (group(LookupError("x"), HTTPException(404), ValueError("x")), "not_found"),
        (group(Deny(401), LookupError("x")), "unauthenticated"),
        (group(group(LookupError("x")), group(WebSocketError("taken"))), "taken"),
        (group(WebSocketError("first"), WebSocketError("second")), "first"),
        (group(LookupError("x"), ValueError("x")), "internal"),
        (group(group(group(LookupError("x")))), "internal"),
    ],
)
async def test_the_strongest_member_of_a_group_rules(exception: Exception, code: str) -> None:
    """Of an exception group what tells the client goes before what is unexpected."""
    async with client_of(raising(lambda: exception)) as ws:
        for place in PLACES:
            await send(ws, place, id=1)
            assert (await receive(ws))["error"]["code"] == code


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    "exception",
    [
        group(Disconnect(4000, "bye")),
        group(LookupError("x"), WebSocketError("taken"), Disconnect(4000, "bye")),
        group(HTTPException(404), group(Disconnect(4000, "bye"), LookupError("x"))),
        group(HTTPException(404), WebSocketException(4000, "bye")),
    ],
)
async def test_disconnect_is_the_strongest(exception: Exception) -> None:
    """A `Disconnect` anywhere in a group closes."""
    async with client_of(raising(lambda: exception)) as ws:
        await send(ws, "method", id=1)
        assert await close_of(ws) == (4000, "bye")


@pytest.mark.logs_errors
async def test_the_unexpected_beside_what_rules_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing unexpected is lost because something else was answered."""
    async with client_of(raising(lambda: group(WebSocketError("taken"), LookupError("password")))) as ws:
        await send(ws, "method", id=1)
        await receive(ws)
    logged = [record.exc_info[1] for record in caplog.records if record.name == "wsrouter" and record.exc_info]
    assert [type(each) for each in logged] == [LookupError]


async def test_exception_handlers() -> None:
    """A handler answers an exception of its class and of classes below it, with injection, as a reply."""
    router = WebSocketRouter()
    router.add_handler("/", raising(lambda: Gone("tickets")))
    seen: list[tuple[str, str]] = []

    async def shop() -> str:
        return "shop"

    @router.exception_handler(SoldOut)
    async def sold_out(exc: SoldOut, where: Annotated[str, Depends(shop)], connection: Connection, hub: Hub) -> Sorry:
        assert connection.id in hub.connections
        seen.append((str(exc), where))
        return Sorry(why=f"{exc} are sold out")

    async with client_of(router) as ws:
        for place in PLACES:
            await send(ws, place, id=place)
            assert await receive(ws) == {"type": "sorry", "id": place, "data": {"why": "tickets are sold out"}}
        await send(ws, "method")
        assert await receive(ws) == {"type": "sorry", "data": {"why": "tickets are sold out"}}
    assert seen == [("tickets", "shop")] * 5


async def test_the_nearest_exception_handler_answers() -> None:
    """That of the nearest class does, and of one class that of the innermost router."""
    outer, inner = WebSocketRouter(), WebSocketRouter()

    @outer.exception_handler(Gone)
    async def special(exc: Gone) -> Sorry:
        return Sorry(why="outer, gone")

    @outer.exception_handler(SoldOut)
    async def general(exc: SoldOut) -> Sorry:
        return Sorry(why="outer, sold out")

    @inner.exception_handler(SoldOut)
    def innermost(exc: SoldOut) -> Sorry:
        return Sorry(why="inner, sold out")

    @inner.exception_handler(Exception)
    async def anything(exc: Exception) -> Sorry:
        return Sorry(why=type(exc).__name__)

    raised: list[Exception] = []
    inner.add_handler("/", raising(lambda: raised[-1]))
    outer.include_router(inner)
    async with client_of(outer) as ws:
        for exception, why in [
            (Gone(), "outer, gone"),
            (SoldOut(), "inner, sold out"),
            (KeyError(), "KeyError"),
            (HTTPException(404), "HTTPException"),
            (WebSocketError("taken"), "WebSocketError"),
            (group(LookupError("x"), SoldOut()), "LookupError"),
        ]:
            raised.append(exception)
            await send(ws, "method", id=1)
            assert (await receive(ws))["data"]["why"] == why


@pytest.mark.logs_errors
async def test_an_exception_handler_may_give_up_or_fail() -> None:
    """If it returns nothing the usual rules hold, and what it raises takes the exception's place."""
    router = WebSocketRouter()
    router.add_handler("/", raising(lambda: raised[-1]))
    raised: list[Exception] = []

    @router.exception_handler(LookupError)
    async def pass_on(exc: LookupError) -> None: ...

    @router.exception_handler(ValueError)
    async def translate(exc: ValueError) -> None:
        raise WebSocketError("invalid", str(exc))

    @router.exception_handler(SoldOut)
    async def leave(exc: SoldOut) -> None:
        raise Disconnect(4000, "sold out")

    async with client_of(router) as ws:
        raised.append(LookupError("x"))
        await send(ws, "method", id=1)
        assert (await receive(ws))["error"] == INTERNAL
        raised.append(ValueError("even numbers"))
        await send(ws, "method", id=2)
        assert (await receive(ws))["error"] == {"code": "invalid", "message": "even numbers", "retry": False}
        raised.append(SoldOut())
        await send(ws, "method", id=3)
        assert await close_of(ws) == (4000, "sold out")


async def test_no_exception_handler_stops_a_disconnect() -> None:
    """`Disconnect` is no error, and closes although a handler is there for every exception."""
    router = WebSocketRouter()
    router.add_handler("/", raising(lambda: Disconnect(4000)))

    @router.exception_handler(Exception)
    async def anything(exc: Exception) -> Sorry:
        return Sorry(why="no")

    async with client_of(router) as ws:
        await send(ws, "method", id=1)
        assert (await close_of(ws))[0] == 4000


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    ("exception", "code", "reason"),
    [
        (LookupError("password"), 1011, "internal error"),
        (Disconnect(4000, "bye"), 4000, "bye"),
        (Disconnect(), 1000, ""),
        (Deny(reason="no"), 4403, "no"),
        (Deny(401, code=4999, reason="no"), 4999, "no"),
        (HTTPException(429, "slowly"), 4529, "slowly"),
        (WebSocketError("conflict", "twice"), 4409, "twice"),
        (WebSocketError("taken", "of the application's own"), 4400, "of the application's own"),
        (group(LookupError("x"), Disconnect(4000, "bye")), 4000, "bye"),
    ],
    ids=repr,
)
async def test_on_connect_closes(exception: Exception, code: int, reason: str) -> None:
    """There is no message to answer in `on_connect`, so everything closes, by the one table."""

    class Raising(WebSocketHandler):
        async def on_connect(self) -> None:
            raise exception

    async with client_of(Raising) as ws:
        assert await close_of(ws) == (code, reason)


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("x" + "é" * 62, "x" + "é" * 61),
        ("€" * 42, "€" * 41),
        ("xx" + "€" * 41, "xx" + "€" * 40),
        ("😀" * 100, "😀" * 30),
        ("lone \ud800", "lone ?"),
        ("", ""),
    ],
)
async def test_a_close_reason_is_cut(reason: str, cut: str) -> None:
    """A reason has 123 bytes of UTF-8 at most, and is never cut inside a character."""

    class Leaving(WebSocketHandler):
        @on("close")
        async def end(self, message: None) -> None:
            await self.close(4000, reason)

        @on("raise")
        async def throw(self, message: None) -> None:
            raise Disconnect(4000, reason)

    assert len(cut.encode()) <= MAX_REASON_BYTES
    for type in "close", "raise":
        async with client_of(Leaving) as ws:
            await send(ws, type)
            assert await close_of(ws) == (4000, cut)


@pytest.mark.logs_errors
async def test_a_code_that_no_endpoint_may_send() -> None:
    """A close with such a code is a mistake of the application's: it is told so, and the connection lives."""

    class Leaving(WebSocketHandler):
        @on("leave")
        async def end(self, message: int) -> None:
            await self.close(message)

        @on("raise")
        async def throw(self, message: int) -> None:
            raise Disconnect(message)

    async with client_of(Leaving) as ws:
        for type in "leave", "raise":
            for code in 0, 999, 1004, 1005, 1006, 1015, 2999, 5000:
                await send(ws, type, code, id=1)
                assert (await receive(ws))["error"] == INTERNAL
