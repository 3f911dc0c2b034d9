"""The envelope: what a message is answered with, and payloads of any type."""

import threading
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from tests.envelopes import client_of, receive, send
from wsrouter import Envelope, Message, WebSocketHandler, on


class Say(Message):
    text: str


class Said(Message, type="chat.said"):
    user: str
    text: str


class Point(BaseModel):
    x: float
    y: float = 0


class Speaker(WebSocketHandler):
    """A method for each sort of answer."""

    @on
    async def say(self, message: Say) -> None: ...

    @on("reply")
    async def reply(self, message: str) -> Said:
        return Said(user="ann", text=message)

    @on("value")
    async def value(self, message: Any) -> Any:
        return message

    @on("sum")
    async def total(self, message: list[int]) -> int:
        return sum(message)

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[int]:
        for item in range(message):
            yield item

    @on("stream of messages")
    async def stream_messages(self, message: str) -> AsyncIterator[Said]:
        yield Said(user="ann", text=message)

    @on("fail")
    async def fail(self, message: str) -> None:
        raise LookupError(message)


NO_TEXT = (
    '{"code":"invalid","message":"The message is not valid","retry":false,'
    '"details":[{"type":"missing","loc":["text"],"msg":"Field required"}]}'
)
NOBODY = '{"code":"unknown_type","message":"No such message type","retry":false}'


@pytest.mark.parametrize(
    ("sent", "frames"),
    [
        ('{"type":"say","data":{"text":"hi"}}', []),
        ('{"type":"say","id":1,"data":{"text":"hi"}}', ['{"type":"$ok","id":1}']),
        ('{"type":"say","id":"a\\"b","data":{"text":"hi"}}', ['{"type":"$ok","id":"a\\"b"}']),
        ('{"type":"reply","data":"hi"}', ['{"type":"chat.said","data":{"user":"ann","text":"hi"}}']),
        ('{"type":"reply","id":1,"data":"hi"}', ['{"type":"chat.said","id":1,"data":{"user":"ann","text":"hi"}}']),
        ('{"type":"sum","data":[3,4]}', ['{"type":"$ok","data":7}']),
        ('{"type":"sum","id":1,"data":[3,4]}', ['{"type":"$ok","id":1,"data":7}']),
        ('{"type":"sum","id":1,"data":[]}', ['{"type":"$ok","id":1,"data":0}']),
        ('{"type":"value","id":1,"data":false}', ['{"type":"$ok","id":1,"data":false}']),
        ('{"type":"value","id":1,"data":""}', ['{"type":"$ok","id":1,"data":""}']),
        ('{"type":"value","id":1,"data":[]}', ['{"type":"$ok","id":1,"data":[]}']),
        ('{"type":"value","id":1,"data":null}', ['{"type":"$ok","id":1}']),
        ('{"type":"value","id":1}', ['{"type":"$ok","id":1}']),
        ('{"type":"value"}', []),
        ('{"type":"stream","data":2}', ['{"type":"$item","data":0}', '{"type":"$item","data":1}']),
        (
            '{"type":"stream","id":1,"data":2}',
            ['{"type":"$item","id":1,"data":0}', '{"type":"$item","id":1,"data":1}', '{"type":"$ok","id":1}'],
        ),
        ('{"type":"stream","id":1,"data":0}', ['{"type":"$ok","id":1}']),
        (
            '{"type":"stream of messages","id":1,"data":"hi"}',
            ['{"type":"$item","id":1,"data":{"user":"ann","text":"hi"}}', '{"type":"$ok","id":1}'],
        ),
        ('{"type":"say","id":1}', [f'{{"type":"$error","id":1,"error":{NO_TEXT}}}']),
        ('{"type":"say"}', [f'{{"type":"$error","error":{NO_TEXT}}}']),
        ('{"type":"nobody","id":1}', [f'{{"type":"$error","id":1,"error":{NOBODY}}}']),
        ('{"data":{"text":"hi"},"type":"say","id":1,"room":"hall","x":[]}', ['{"type":"$ok","id":1}']),
    ],
)
async def test_the_envelope(sent: str, frames: Sequence[str]) -> None:
    """A message is answered with these frames, to the letter, and with no other."""
    async with client_of(Speaker) as ws:
        await ws.send(sent)
        await ws.send('{"type":"sum","id":"next","data":[1]}')
        for frame in [*frames, '{"type":"$ok","id":"next","data":1}']:
            assert await ws.recv() == frame


async def test_on_connect_answers_too() -> None:
    """What `on_connect` returns is sent, and a message that it yields is sent as itself."""

    class Greeting(WebSocketHandler):
        async def on_connect(self) -> Said:
            return Said(user="system", text="welcome")

    class Greetings(WebSocketHandler):
        async def on_connect(self) -> AsyncIterator[Said]:
            yield Said(user="system", text="welcome")
            yield Said(user="system", text="sit down")

    async with client_of(Greeting) as ws:
        assert await ws.recv() == '{"type":"chat.said","data":{"user":"system","text":"welcome"}}'
    async with client_of(Greetings) as ws:
        assert (await receive(ws))["data"]["text"] == "welcome"
        assert (await receive(ws))["data"]["text"] == "sit down"


async def test_other_sends_come_before_the_reply() -> None:
    """What a method sends itself comes before what it returns."""

    class Chatty(WebSocketHandler):
        @on
        async def say(self, message: Say) -> str:
            await self.send(Said(user="ann", text="one"))
            await self.connection.send(Said(user="ann", text="two"))
            return "three"

    async with client_of(Chatty) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        assert [(await receive(ws))["data"] for _ in range(3)] == [
            {"user": "ann", "text": "one"},
            {"user": "ann", "text": "two"},
            "three",
        ]


async def test_a_payload_of_any_type() -> None:
    """With `@on("...")` a payload is whatever pydantic can validate, and comes as an object of that type."""
    seen: list[object] = []

    class Reader(WebSocketHandler):
        @on("model")
        async def model(self, message: Point) -> Point:
            seen.append(message)
            return message

        @on("dates")
        async def dates(self, message: dict[str, date]) -> dict[str, date]:
            seen.append(message)
            return message

        @on("maybe")
        async def maybe(self, message: int | None) -> bool:
            seen.append(message)
            return message is None

    async with client_of(Reader) as ws:
        await send(ws, "model", {"x": 1}, id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": {"x": 1, "y": 0}}
        await send(ws, "dates", {"ann": "2026-03-04"}, id=2)
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": {"ann": "2026-03-04"}}
        await ws.send('{"type":"maybe","id":3}')
        assert await receive(ws) == {"type": "$ok", "id": 3, "data": True}
    assert seen == [Point(x=1), {"ann": date(2026, 3, 4)}, None]


async def test_one_method_for_two_messages() -> None:
    """A union of messages registers a method for each of their types."""

    class Two(WebSocketHandler):
        @on
        async def either(self, message: Say | Said) -> str:
            return type(message).__name__

    async with client_of(Two) as ws:
        await send(ws, "say", {"text": "hi"})
        assert (await receive(ws))["data"] == "Say"
        await send(ws, "chat.said", {"text": "hi", "user": "ann"})
        assert (await receive(ws))["data"] == "Said"


async def test_on_message_gets_what_no_method_claims() -> None:
    """With an `Envelope`, `on_message` reads other types, with data and id, and answers as any method does."""

    class Rest(WebSocketHandler):
        @on
        async def say(self, message: Say) -> str:
            return "say"

        async def on_message(self, message: Envelope) -> Any:
            if message.type == "reply":
                return Said(user="rest", text="hi")
            return {"type": message.type, "data": message.data, "id": message.id}

    async with client_of(Rest) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        assert (await receive(ws))["data"] == "say"
        await send(ws, "other", [1, {"a": None}], id=2)
        assert await receive(ws) == {
            "type": "$ok",
            "id": 2,
            "data": {"type": "other", "data": [1, {"a": None}], "id": 2},
        }
        await ws.send('{"type":"other"}')
        assert (await receive(ws))["data"] == {"type": "other", "data": None, "id": None}
        await send(ws, "reply", id=3)
        assert await receive(ws) == {"type": "chat.said", "id": 3, "data": {"user": "rest", "text": "hi"}}
        await send(ws, "say", {}, id=4)
        assert (await receive(ws))["error"]["code"] == "invalid"


async def test_binary_frames_beside_methods() -> None:
    """With `bytes`, `on_message` reads binary frames beside the envelope of the text frames."""

    class Files(WebSocketHandler):
        @on
        async def say(self, message: Say) -> str:
            return message.text

        async def on_message(self, message: bytes) -> int:
            return len(message)

    async with client_of(Files) as ws:
        await ws.send(b"\xff\x00\x01")
        assert await receive(ws) == {"type": "$ok", "data": 3}
        await send(ws, "say", {"text": "hi"}, id=1)
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "hi"}
        await send(ws, "nobody", id=2)
        assert (await receive(ws))["error"]["code"] == "unknown_type"


async def test_nan_is_null_in_what_has_no_type() -> None:
    """NaN and infinities of an untyped reply are written as `null`, in objects and streams too."""

    class Numbers(WebSocketHandler):
        @on("nan")
        async def nan(self, message: None) -> Any:
            return [float("nan"), {"a": float("inf")}, -float("inf"), 1.5]

        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[float]:
            yield float("nan")

    async with client_of(Numbers) as ws:
        await send(ws, "nan", id=1)
        assert await ws.recv() == '{"type":"$ok","id":1,"data":[null,{"a":null},null,1.5]}'
        await send(ws, "stream", id=2)
        assert await ws.recv() == '{"type":"$item","id":2,"data":null}'


async def test_plain_methods_run_in_the_thread_pool() -> None:
    """A `def` method runs in another thread while the event loop goes on, and its result is the reply."""
    thread: list[int] = []
    go = threading.Event()

    class Threads(WebSocketHandler):
        max_in_flight = 2

        @on
        def say(self, message: Say) -> str:
            thread.append(threading.get_ident())
            assert go.wait(5)
            return message.text

        @on("go")
        async def release(self, message: None) -> None:
            go.set()

    async with client_of(Threads) as ws:
        await send(ws, "say", {"text": "hi"}, id=1)
        await send(ws, "go", id=2)
        assert await receive(ws) == {"type": "$ok", "id": 2}
        assert await receive(ws) == {"type": "$ok", "id": 1, "data": "hi"}
    assert thread != [threading.get_ident()]


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    "value",
    [object(), {"a": object()}, "\ud800", {"\udfff": 1}, [b"\xff"]],
    ids=["object", "object in a dict", "surrogate", "surrogate as key", "bytes"],
)
async def test_a_value_that_cannot_be_written(value: Any) -> None:
    """A reply that cannot be written is an error `internal`, and the connection lives."""

    class Odd(WebSocketHandler):
        @on("odd")
        async def odd(self, message: None) -> Any:
            return value

        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[Any]:
            yield value

    async with client_of(Odd) as ws:
        for type in "odd", "stream", "odd":
            await send(ws, type, id=1)
            answer = await receive(ws)
            assert answer["error"] == {"code": "internal", "message": "Internal error", "retry": False}
