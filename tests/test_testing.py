"""`wsrouter.testing`: what it promises to those who test their handlers with it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from dependency_injector.containers import DeclarativeContainer
from dependency_injector.providers import Object
from dependency_injector.wiring import Provide
from fastapi import FastAPI, Header, HTTPException, Query
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from wsrouter import (
    CloseInfo,
    ConfigurationError,
    Connection,
    Deny,
    Disconnect,
    Limits,
    Message,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.in_process import Lifespan
from wsrouter.testing import Denied, TestConnection, Unexpected, WebSocketTestClient


class Say(Message):
    text: str


class Said(Message, type="chat.said"):
    user: str
    text: str


class Chat(WebSocketHandler):
    @on
    async def say(self, message: Say) -> Said:
        if message.text == "leave":
            raise Disconnect(4000, "bye")
        if message.text == "fail":
            raise WebSocketError("taken", "it is taken")
        if message.text == "news first":
            await self.send(Said(user="news", text="1"))
            await self.send(Said(user="news", text="2"))
        if message.text == "never":
            await asyncio.Event().wait()
        return Said(user="ann", text=message.text)

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[int]:
        for item in range(message):
            yield item


class Stream(Message):
    pass


class Raw(WebSocketHandler):
    async def on_message(self, message: str | bytes) -> str | bytes:
        return message


def app_of(handler: type[WebSocketHandler], path: str = "/ws/{room}", **options: Any) -> FastAPI:
    """Return an application with one handler."""
    router = WebSocketRouter(**options)
    router.add_handler(path, handler)
    app = FastAPI()
    app.include_router(router)
    return app


@asynccontextmanager
async def chatting(handler: type[WebSocketHandler] = Chat, **options: Any) -> AsyncGenerator[TestConnection]:
    """Connect to a handler whose drain is short."""
    async with (
        WebSocketTestClient(app_of(handler, limits=Limits(drain=0.01), **options)) as client,
        client.connect("/ws/hall") as ws,
    ):
        yield ws


async def test_send_and_receive() -> None:
    """A message is sent as one, and comes as an object of the class that is expected, else as a dict."""
    async with chatting() as ws:
        await ws.send(Say(text="hi"))
        said = await ws.receive(Said)
        assert said == Said(user="ann", text="hi")
        await ws.send(Say(text="hi"), id=7)
        assert await ws.receive() == {"type": "chat.said", "id": 7, "data": {"user": "ann", "text": "hi"}}
        await ws.send_json({"type": "stream", "data": 1})
        assert await ws.receive() == {"type": "$item", "data": 0}
        await ws.send_frame('{"type":"nobody"}')
        assert (await ws.receive())["error"]["code"] == "unknown_type"
        await ws.send_frame(b"\xff")
        assert (await ws.receive())["error"]["code"] == "invalid"


async def test_raw_frames() -> None:
    """Text and binary frames go both ways as they are."""
    async with chatting(Raw) as ws:
        for frame in "hi", b"\xff", "", b"":
            await ws.send_frame(frame)
            assert await ws.receive_frame() == frame
        await ws.send_frame("no JSON")
        with pytest.raises(Unexpected, match=r"expected JSON, got the frame 'no JSON'"):
            await ws.receive()


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ({"type": "nobody"}, r"expected Said \('chat.said'\), got .*'unknown_type'"),
        ({"type": "stream", "data": 1}, r"expected Said \('chat.said'\), got .*'\$item'"),
        ({"type": "say", "data": {"text": "leave"}}, r"expected a frame, got CloseInfo\(code=4000, reason='bye'"),
        ({"type": "say", "data": {"text": "never"}}, "expected a frame, and nothing came within 0.05 s"),
    ],
)
async def test_receive_shows_what_came_instead(frame: Any, text: str) -> None:
    """If something else comes, or nothing, the failure shows it."""
    async with chatting() as ws:
        await ws.send_json(frame)
        with pytest.raises(Unexpected, match=text):
            await ws.receive(Said, timeout=0.05)


async def test_a_message_that_does_not_validate() -> None:
    """A message of the right type with the wrong fields is a failure that says which."""

    class OddSaid(Message, type="chat.said"):
        user: int

    async with chatting() as ws:
        await ws.send(Say(text="hi"))
        with pytest.raises(Unexpected, match=r"(?s)expected OddSaid, got .*'ann'.*does not validate.*user"):
            await ws.receive(OddSaid)


async def test_call() -> None:
    """A call has an id of its own and returns its terminal reply; what came before it is kept, in order."""
    async with chatting() as ws:
        assert await ws.call(Say(text="hi"), expect=Said) == Said(user="ann", text="hi")
        reply = await ws.call(Say(text="news first"))
        assert (reply["type"], reply["data"]["text"]) == ("chat.said", "news first")
        assert await ws.call(Say(text="again"), expect=Said) == Said(user="ann", text="again")
        assert [(await ws.receive(Said)).text for _ in range(2)] == ["1", "2"]
        await ws.expect_nothing(for_=0.01)


async def test_call_of_a_stream() -> None:
    """The items of a stream are kept for `receive`; the reply is what ends it."""

    class Count(WebSocketHandler):
        @on
        async def stream(self, message: Stream) -> AsyncIterator[int]:
            yield 1
            yield 2

    async with chatting(Count) as ws:
        assert (await ws.call(Stream()))["type"] == "$ok"
        assert [(await ws.receive())["data"] for _ in range(2)] == [1, 2]


async def test_a_call_that_fails() -> None:
    """An error is the reply where none is expected, and a failure that shows it where one is."""
    async with chatting() as ws:
        assert (await ws.call(Say(text="fail")))["error"] == {"code": "taken", "message": "it is taken", "retry": False}
        with pytest.raises(Unexpected, match=r"expected Said .*it is taken"):
            await ws.call(Say(text="fail"), expect=Said)
        await ws.send(Say(text="kept"))
        with pytest.raises(Unexpected, match=r"expected a reply to Say\(text='never'\), got none, but .*kept"):
            await ws.call(Say(text="never"), timeout=0.05)
        assert (await ws.receive(Said)).text == "kept"


async def test_a_call_that_is_never_answered() -> None:
    """If the application closes instead, the failure shows the close, which `closed` returns too."""
    async with chatting() as ws:
        with pytest.raises(Unexpected, match=r"the connection was closed: .*4000"):
            await ws.call(Say(text="leave"))
        assert await ws.closed() == CloseInfo(4000, "bye", "server")


async def test_expect_nothing() -> None:
    """It passes if nothing comes for that long, and shows what came if something does."""
    async with chatting() as ws:
        await ws.expect_nothing(for_=0.01)
        await ws.send(Say(text="hi"))
        with pytest.raises(Unexpected, match=r"expected nothing, got .*chat.said.*hi"):
            await ws.expect_nothing()
        await ws.send(Say(text="leave"))
        with pytest.raises(Unexpected, match=r"expected nothing, got .*4000"):
            await ws.expect_nothing()


async def test_closed() -> None:
    """It passes frames over, returns how the application closed, also when asked again, or fails in time."""
    async with chatting() as ws:
        with pytest.raises(Unexpected, match=r"expected a close, .* within 0.02 s"):
            await ws.closed(timeout=0.02)
        await ws.send(Say(text="one"))
        await ws.send(Say(text="leave"))
        for _ in range(2):
            assert await ws.closed() == CloseInfo(4000, "bye", "server")


@pytest.mark.parametrize("what", ["receive", "receive a class", "receive a frame", "call", "closed"])
async def test_every_wait_has_a_deadline(what: str) -> None:
    """The deadline is that of the client, one second by default."""

    async def wait(ws: TestConnection) -> float:
        waits: dict[str, Callable[[], Awaitable[object]]] = {
            "receive": ws.receive,
            "receive a class": lambda: ws.receive(Said),
            "receive a frame": ws.receive_frame,
            "call": lambda: ws.call(Say(text="never")),
            "closed": ws.closed,
        }
        began = time.monotonic()
        with pytest.raises(Unexpected):
            await waits[what]()
        return time.monotonic() - began

    app = app_of(Chat, limits=Limits(drain=0.01))
    async with WebSocketTestClient(app, timeout=0.05) as client, client.connect("/ws/hall") as ws:
        assert 0.04 < await wait(ws) < 0.9
    async with WebSocketTestClient(app) as client, client.connect("/ws/hall") as ws:
        assert 0.9 < await wait(ws) < 3


async def test_how_the_client_leaves() -> None:
    """The application learns code and reason; leaving the block is a close with 1000."""
    ends: list[CloseInfo] = []

    class Leaving(WebSocketHandler):
        async def on_disconnect(self, close: CloseInfo) -> None:
            ends.append(close)

    async with WebSocketTestClient(app_of(Leaving)) as client:
        async with client.connect("/ws/hall"):
            pass
        assert ends == [CloseInfo(1000, "", "client")]
        async with client.connect("/ws/hall") as ws:
            await ws.close(4001, "bye")
        assert ends[1:] == [CloseInfo(4001, "bye", "client")]


async def test_denied() -> None:
    """A connection that is turned away raises `Denied` with status, headers and body."""

    async def guard(reason: str = "") -> None:
        if reason == "http":
            raise HTTPException(404, {"no": "such room"})
        if reason:
            raise Deny(401, reason=reason, headers={"WWW-Authenticate": "Bearer"})

    async with WebSocketTestClient(app_of(Chat, guards=[guard])) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect("/ws/hall?reason=who"):
                pytest.fail("it was let in")
        assert denied.value.status == 401
        assert denied.value.headers["www-authenticate"] == "Bearer"
        assert denied.value.json() == {"code": "unauthenticated", "detail": "who"}
        assert str(denied.value).startswith("denied with HTTP 401: {")
        with pytest.raises(Denied) as denied:
            async with client.connect("/ws/hall?reason=http"):
                pytest.fail("it was let in")
        assert denied.value.status == 404
        assert denied.value.json()["detail"] == {"no": "such room"}
        with pytest.raises(Denied) as denied:
            async with client.connect("/nowhere"):
                pytest.fail("it was let in")
        assert denied.value.status in {403, 404}
        async with client.connect("/ws/hall"):
            pass


async def test_denied_by_a_close() -> None:
    """With `reject="close"` the connection is accepted and closed, as for a browser."""

    async def guard() -> None:
        raise Deny(401, reason="who")

    app = app_of(Chat, guards=[guard], reject="close")
    async with WebSocketTestClient(app) as client, client.connect("/ws/hall") as ws:
        assert await ws.closed() == CloseInfo(4401, "who", "server")


async def test_the_handshake() -> None:
    """Path, query, headers, cookies, subprotocols and the client's address are what the test gives."""
    seen: dict[str, Any] = {}

    class Looking(WebSocketHandler):
        def __init__(
            self,
            room: str,
            connection: Connection,
            tags: Annotated[list[str], Query()],
            x_trace: Annotated[str, Header()] = "",
        ) -> None:
            seen.update(room=room, tags=tags, trace=x_trace)
            seen.update(cookies=connection.cookies, client=connection.client, host=connection.headers["host"])

    async with (
        WebSocketTestClient(app_of(Looking)) as client,
        client.connect(
            "/ws/a%20room?tags=1",
            headers={"X-Trace": "abc"},
            cookies={"session": "s1", "theme": "dark"},
            query={"tags": "2&3"},
            subprotocols=["other", "wsrouter.v1"],
            client=("10.0.0.1", 1234),
        ) as ws,
    ):
        assert ws.subprotocol == "wsrouter.v1"
    assert seen == {
        "room": "a room",
        "tags": ["1", "2&3"],
        "trace": "abc",
        "cookies": {"session": "s1", "theme": "dark"},
        "client": ("10.0.0.1", 1234),
        "host": "testserver",
    }


async def test_a_subprotocol_that_is_not_spoken() -> None:
    """Nothing is echoed where the application chose none."""
    async with WebSocketTestClient(app_of(Chat)) as client:
        async with client.connect("/ws/hall", subprotocols=["other"]) as ws:
            assert ws.subprotocol is None
        async with client.connect("/ws/hall") as ws:
            assert ws.subprotocol is None


async def test_two_clients_at_once() -> None:
    """Connections of one client are in one application, and share its hub."""

    class Room(WebSocketHandler):
        async def on_connect(self) -> None:
            await self.join("hall")

        @on
        async def say(self, message: Say) -> None:
            await self.broadcast("hall", Said(user="ann", text=message.text), exclude=self.connection.id)

    async with (
        WebSocketTestClient(app_of(Room)) as client,
        client.connect("/ws/1") as one,
        client.connect("/ws/2") as two,
    ):
        assert (await one.call(Say(text="hi")))["type"] == "$ok"
        assert (await two.receive(Said)).text == "hi"
        await one.expect_nothing(for_=0.01)


async def test_the_lifespan() -> None:
    """It runs around the block, and what it yields is every connection's state."""
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        events.append("starts")
        yield {"pool": "a pool"}
        events.append("ends")

    class Stateful(WebSocketHandler):
        async def on_connect(self, http: HTTPConnection) -> Said:
            events.append("connects")
            return Said(user=http.state.pool, text=self.connection.state.pool)

    app = FastAPI(lifespan=lifespan)
    app.include_router(app_of(Stateful).router)
    async with WebSocketTestClient(app) as client:
        for _ in range(2):
            async with client.connect("/ws/hall") as ws:
                assert await ws.receive(Said) == Said(user="a pool", text="a pool")
    assert events == ["starts", "connects", "connects", "ends"]


async def no_database() -> None:
    raise LookupError("no database")


async def test_a_lifespan_that_fails() -> None:
    """What it raises at start or at the end comes out of the block."""

    @asynccontextmanager
    async def fail_at_start(app: FastAPI) -> AsyncGenerator[None]:
        await no_database()
        yield

    @asynccontextmanager
    async def fail_at_end(app: FastAPI) -> AsyncGenerator[None]:
        yield
        raise LookupError("not flushed")

    with pytest.raises(LookupError, match="no database"):
        async with WebSocketTestClient(FastAPI(lifespan=fail_at_start)):
            pytest.fail("it has started")
    with pytest.raises(LookupError, match="not flushed"):
        async with WebSocketTestClient(FastAPI(lifespan=fail_at_end)):
            pass


async def test_a_mistake_that_shows_at_start() -> None:
    """A `ConfigurationError` of application start comes out of the block."""

    class Container(DeclarativeContainer):
        prefix = Object("a prefix")

    class Provided(WebSocketHandler):
        def __init__(self, prefix: Annotated[str, Provide[Container.prefix]]) -> None: ...

    client = WebSocketTestClient(app_of(Provided))
    with pytest.raises(ConfigurationError, match="prefix"):
        await client.__aenter__()


async def test_a_lifespan_that_hangs() -> None:
    """The waits for start and end of the application have a deadline too."""

    @asynccontextmanager
    async def hang_at_start(app: FastAPI) -> AsyncGenerator[None]:
        await asyncio.Event().wait()
        yield

    @asynccontextmanager
    async def hang_at_end(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"the startup of the application took longer than 0\.05 s"):
        await Lifespan(FastAPI(lifespan=hang_at_start), 0.05).__aenter__()
    lifespan = Lifespan(FastAPI(lifespan=hang_at_end), 0.05)
    await lifespan.__aenter__()
    with pytest.raises(TimeoutError, match=r"the shutdown of the application took longer than 0\.05 s"):
        await lifespan.__aexit__(None, None, None)


async def test_without_the_lifespan() -> None:
    """A connection can be made without entering the client: then no lifespan has run."""
    client = WebSocketTestClient(app_of(Chat))
    async with client.connect("/ws/hall") as ws:
        assert await ws.call(Say(text="hi"), expect=Said) == Said(user="ann", text="hi")


@pytest.mark.parametrize("when", ["before accept", "after accept"])
async def test_an_application_that_breaks(when: str) -> None:
    """What the application raises comes out of the wait that it broke, at once."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if when == "after accept":
            await send({"type": "websocket.accept"})
            await receive()
        raise LookupError("broken")

    async def use() -> None:
        async with WebSocketTestClient(broken, timeout=5).connect("/") as ws:
            await ws.send_frame("hi")
            await ws.receive()

    began = time.monotonic()
    with pytest.raises(LookupError, match="broken"):
        await use()
    assert time.monotonic() - began < 2


async def test_an_application_that_just_ends() -> None:
    """One that returns without a close frame is a failure that says so."""

    async def rude(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    client = WebSocketTestClient(rude, timeout=5)
    async with client.connect("/") as ws:
        for wait in ws.receive, ws.closed:
            with pytest.raises(Unexpected, match="without a close frame"):
                await wait()


async def test_nothing_comes_after_a_close() -> None:
    """Who waits for a frame on a connection that is closed is told who has closed it."""

    class Closing(WebSocketHandler):
        @on
        async def say(self, message: Say) -> None:
            await self.close(4001, message.text)

    router = WebSocketRouter()
    router.add_handler("/", Closing)
    app = FastAPI()
    app.include_router(router)
    async with WebSocketTestClient(app, timeout=5) as client:
        async with client.connect("/") as ws:
            await ws.send(Say(text="enough"))
            for _ in range(2):
                with pytest.raises(Unexpected, match="code=4001"):
                    await ws.receive()
        async with client.connect("/") as ws:
            await ws.close()
            with pytest.raises(Unexpected, match="the test has closed the connection"):
                await ws.receive()


async def test_a_test_that_fails_is_what_is_raised() -> None:
    """A failure within the block goes first, whatever the application does then."""

    async def breaks_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("broken")

    async def use() -> None:
        async with WebSocketTestClient(breaks_at_the_end).connect("/"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()
