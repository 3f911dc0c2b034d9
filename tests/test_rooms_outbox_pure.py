"""What needs no event loop: rooms, codecs, limits, messages, and the table of codes."""

import json
import math
import random
import types
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from fastapi import HTTPException
from pydantic import BaseModel

from wsrouter import (
    ConfigurationError,
    Deny,
    Disconnect,
    Envelope,
    Limits,
    Message,
    WebSocketError,
)
from wsrouter.codecs import MAX_ID, Codec, Decoded, Frame, JSONCodec, Schema, Unreadable, dump, quoted
from wsrouter.errors import (
    MAX_REASON_BYTES,
    WSRouterError,
    close_code,
    cut_reason,
    error_code,
    from_http,
    is_close_code,
    status_of,
)
from wsrouter.frames import checked, event_of, size_of
from wsrouter.messages import snake_case
from wsrouter.rooms import Rooms


def test_rooms_are_what_a_mapping_of_lists_would_be() -> None:
    """After any joins and leaves, an index knows the members of each name in the order in which they came."""
    chance = random.Random(7)
    for _ in range(200):
        rooms: Rooms[int] = Rooms()
        model: dict[str, list[int]] = {}
        for _ in range(chance.randrange(60)):
            name, member = chance.choice("abc"), chance.randrange(5)
            members = model.setdefault(name, [])
            if chance.random() < 0.6:
                assert rooms.add(name, member) is (not members)
                if member not in members:
                    members.append(member)
            else:
                assert rooms.discard(name, member) is (members == [member])
                if member in members:
                    members.remove(member)
            model = {name: members for name, members in model.items() if members}
            assert rooms.counts() == {name: len(members) for name, members in model.items()}
            assert {name: list(rooms.members(name)) for name in rooms} == model
            assert len(rooms) == len(model)
            assert all((name in rooms) is (name in model) for name in "abc")


def test_members_stay_as_they_were_taken() -> None:
    """Members can be gone through while others come and go."""
    rooms: Rooms[int] = Rooms()
    for member in range(3):
        rooms.add("a", member)
    for member in rooms.members("a"):
        rooms.discard("a", member)
        rooms.add("a", member + 10)
    assert rooms.members("a") == (10, 11, 12)
    assert rooms.members("nobody is here") == ()


@pytest.mark.parametrize(
    ("frame", "size"),
    [("", 0), ("abc", 3), ("é", 2), ("€", 3), ("😀", 4), ("a😀", 5), (b"", 0), (b"\xff\xff", 2), ("\ud800", 1)],
)
def test_the_size_of_a_frame(frame: Frame, size: int) -> None:
    """A text counts as many bytes as its UTF-8 has."""
    assert size_of(frame) == size


def test_the_event_of_a_frame() -> None:
    """Text and bytes are sent as what they are, and a text that is no UTF-8 is refused."""
    assert event_of("hi") == {"type": "websocket.send", "text": "hi"}
    assert event_of(b"hi") == {"type": "websocket.send", "bytes": b"hi"}
    for frame in "hi", "😀", b"\xff":
        assert checked(frame) is frame
    with pytest.raises(ValueError, match="surrogates not allowed"):
        checked("\ud800")


class Said(Message, type="chat.said"):
    text: str


class HTTPSay(Message):
    text: str = ""


class Odd(Message, type='say "\n'):
    text: str = "é"


class Point(BaseModel):
    x: float


VALUES: list[Any] = [None, True, 0, -7, 2**60, 1.5, "", "é😀", 'a"b\\c\n\0', [], [1, [None]], {}, {"a": {"b": "c"}}]


@pytest.mark.parametrize("id", [None, 0, -1, MAX_ID, "", "a", '"\\\n\0', "é😀" * 32])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_json_writes_can_be_read(id: str | int | None, value: Any) -> None:
    """Whatever is in a message, each frame is the JSON of its envelope, in the order type, id, data."""
    codec = JSONCodec()
    head = {} if id is None else {"id": id}
    assert list(json.loads(codec.control("$ok", id, data=value)).items()) == [
        ("type", "$ok"),
        *head.items(),
        ("data", value),
    ]
    assert json.loads(codec.control("$ok", id)) == {"type": "$ok", **head}
    assert json.loads(codec.control("$error", id, error={"code": value})) == {
        "type": "$error",
        **head,
        "error": {"code": value},
    }
    for message in Said(text=str(value)), Odd(text=str(value)):
        type = message.__message_type__
        assert list(json.loads(codec.message(message, id)).items()) == [
            ("type", type),
            *head.items(),
            ("data", {"text": str(value)}),
        ]
    for room in None, "", 'a"b', "é":
        place = {} if room is None else {"room": room}
        assert json.loads(codec.publication("a", dump(value), room)) == {"type": "a", **place, "data": value}


class Plain(Codec):
    """JSON, with nothing but what a codec must have."""

    subprotocol = "test"

    def loads(self, frame: Frame) -> Any:
        return json.loads(frame)

    def dumps(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_plain_codec_writes_the_same(value: Any) -> None:
    """What a codec gets for free says the same as JSON's own methods, frame by frame."""
    plain, fast = Plain(), JSONCodec()
    for id in None, 0, "a":
        for one, other in [
            (plain.control("$ok", id, data=value), fast.control("$ok", id, data=value)),
            (plain.control("$ok", id), fast.control("$ok", id)),
            (plain.control("$error", id, error={"code": value}), fast.control("$error", id, error={"code": value})),
            (plain.message(Said(text=str(value)), id), fast.message(Said(text=str(value)), id)),
            (plain.publication("a", dump(value), "room"), fast.publication("a", dump(value), "room")),
        ]:
            assert json.loads(one) == json.loads(other)


SCHEMA = Schema({"chat.said": Said, "http_say": HTTPSay, "sum": list[int], "any": Any, "point": Point}, open=False)

FRAMES: list[Any] = [
    {"type": "chat.said", "data": {"text": "hi"}},
    {"type": "chat.said", "data": {"text": "hi"}, "id": 1},
    {"type": "chat.said", "data": {"text": "hi"}, "id": "a" * 64},
    {"type": "chat.said", "data": {"text": "hi"}, "id": "a" * 65},
    {"type": "chat.said", "data": {"text": "hi"}, "id": MAX_ID},
    {"type": "chat.said", "data": {"text": "hi"}, "id": MAX_ID + 1},
    {"type": "chat.said", "data": {"text": "hi"}, "id": None},
    {"type": "chat.said", "data": {"text": 1}, "id": 1},
    {"type": "chat.said", "id": 1},
    {"type": "http_say"},
    {"type": "sum", "data": [1, 2]},
    {"type": "sum", "data": ["1", True]},
    {"type": "sum", "data": ["x"], "id": 3},
    {"type": "sum"},
    {"type": "any"},
    {"type": "any", "data": {"deep": [1, None]}, "more": 1},
    {"type": "point", "data": {"x": 1}},
    {"type": "point", "data": {}, "id": 1},
    {"type": "nobody", "id": 1},
    {"type": "$cancel", "id": 1},
    {"type": "$cancel", "data": "x"},
    {"type": "$cancel", "id": []},
    {"type": "$ok", "id": 1},
    {"type": None, "id": 1},
    {"id": 1},
    {},
    [],
    None,
    "text",
    1,
]


def reading(decode: Callable[[Frame], Decoded], frame: str) -> Any:
    """Return what a codec makes of a frame: the message, or id, code and places of an error."""
    try:
        return decode(frame)
    except Unreadable as exc:
        return exc.id, exc.error.code, [detail["loc"] for detail in exc.error.details or ()]


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_a_plain_codec_reads_the_same(frame: Any, opened: bool) -> None:
    """The one fast validator of JSON accepts and answers exactly what the plain way does."""
    schema = Schema(SCHEMA.payloads, open=opened)
    text = json.dumps(frame)
    assert reading(JSONCodec().decoder(schema), text) == reading(Plain().decoder(schema), text)


@pytest.mark.parametrize("known", [[], ["chat.said"], ["any"], ["chat.said", "sum", "any"]])
@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_a_handler_with_few_types(frame: Any, known: list[str]) -> None:
    """It does not matter whether a handler knows none, one or many types of message."""
    schema = Schema({type: SCHEMA.payloads[type] for type in known}, open=False)
    text = json.dumps(frame)
    assert reading(JSONCodec().decoder(schema), text) == reading(Plain().decoder(schema), text)


def test_random_bytes_never_raise_anything_else() -> None:
    """Frames that are cut, or changed in any one place, are read or `Unreadable`, and nothing else."""
    chance = random.Random(9)
    decode = JSONCodec().decoder(SCHEMA)
    for frame in FRAMES:
        text = json.dumps(frame)
        for _ in range(300):
            place = chance.randrange(len(text) + 1)
            change = chance.choice(['"', "\\", "{", "}", "[", "]", ",", ":", "NaN", "1e999", "\0", "é", "\\ud800", ""])
            changed = text[:place] + change + text[place + chance.randrange(2) :]
            answer = reading(decode, changed)
            assert isinstance(answer, dict) or answer[1] in {"invalid", "unknown_type"}


def test_nan_is_null_wherever_no_type_forbids_it() -> None:
    """JSON has no NaN and no infinities, so none is ever written."""
    values = [math.nan, math.inf, -math.inf, Point(x=math.nan), {"a": math.nan}]
    assert JSONCodec().control("$ok", data=values) == ('{"type":"$ok","data":[null,null,null,{"x":null},{"a":null}]}')
    with pytest.raises(ValueError, match="finite"):
        Limited(x=math.nan)


class Limited(Message):
    x: float


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("Say", "say"),
        ("HTTPSay", "http_say"),
        ("ChatSaid", "chat_said"),
        ("V2Said", "v2_said"),
        ("SaidV2", "said_v2"),
        ("A", "a"),
        ("AB", "ab"),
        ("say", "say"),
        ("Say2Me", "say2_me"),
    ],
)
def test_the_type_of_a_message(name: str, type: str) -> None:
    """It is the class name in snake case."""
    assert snake_case(name) == type
    made: Any = types.new_class(name, (Message,))
    assert made.__message_type__ == type


def test_a_given_type() -> None:
    """The class keyword rules; a subclass without one has a type of its own; what can't be one is refused."""

    class Sub(Said):
        pass

    assert (Said.__message_type__, Sub.__message_type__) == ("chat.said", "sub")
    for wrong in "", "$ok", 7:
        with pytest.raises(ConfigurationError, match="must be a text"):
            types.new_class("Wrong", (Message,), {"type": wrong})


def test_values_are_values() -> None:
    """Envelopes are compared by what they hold, and can't be changed."""
    assert Envelope("a", 1, 2) == Envelope("a", 1, 2)
    assert Envelope("a") != Envelope("b")
    with pytest.raises(AttributeError):
        Envelope("a").type = "b"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_the_defaults_of_limits() -> None:
    """They are those that the documentation lists."""
    limits = Limits()
    assert limits.message_size == 64 * 1024
    assert (limits.inbox_messages, limits.inbox_bytes) == (64, 256 * 1024)
    assert (limits.outbox_bytes, limits.outbox_frames) == (1024 * 1024, 1024)
    assert (limits.handshake, limits.send, limits.close) == (10, 10, 2)
    assert (limits.on_disconnect, limits.drain, limits.message_timeout) == (5, 5, None)
    assert (limits.rooms, limits.name_bytes) == (128, 255)
    with pytest.raises(AttributeError):
        limits.rooms = 1  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, -0.5, True, "1", None, math.nan])
def test_a_limit_is_above_zero(name: str, value: Any) -> None:
    """Anything else is refused, with the name of the limit; only `message_timeout` may be `None`."""
    given: dict[str, Any] = {name: value}
    if name == "message_timeout" and value is None:
        assert Limits(**given).message_timeout is None
    else:
        with pytest.raises(ConfigurationError, match=rf"Limits\({name}="):
            Limits(**given)


TABLE = [
    (400, 4400, "invalid"),
    (401, 4401, "unauthenticated"),
    (403, 4403, "forbidden"),
    (404, 4404, "not_found"),
    (405, 4400, "invalid"),
    (409, 4409, "conflict"),
    (413, 1009, "too_large"),
    (418, 4400, "invalid"),
    (422, 4422, "invalid"),
    (429, 4529, "rate_limited"),
    (500, 1011, "internal"),
    (502, 1011, "internal"),
    (503, 4503, "unavailable"),
    (504, 1011, "internal"),
]


@pytest.mark.parametrize(("status", "close", "code"), TABLE)
def test_the_table_of_codes(status: int, close: int, code: str) -> None:
    """One table rules HTTP status, close code and error code, for denials and for errors."""
    assert (close_code(status), error_code(status)) == (close, code)
    assert Deny(status).code == close
    assert from_http(HTTPException(status)).code == code
    assert is_close_code(close)


def test_the_way_back() -> None:
    """Each error code stands for a status, and one of the application's own for 400."""
    for code, status in [
        ("unauthenticated", 401),
        ("forbidden", 403),
        ("not_found", 404),
        ("conflict", 409),
        ("too_large", 413),
        ("invalid", 422),
        ("unknown_type", 400),
        ("rate_limited", 429),
        ("unavailable", 503),
        ("internal", 500),
        ("mine", 400),
    ]:
        assert status_of(code) == status


def test_codes_that_an_endpoint_may_send() -> None:
    """They are those of RFC 6455 and the ranges for applications."""
    allowed = {code for code in range(6000) if is_close_code(code)}
    assert allowed == {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    for code in [*sorted(set(range(990, 1020)) - allowed), 0, 2999, 5000]:
        with pytest.raises(ValueError, match=str(code)):
            Disconnect(code)
        with pytest.raises(ValueError, match=str(code)):
            Deny(code=code)
    for status in 200, 302, 399, 600:
        with pytest.raises(ValueError, match=str(status)):
            Deny(status)


def test_a_reason_is_cut_at_every_length() -> None:
    """Whatever the text, 123 bytes of UTF-8 are left at most, whole characters, and as many as fit."""
    chance = random.Random(10)
    for _ in range(2000):
        text = "".join(chance.choice("aé€😀") for _ in range(chance.randrange(140)))
        cut = cut_reason(text)
        assert text.startswith(cut)
        assert len(cut.encode()) <= MAX_REASON_BYTES
        if cut != text:
            assert len(text[: len(cut) + 1].encode()) > MAX_REASON_BYTES


def test_the_tree_of_exceptions() -> None:
    """One root for all, and `Deny` is an `HTTPException` too, so that FastAPI knows what to do with it."""
    for exception in ConfigurationError("x"), Deny(), WebSocketError("x"), Disconnect():
        assert isinstance(exception, WSRouterError)
    denial = Deny(429, reason="slowly", headers={"Retry-After": "1"})
    assert isinstance(denial, HTTPException)
    assert (denial.status_code, denial.detail, denial.headers) == (429, "slowly", {"Retry-After": "1"})
    assert str(WebSocketError("taken", "It is taken")) == "taken: It is taken"


def test_quoted() -> None:
    """Texts and integers are written as JSON."""
    assert [quoted(value) for value in ('a"b', "é", 0, -5)] == ['"a\\"b"', '"é"', "0", "-5"]
