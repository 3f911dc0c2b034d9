"""Message middleware: an onion around each message, its call scope included."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Object
from dependency_injector.wiring import Provide
from fastapi import Depends

from tests.envelopes import client_of, close_of, receive, send
from tests.support import eventually
from wsrouter import (
    Connection,
    Disconnect,
    Envelope,
    Hub,
    Message,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)

Next = Callable[[Any], Awaitable[Any]]


class Say(Message):
    text: str


class Speaker(WebSocketHandler):
    @on
    async def say(self, message: Say) -> str:
        return message.text

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[int]:
        for item in range(message):
            yield item

    @on("fail")
    async def fail(self, message: str) -> None:
        raise WebSocketError("taken", message)


class Noting:
    """Middleware that notes when it begins and ends."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    async def __call__(self, message: Envelope, connection: Connection, call_next: Next) -> None:
        self.events.append(f"{self.name} begins")
        try:
            await call_next(message)
        except BaseException as exc:
            self.events.append(f"{self.name} sees {type(exc).__name__}")
            raise
        self.events.append(f"{self.name} ends")


async def test_order() -> None:
    """It runs from the outermost router to the class, around the call scope, and unwinds in reverse."""
    events: list[str] = []

    async def session() -> AsyncIterator[None]:
        events.append("opened")
        yield
        events.append("closed")

    class Ordered(WebSocketHandler):
        middleware = [Noting("class 1", events), Noting("class 2", events)]

        async def on_connect(self) -> None:
            events.append("on_connect")

        @on
        async def say(self, message: Say, _: Annotated[None, Depends(session)]) -> None:
            events.append("method")

    outer = WebSocketRouter(middleware=[Noting("outer 1", events)])
    outer.middleware(Noting("outer 2", events))
    inner = WebSocketRouter(middleware=[Noting("inner", events)])
    inner.add_handler("/", Ordered)
    outer.include_router(inner)
    async with client_of(outer) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        await receive(ws)
    names = ["outer 1", "outer 2", "inner", "class 1", "class 2"]
    assert events == [
        "on_connect",
        *(f"{name} begins" for name in names),
        *("opened", "method", "closed"),
        *(f"{name} ends" for name in reversed(names)),
    ]


async def test_what_it_sees() -> None:
    """It gets the envelope with the validated payload, of decoded messages only, and the connection."""
    seen: list[Any] = []
    router = WebSocketRouter()
    router.add_handler("/", Speaker)

    @router.middleware
    async def look(message: Envelope, connection: Connection, call_next: Next) -> None:
        seen.append((message, connection.path_params))
        assert await call_next(message) is None

    async with client_of(router) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "hi"}
        await send(ws, "say", {}, id=2)
        await send(ws, "nobody", id=3)
        assert [(await receive(ws))["type"] for _ in range(2)] == ["$error", "$error"]
        await send(ws, "fail", "no")
        assert (await receive(ws))["error"]["message"] == "no"
    assert seen == [(Envelope("say", Say(text="hi"), 1), {}), (Envelope("fail", "no"), {})]


async def test_it_may_change_a_message() -> None:
    """What it passes on is what the method gets; the id stays that of the call."""

    async def louder(message: Envelope, connection: Connection, call_next: Next) -> None:
        await call_next(replace(message, data=Say(text=message.data.text.upper()), id=99))

    async with client_of(Speaker, middleware=[louder]) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "HI"}


async def test_it_may_skip_a_message() -> None:
    """A message that is not passed on is answered as one whose method returned nothing."""

    async def skip(message: Envelope, connection: Connection, call_next: Next) -> None:
        if message.data.text != "skip":
            await call_next(message)

    async with client_of(Speaker, middleware=[skip]) as ws:
        await send(ws, "say", {"text": "skip"}, id=1)
        await send(ws, "say", {"text": "skip"})
        await send(ws, "say", {"text": "hi"}, id=2)
        assert await receive(ws) == {"type": "$ok", "id": 1}
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": "hi"}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_it_may_raise(when: str) -> None:
    """Its exceptions have the fate of those of a method, and take the place of a reply that was ready."""
    inner: list[str] = []

    async def strict(message: Envelope, connection: Connection, call_next: Next) -> None:
        if when == "after":
            await call_next(message)
        if message.data.text == "leave":
            raise Disconnect(4000, "left")
        raise WebSocketError("forbidden", message.data.text)

    async with client_of(Speaker, middleware=[strict, Noting("inner", inner)]) as ws:
        await send(ws, "say", {"text": "no"}, id=1)
        assert (await receive(ws))["error"] == {"code": "forbidden", "message": "no", "retry": False}
        assert inner == (["inner begins", "inner ends"] if when == "after" else [])
        await send(ws, "say", {"text": "leave"}, id=2)
        assert await close_of(ws) == (4000, "left")


async def test_it_sees_what_the_method_raises() -> None:
    """An exception passes through it, and it may put another answer in its place."""
    events: list[str] = []

    async def translate(message: Envelope, connection: Connection, call_next: Next) -> None:
        try:
            await call_next(message)
        except WebSocketError as exc:
            raise WebSocketError("conflict", f"translated: {exc.message}") from exc

    async with client_of(Speaker, middleware=[translate, Noting("inner", events)]) as ws:
        await send(ws, "fail", "no", id=1)
        assert (await receive(ws))["error"]["message"] == "translated: no"
    assert events == ["inner begins", "inner sees WebSocketError"]


async def test_it_sees_a_failed_commit() -> None:
    """A clean-up that fails is an exception to it, and it never sees a success before the commit."""
    events: list[str] = []
    committed: list[str] = []

    async def transaction() -> AsyncIterator[None]:
        yield
        if not committed:
            committed.append("the second time")
            raise WebSocketError("conflict", "someone was faster")

    class Storing(WebSocketHandler):
        @on("store")
        async def store(self, message: None, _: Annotated[None, Depends(transaction)]) -> str:
            events.append("method")
            return "stored"

    async def retry(message: Envelope, connection: Connection, call_next: Next) -> None:
        try:
            await call_next(message)
        except WebSocketError:
            await call_next(message)

    async with client_of(Storing, middleware=[Noting("outer", events)]) as ws:
        await send(ws, "store", id=1)
        assert (await receive(ws))["error"]["message"] == "someone was faster"
    assert events == ["outer begins", "method", "outer sees WebSocketError"]
    events.clear()
    committed.clear()
    async with client_of(Storing, middleware=[retry, Noting("inner", events)]) as ws:
        await send(ws, "store", id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "stored"}
    assert events == [
        *("inner begins", "method", "inner sees WebSocketError"),
        *("inner begins", "method", "inner ends"),
    ]


async def test_it_spans_a_stream() -> None:
    """`call_next` of a stream returns after its last item was sent."""
    events: list[str] = []
    async with client_of(Speaker, middleware=[Noting("all", events)]) as ws:
        await send(ws, "stream", 3, id=1)
        assert [(await receive(ws))["type"] for _ in range(4)] == ["$item", "$item", "$item", "$ok"]
    assert events == ["all begins", "all ends"]


async def test_it_sees_a_cancellation() -> None:
    """A call that is cancelled in its method passes through it, and is answered with `cancelled`."""
    events: list[str] = []

    class Slow(WebSocketHandler):
        @on("wait")
        async def wait(self, message: None) -> None:
            events.append("method")
            await asyncio.Event().wait()

    async with client_of(Slow, middleware=[Noting("all", events)]) as ws:
        await send(ws, "wait", id=1)
        await eventually(lambda: "method" in events)
        await send(ws, "$cancel", id=1)
        assert (await receive(ws))["error"]["code"] == "cancelled"
    assert events == ["all begins", "method", "all sees CancelledError"]


@pytest.mark.logs_errors
async def test_one_that_forgets_to_await(caplog: pytest.LogCaptureFixture) -> None:
    """A message whose handling it returns in place of awaiting it was not handled, and is not answered with `$ok`."""

    async def forgets(message: Envelope, connection: Connection, call_next: Callable[[Any], Awaitable[None]]) -> Any:
        return call_next(message)

    async with client_of(Speaker, middleware=[forgets]) as ws:
        await send(ws, "stream", 3, id=1)
        assert (await receive(ws))["error"]["code"] == "internal"
    assert "write await call_next(message)" in caplog.text


async def test_it_is_injected() -> None:
    """Further parameters are injected for each message, and closed when the middleware returns."""
    events: list[str] = []

    class Container(DeclarativeContainer):
        prefix = Object("from the container")

    async def span() -> AsyncIterator[str]:
        events.append("span begins")
        yield "span"
        events.append("span ends")

    async def trace(
        message: Envelope,
        connection: Connection,
        call_next: Next,
        hub: Hub,
        span: Annotated[str, Depends(span)],
        prefix: Annotated[str, Provide[Container.prefix]],
        room: str = "nowhere",
    ) -> None:
        assert connection.id in hub.connections
        events.append(f"{span}, {prefix}, {room}")
        await call_next(message)
        events.append("passed")

    async with client_of(Speaker, middleware=[trace], container=Container()) as ws:
        for _ in range(2):
            await send(ws, "say", {"text": "hi"}, id=1)
            await receive(ws)
    assert events == ["span begins", "span, from the container, nowhere", "passed", "span ends"] * 2


@pytest.mark.parametrize("at_once", [1, 2])
async def test_it_runs_around_every_sort_of_message(at_once: int) -> None:
    """Plain methods, `on_message` and binary frames pass through it too."""
    seen: list[tuple[str, Any]] = []

    async def look(message: Envelope, connection: Connection, call_next: Next) -> None:
        seen.append((message.type, message.data))
        await call_next(message)

    class Sorts(WebSocketHandler):
        max_in_flight = at_once

        @on("plain")
        def plain(self, message: int) -> int:
            return message

        async def on_message(self, message: Envelope) -> Any:
            return message.data

    class Files(WebSocketHandler):
        max_in_flight = at_once

        @on("plain")
        def plain(self, message: int) -> int:
            return message

        async def on_message(self, message: bytes) -> int:
            return len(message)

    async with client_of(Sorts, middleware=[look]) as ws:
        await send(ws, "plain", 1)
        assert (await receive(ws))["data"] == 1
        await send(ws, "other", 2)
        assert (await receive(ws))["data"] == 2
    assert seen == [("plain", 1), ("other", 2)]
    async with client_of(Files, middleware=[look]) as ws:
        await ws.send(b"abc")
        assert (await receive(ws))["data"] == 3
    assert seen[2:] == [("", b"abc")]


@pytest.mark.parametrize(("frame", "seen"), [("hi", "hi"), (b"\xff", b"\xff")])
async def test_of_a_raw_handler_it_gets_what_that_reads(frame: str | bytes, seen: Any) -> None:
    """There is no envelope around what a raw handler reads."""
    passed: list[Any] = []

    async def twice(message: str | bytes, connection: Connection, call_next: Next) -> None:
        passed.append(message)
        await call_next(message * 2)

    class Raw(WebSocketHandler):
        async def on_message(self, message: str | bytes) -> str | bytes:
            return message

    async with client_of(Raw, middleware=[twice]) as ws:
        await ws.send(frame)
        assert await ws.recv() == frame * 2
    assert passed == [seen]
