"""Raw handlers: every frame as it came, and nothing of the envelope."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from tests.envelopes import app_of, client_of, close_of, receive, send
from tests.support import connect, eventually, serve
from wsrouter import (
    ConfigurationError,
    Connection,
    Deny,
    Disconnect,
    Hub,
    Message,
    RoomOptions,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)


class Said(Message):
    text: str


class Point(BaseModel):
    x: int
    y: int = 0


@dataclass
class User:
    id: str


class Text(WebSocketHandler):
    async def on_connect(self) -> str:
        return "welcome"

    async def on_message(self, message: str) -> str | bytes | None:
        if message == "send":
            await self.send("sent as text")
            await self.send(b"sent as bytes")
            return None
        return message[::-1]


async def test_text() -> None:
    """`str` reads text frames; what is returned or sent goes out as it is."""
    async with client_of(Text) as ws:
        assert await ws.recv() == "welcome"
        await ws.send("abc é")
        assert await ws.recv() == "é cba"
        await ws.send("send")
        assert await ws.recv() == "sent as text"
        assert await ws.recv() == b"sent as bytes"
        await ws.send('{"type":"$cancel","id":1}')
        assert await ws.recv() == '}1:"di","lecnac$":"epyt"{'
        await ws.send("")
        assert await ws.recv() == ""


async def test_bytes() -> None:
    """`bytes` reads binary frames."""

    class Bytes(WebSocketHandler):
        async def on_message(self, message: bytes) -> bytes:
            return bytes(reversed(message))

    async with client_of(Bytes) as ws:
        await ws.send(b"\x00\xff")
        assert await ws.recv() == b"\xff\x00"


async def test_text_and_bytes() -> None:
    """`str | bytes` reads both."""

    class Both(WebSocketHandler):
        async def on_message(self, message: str | bytes) -> str | bytes:
            return message

    async with client_of(Both) as ws:
        for frame in "hi", b"\xff", "", b"":
            await ws.send(frame)
            assert await ws.recv() == frame


async def test_json() -> None:
    """Any other type reads the JSON of the whole frame, and what it reads can be returned and sent."""

    class Points(WebSocketHandler):
        async def on_message(self, message: Point) -> Point:
            await self.send(Point(x=0))
            return Point(x=message.x, y=message.y + 1)

    class Lists(WebSocketHandler):
        async def on_message(self, message: list[int]) -> list[int]:
            return [*message, 0]

    async with client_of(Points) as ws:
        await ws.send('{"x": 3}')
        assert await ws.recv() == '{"x":0,"y":0}'
        assert await ws.recv() == '{"x":3,"y":1}'
    async with client_of(Lists) as ws:
        await ws.send("[1]")
        assert await ws.recv() == "[1,0]"


async def test_stream() -> None:
    """Each item of a stream is a frame, and there is none at its end."""

    class Count(WebSocketHandler):
        async def on_message(self, message: str) -> AsyncIterator[str | bytes]:
            for item in range(int(message)):
                yield str(item)
            yield b"\x00"

    async with client_of(Count) as ws:
        for _ in range(2):
            await ws.send("2")
            assert [await ws.recv() for _ in range(3)] == ["0", "1", b"\x00"]


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    ("exception", "code", "reason"),
    [
        (LookupError("password"), 1011, "internal error"),
        (WebSocketError("forbidden", "no"), 4403, "no"),
        (Deny(429, reason="slowly"), 4529, "slowly"),
        (Disconnect(4000, "bye"), 4000, "bye"),
        (ExceptionGroup("", [LookupError("password"), Deny(reason="no")]), 4403, "no"),
    ],
    ids=repr,
)
async def test_errors_close(exception: Exception, code: int, reason: str) -> None:
    """There is no frame that could tell of an error, so the connection is closed, by the one table."""

    class Failing(WebSocketHandler):
        async def on_message(self, message: str) -> None:
            raise exception

    async with client_of(Failing) as ws:
        await ws.send("hi")
        assert await close_of(ws) == (code, reason)


@pytest.mark.logs_errors
@pytest.mark.parametrize("value", [Said(text="hi"), 7, {"a": 1}, "lone \ud800"], ids=repr)
@pytest.mark.parametrize("way", ["return", "send", "stream"])
async def test_what_cannot_be_sent(value: Any, way: str) -> None:
    """A text handler sends text and bytes: anything else, and text that is no UTF-8, is a mistake that closes 1011."""

    class Odd(WebSocketHandler):
        async def on_message(self, message: str) -> Any:
            if way == "send":
                await self.send(value)
            return value

    class OddStream(WebSocketHandler):
        async def on_message(self, message: str) -> AsyncIterator[Any]:
            yield value

    async with client_of(OddStream if way == "stream" else Odd) as ws:
        await ws.send("hi")
        assert (await close_of(ws))[0] == 1011


async def test_a_handler_that_only_pushes() -> None:
    """One without message methods speaks the envelope, and knows no message."""

    class Feed(WebSocketHandler):
        async def on_connect(self) -> AsyncIterator[Said]:
            yield Said(text="one")
            yield Said(text="two")

    async with client_of(Feed) as ws:
        assert [(await receive(ws))["data"]["text"] for _ in range(2)] == ["one", "two"]
        await send(ws, "say", id=1)
        assert (await receive(ws))["error"]["code"] == "unknown_type"


class Member(WebSocketHandler):
    """Joins the room of its path's query, and broadcasts what it reads."""

    def __init__(self, room: str = "raw") -> None:
        self.room = room

    async def on_connect(self) -> None:
        await self.join(self.room)

    async def on_message(self, message: str | bytes) -> None:
        await self.broadcast(self.room, message, exclude=self.connection.id)


def raw_hub() -> Hub:
    """Return a hub whose room `raw` is raw."""
    return Hub(rooms={"raw": RoomOptions(raw=True)})


async def test_broadcast_in_a_raw_room() -> None:
    """A raw room delivers text and bytes as they are, from handlers and from anywhere."""
    hub = raw_hub()
    async with serve(app_of(Member, hub=hub)) as server, connect(server) as one, connect(server) as two:
        await eventually(lambda: hub.rooms == {"raw": 2})
        await one.send("text")
        await one.send(b"\x00\xff")
        assert await two.recv() == "text"
        assert await two.recv() == b"\x00\xff"
        await hub.broadcast("raw", "to all")
        await hub.broadcast("raw", b"to all")
        for ws in one, two:
            assert [await ws.recv(), await ws.recv()] == ["to all", b"to all"]


async def test_broadcast_of_what_a_json_handler_reads() -> None:
    """A raw JSON handler broadcasts what it would itself read."""

    class Points(WebSocketHandler):
        async def on_connect(self) -> None:
            await self.join("raw")

        async def on_message(self, message: Point) -> None:
            await self.broadcast("raw", message)

    async with client_of(Points, hub=raw_hub()) as ws:
        await ws.send('{"x":1}')
        assert json.loads(await ws.recv()) == {"x": 1, "y": 0}


async def test_a_room_is_of_one_sort() -> None:
    """A raw room takes neither messages nor members that speak the envelope, and the other way round."""
    hub = raw_hub()
    refused: list[str] = []

    class Envelopes(WebSocketHandler):
        @on("join")
        async def enter(self, message: str) -> None:
            try:
                await self.join(message)
            except ConfigurationError as exc:
                refused.append(str(exc))

    class Raw(WebSocketHandler):
        async def on_message(self, message: str) -> str:
            try:
                await self.join(message)
            except ConfigurationError as exc:
                refused.append(str(exc))
            return "done"

    app = FastAPI()
    router = WebSocketRouter(hub=hub)
    router.add_handler("/envelope", Envelopes)
    router.add_handler("/raw", Raw)
    app.include_router(router)
    async with serve(app) as server:
        async with connect(server, "/envelope") as ws:
            await send(ws, "join", "raw", id=1)
            await receive(ws)
        async with connect(server, "/raw") as ws:
            await ws.send("hall")
            assert await ws.recv() == "done"
    assert len(refused) == 2
    assert "'raw'" in refused[0]
    assert "RoomOptions(raw=True)" in refused[1]
    with pytest.raises(TypeError, match="raw"):
        await hub.broadcast("raw", Said(text="hi"))
    for frame in "text", b"bytes":
        with pytest.raises(TypeError, match=r"RoomOptions\(raw=True\)"):
            await hub.broadcast("hall", frame)


async def test_a_text_that_is_no_utf8_reaches_nobody() -> None:
    """It is refused where it is broadcast, and no member loses its connection for it."""
    hub = raw_hub()
    async with serve(app_of(Member, hub=hub)) as server, connect(server) as ws:
        await eventually(lambda: hub.rooms)
        with pytest.raises(ValueError, match="surrogate"):
            await hub.broadcast("raw", "lone \ud800")
        await hub.broadcast("raw", "whole")
        assert await ws.recv() == "whole"


async def test_messages_to_users_pass_raw_handlers_by() -> None:
    """`send_to_user` speaks the envelope, which a raw handler's client does not read."""
    hub = Hub()

    async def login(connection: Connection) -> None:
        connection.scope["user"] = User("ann")

    class Raw(WebSocketHandler):
        guards = [login]

        async def on_message(self, message: str) -> str:
            await hub.send_to_user(self.user.id, Said(text="hi"))
            return message

    async with client_of(Raw, hub=hub) as ws:
        assert hub.stats().users == 1
        await ws.send("hi")
        assert await ws.recv() == "hi"
