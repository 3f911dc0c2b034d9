"""Messages: their keyword, their fields, their generics."""

from typing import Generic, Literal, TypeVar, assert_type

from wsrouter import Envelope, Message

T = TypeVar("T")


class Said(Message, type="chat.said"):
    user: str
    text: str = ""


class Page(Message, Generic[T], type="page"):
    items: list[T]


class Moved(Message, type="moved", extra="forbid"):
    """With a keyword of pydantic's beside ours."""

    direction: Literal["left", "right"]


def fields(envelope: Envelope) -> None:
    said = Said(user="ann")
    assert_type(said.text, str)
    assert_type(Said.model_validate_json("{}"), Said)
    assert_type(Page(items=[1]).items, list[int])
    assert_type(Page[str](items=[]).items, list[str])
    assert_type(Moved(direction="left").direction, Literal["left", "right"])
    assert_type(envelope.type, str)
    assert_type(envelope.id, str | int | None)
    assert_type(envelope.room, str | None)
