"""What is asked of everything that clients send: finite floats at any depth, and mistakes that cost little."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from tests.envelopes import client_of, close_of, receive, send
from wsrouter import Message, WebSocketHandler, on
from wsrouter.codecs import JSONCodec, Schema, Unreadable
from wsrouter.schemas import adapter, validator
from wsrouter.validation import MAX_EXPLAINED


class Plain(BaseModel):
    value: float


class Outer(Message):
    inner: Plain


class Listing(Message):
    items: list[Plain]


class Mapped(Message):
    items: dict[str, Plain | None]


class Either(Message):
    item: Annotated[Plain, Field(description="one")] | Literal["none"]


class Tree(BaseModel):
    value: float = 0.0
    children: "list[Tree]" = []


class Forest(Message):
    trees: list[Tree]


class Values(RootModel[list[float]]): ...


@dataclass
class Data:
    value: float


@pydantic_dataclass
class Validated:
    value: float


class Typed(TypedDict):
    value: float


class Tuple(NamedTuple):
    value: float


class Node(BaseModel):
    data: Data
    validated: Validated
    typed: Typed
    tuple: Tuple
    values: Values


class Mixed(Message):
    node: Node


NODE = {"data": {"value": 1}, "validated": {"value": 1}, "typed": {"value": 1}, "tuple": [1], "values": [1]}


def node(**changed: Any) -> Mapping[str, Any]:
    return {"node": {**NODE, **changed}}


FLOATS: list[tuple[Any, Callable[[Any], Any]]] = [
    (Plain, lambda bad: {"value": bad}),
    (Outer, lambda bad: {"inner": {"value": bad}}),
    (Listing, lambda bad: {"items": [{"value": 1}, {"value": bad}]}),
    (Mapped, lambda bad: {"items": {"a": None, "b": {"value": bad}}}),
    (Either, lambda bad: {"item": {"value": bad}}),
    (Forest, lambda bad: {"trees": [{"children": [{"children": [{"value": bad}]}]}]}),
    (Mixed, lambda bad: node(data={"value": bad})),
    (Mixed, lambda bad: node(validated={"value": bad})),
    (Mixed, lambda bad: node(typed={"value": bad})),
    (Mixed, lambda bad: node(tuple=[bad])),
    (Mixed, lambda bad: node(values=[bad])),
    (list[Data], lambda bad: [{"value": bad}]),
    (dict[str, Typed], lambda bad: {"a": {"value": bad}}),
    (Values, lambda bad: [bad]),
    (float, lambda bad: bad),
]


@pytest.mark.parametrize(("payload", "data"), FLOATS)
def test_floats_are_finite(payload: Any, data: Callable[[Any], Any]) -> None:
    """A text that pydantic reads as NaN or infinity, and a number that is too large, is refused wherever it stands."""
    for fail_fast in True, False:
        read = validator(adapter(payload), fail_fast=fail_fast)
        assert read.validate_json(json.dumps(data("1.5"))) == TypeAdapter(payload).validate_python(data(1.5))
        for bad in "nan", "NaN", "inf", "-Infinity", "1e999":
            with pytest.raises(ValidationError, match="finite"):
                read.validate_json(json.dumps(data(bad)))
        with pytest.raises(ValidationError, match="finite"):
            read.validate_json(json.dumps(data("here")).replace('"here"', "1e999"))


class Boundless(BaseModel):
    model_config = ConfigDict(allow_inf_nan=True)

    value: float
    typed: Typed
    inner: Plain | None = None


class Limit(Message):
    boundless: Boundless
    top: Annotated[float, Field(allow_inf_nan=True)]


def test_who_says_so_gets_infinities() -> None:
    """A model, or a field, that allows infinities in its own words gets them; a model within has to say so itself."""
    read = validator(adapter(Limit))
    boundless: dict[str, Any] = {"value": "inf", "typed": {"value": "inf"}}
    limit = read.validate_json(json.dumps({"boundless": boundless, "top": "inf"}))
    assert (limit.top, limit.boundless.value, limit.boundless.typed["value"]) == (float("inf"),) * 3
    with pytest.raises(ValidationError, match="finite"):
        read.validate_json(json.dumps({"boundless": {**boundless, "inner": {"value": "inf"}}, "top": 0}))


class Leaf(BaseModel):
    kind: Literal["leaf"]
    size: int


class Branch(BaseModel):
    kind: Literal["branch"]
    leaves: list[Leaf]


class Batch(Message):
    items: list[int | Leaf | Branch]


COLLECTIONS = [
    list[int],
    set[int],
    frozenset[int],
    tuple[int, ...],
    deque[int],
    list[int | Leaf | Branch],
    list[Annotated[Leaf | Branch, Field(discriminator="kind")]],
    list[list[int]],
    list[tuple[int, int]],
    list[int] | list[Leaf],
]


@pytest.mark.parametrize("payload", COLLECTIONS, ids=str)
def test_the_first_mistake_ends_a_collection(payload: Any) -> None:
    """Of a thousand wrong items one is looked at: what is told of it has as many errors as the types for an item."""
    with pytest.raises(ValidationError) as raised:
        validator(adapter(payload)).validate_json(json.dumps([["x", "y"]] * 1000))
    assert raised.value.error_count() <= 6


def test_the_first_mistake_ends_a_mapping() -> None:
    """A mapping stops at its first wrong key or value."""
    with pytest.raises(ValidationError) as raised:
        validator(adapter(dict[int, int])).validate_json(json.dumps(dict.fromkeys(map(str, range(1000)), "x")))
    assert raised.value.error_count() == 1
    with pytest.raises(ValidationError) as raised:
        validator(adapter(dict[int, int])).validate_json(json.dumps(dict.fromkeys("abcdefghij", 1)))
    assert raised.value.error_count() == 1


class Careful(Message):
    items: Annotated[list[int], Field(fail_fast=False)]


def test_a_field_may_gather_all_mistakes() -> None:
    """A field that says ``fail_fast=False`` is asked for all of its mistakes."""
    with pytest.raises(ValidationError) as raised:
        validator(adapter(Careful)).validate_json('{"items":["x","y","z"]}')
    assert raised.value.error_count() == 3


def details_of(frame: str) -> list[Any]:
    with pytest.raises(Unreadable) as raised:
        JSONCodec().decoder(Schema({"batch": Batch}, open=False))(frame)
    details: list[Any] = raised.value.error.details
    return details


def test_small_frames_are_told_all_and_large_ones_the_first() -> None:
    """A frame of some lines hears of all its mistakes, one of 64 KiB of the first in a collection."""
    head = '{"type":"batch","data":{"items":['
    small, large = [head + ",".join(['""'] * count) + "]}}" for count in (10, 20_000)]
    assert len(small) < MAX_EXPLAINED < len(large)
    assert {detail["loc"][1] for detail in details_of(small)} == set(range(10))
    assert {detail["loc"][1] for detail in details_of(large)} == {0}
    assert len(details_of(large)) == 3


class Raw(WebSocketHandler):
    async def on_message(self, message: list[Plain]) -> str:
        return str(message[0].value)


async def test_a_raw_handler_reads_finite_floats() -> None:
    """What a raw handler reads as JSON obeys the same rules: 1007."""
    async with client_of(Raw) as ws:
        await ws.send('[{"value":"1.5"}]')
        assert await ws.recv() == "1.5"
        await ws.send('[{"value":"nan"}]')
        assert (await close_of(ws))[0] == 1007


async def test_a_handler_gets_finite_floats() -> None:
    """A method is not called with a float of a model within that is not finite; the answer says where it stands."""

    class Handler(WebSocketHandler):
        @on
        async def outer(self, message: Outer) -> float:
            return message.inner.value

    async with client_of(Handler) as ws:
        await send(ws, "outer", {"inner": {"value": "1.5"}}, id=1)
        assert (await receive(ws))["data"] == 1.5
        await send(ws, "outer", {"inner": {"value": "nan"}}, id=2)
        error = (await receive(ws))["error"]
    assert (error["code"], error["details"][0]["loc"]) == ("invalid", ["inner", "value"])
