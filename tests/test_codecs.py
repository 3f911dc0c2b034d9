"""Other formats than JSON, by negotiated subprotocol."""

import ast
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.envelopes import app_of
from tests.support import connect, eventually, serve
from wsrouter import Envelope, Hub, Message, WebSocketError, WebSocketHandler, WebSocketRouter, on
from wsrouter.codecs import Codec, Frame, JSONCodec


class Literals(Codec):
    """Writes values as Python literals, in binary frames, and counts what it wrote."""

    subprotocol = "wsrouter.v1+literal"

    def __init__(self) -> None:
        self.written: list[Any] = []

    def loads(self, frame: Frame) -> Any:
        try:
            return ast.literal_eval(frame.decode() if isinstance(frame, bytes) else "")
        except SyntaxError as exc:
            raise ValueError("no literal") from exc

    def dumps(self, value: Any) -> bytes:
        self.written.append(value)
        return repr(value).encode()


class CountingJSON(JSONCodec):
    """JSON that counts the publications it encodes."""

    def __init__(self) -> None:
        self.published = 0

    def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> str:
        self.published += 1
        return super().publication(type, data, room, offset)


class Say(Message):
    text: str
    to: list[str] = []


class Point(BaseModel):
    x: float


class Speaker(WebSocketHandler):
    async def on_connect(self) -> Say:
        await self.join("hall")
        return Say(text="welcome")

    @on
    async def say(self, message: Say) -> Say:
        return message

    @on("point")
    async def point(self, message: Point) -> Point:
        return message

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[int]:
        for item in range(message):
            yield item

    @on("fail")
    async def fail(self, message: None) -> None:
        raise WebSocketError("taken", details=[1])

    @on("shout")
    async def shout(self, message: str) -> None:
        await self.broadcast("hall", Say(text=message))

    async def on_message(self, message: Envelope) -> Any:
        return message.data


async def send(ws: ClientConnection, value: Any) -> None:
    """Send a value as a literal."""
    await ws.send(repr(value).encode())


async def receive(ws: ClientConnection) -> Any:
    """Return the value of the next frame, which is binary."""
    frame = await ws.recv()
    assert isinstance(frame, bytes)
    return ast.literal_eval(frame.decode())


EXCHANGES: list[tuple[Any, list[Any]]] = [
    (
        {"type": "say", "id": 1, "data": {"text": "hi", "to": ["ann"]}},
        [{"type": "say", "id": 1, "data": {"text": "hi", "to": ["ann"]}}],
    ),
    ({"type": "point", "id": 2, "data": {"x": 1.5}}, [{"type": "$ok", "id": 2, "data": {"x": 1.5}}]),
    (
        {"type": "stream", "id": 3, "data": 1},
        [{"type": "$item", "id": 3, "data": 0}, {"type": "$ok", "id": 3}],
    ),
    (
        {"type": "fail", "id": 4},
        [
            {
                "type": "$error",
                "id": 4,
                "error": {"code": "taken", "message": "Taken", "retry": False, "details": [1]},
            }
        ],
    ),
    ({"type": "shout", "data": "all"}, [{"type": "say", "room": "hall", "data": {"text": "all", "to": []}}]),
    ({"type": "anything", "id": 5, "data": [None, 1]}, [{"type": "$ok", "id": 5, "data": [None, 1]}]),
    ({"type": "$cancel", "id": 7}, []),
]
"""What is sent, and the frames that answer it."""


async def test_a_codec_of_the_applications_own() -> None:
    """Everything that is read and written goes through it, for a client that offered its subprotocol."""
    app = app_of(Speaker, codecs=[JSONCodec(), Literals()])
    async with serve(app) as server, connect(server, subprotocols=["other", "wsrouter.v1+literal"]) as ws:
        assert ws.subprotocol == "wsrouter.v1+literal"
        assert await receive(ws) == {"type": "say", "data": {"text": "welcome", "to": []}}
        for sent, frames in EXCHANGES:
            await send(ws, sent)
            for frame in frames:
                assert await receive(ws) == frame


@pytest.mark.parametrize(
    ("frame", "code", "id"),
    [
        (b"not a literal", "invalid", None),
        (b"", "invalid", None),
        ('{"type": "say"}', "invalid", None),
        (b"[1]", "invalid", None),
        (b"{'id': 1}", "invalid", 1),
        (b"{'type': 1, 'id': 1}", "invalid", 1),
        (b"{1: 2}", "invalid", None),
        (b"{'type': '$nobody', 'id': 1}", "unknown_type", 1),
        (b"{'type': 'say', 'id': 1.0}", "invalid", None),
        (b"{'type': 'say', 'id': True}", "invalid", None),
        (b"{'type': 'say', 'id': b'1'}", "invalid", None),
        (b"{'type': 'say', 'id': 1, 'data': {'text': None}}", "invalid", 1),
        (b"{'type': 'point', 'id': 1, 'data': {'y': 1}}", "invalid", 1),
    ],
    ids=repr,
)
async def test_bad_input_for_another_codec(frame: Frame, code: str, id: int | None) -> None:
    """What it cannot read, and what is no message, is answered by it."""
    app = app_of(Speaker, codecs=[Literals()])
    async with serve(app) as server, connect(server) as ws:
        assert (await receive(ws))["type"] == "say"
        await ws.send(frame)
        answer = await receive(ws)
        assert (answer["type"], answer.get("id"), answer["error"]["code"]) == ("$error", id, code)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["other"], None),
        (["wsrouter.v1"], "wsrouter.v1"),
        (["wsrouter.v1+literal"], "wsrouter.v1+literal"),
        (["wsrouter.v1+literal", "wsrouter.v1"], "wsrouter.v1+literal"),
        (["other", "wsrouter.v1", "wsrouter.v1+literal"], "wsrouter.v1"),
    ],
)
async def test_negotiation(offered: list[str], chosen: str | None) -> None:
    """The first that the client offers and the router has is echoed; without one it is the router's first."""
    app = app_of(Speaker, codecs=[JSONCodec(), Literals()])
    async with serve(app) as server, connect(server, subprotocols=offered or None) as ws:
        assert ws.subprotocol == chosen
        assert isinstance(await ws.recv(), bytes) is (chosen == "wsrouter.v1+literal")


async def test_a_router_has_json_by_default() -> None:
    """Without codecs the subprotocol of JSON is echoed, and no other."""
    async with serve(app_of(Speaker)) as server:
        async with connect(server, subprotocols=["wsrouter.v1+literal", "wsrouter.v1"]) as ws:
            assert ws.subprotocol == "wsrouter.v1"
        async with connect(server, subprotocols=["wsrouter.v1+literal"]) as ws:
            assert ws.subprotocol is None


async def test_a_broadcast_is_encoded_once_per_codec() -> None:
    """However many members a room has, a message is encoded once for each codec that one of them speaks."""
    hub = Hub()
    counting, literals = CountingJSON(), Literals()
    app = FastAPI()
    router = WebSocketRouter(hub=hub, codecs=[counting, literals])
    router.add_handler("/", Speaker)
    app.include_router(router)
    async with serve(app) as server:
        clients = [await connect(server) for _ in range(5)]
        others = [await connect(server, subprotocols=["wsrouter.v1+literal"]) for _ in range(5)]
        await eventually(lambda: hub.rooms == {"hall": 10})
        for ws in [*clients, *others]:
            await ws.recv()
        literals.written.clear()
        await hub.broadcast("hall", Say(text="one"))
        await hub.broadcast("hall", Say(text="two"))
        for ws in clients:
            assert [json.loads(await ws.recv())["data"]["text"] for _ in range(2)] == ["one", "two"]
        for ws in others:
            assert [(await receive(ws))["data"]["text"] for _ in range(2)] == ["one", "two"]
        assert counting.published == 2
        assert len(literals.written) == 2
        for ws in [*clients, *others]:
            await ws.close()


async def test_the_limit_holds_for_every_codec() -> None:
    """A binary frame may have as many bytes as one of text."""
    app = app_of(Speaker, codecs=[Literals()])
    async with serve(app) as server, connect(server) as ws:
        await receive(ws)
        data = repr({"type": "anything", "id": 1, "data": ""}).encode()
        await ws.send(data[:-2] + b"x" * (65536 - len(data)) + data[-2:])
        assert len((await receive(ws))["data"]) == 65536 - len(data)
        await ws.send(b" " * 65537)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1009
