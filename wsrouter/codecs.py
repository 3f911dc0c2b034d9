"""Frames ⇄ messages: what one subprotocol writes and reads."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias, TypeGuard, Union

from pydantic import Field, StrictInt, StrictStr, ValidationError
from pydantic_core import SchemaValidator, from_json, to_json
from typing_extensions import TypedDict, TypeIs

from wsrouter.errors import WebSocketError
from wsrouter.messages import Message
from wsrouter.schemas import adapter, validator
from wsrouter.validation import MAX_ERRORS, MAX_EXPLAINED, invalid

Frame: TypeAlias = str | bytes
"""``str`` is a text frame, ``bytes`` a binary frame."""

Id: TypeAlias = str | int
MAX_ID_LENGTH: Final = 64
MAX_ID: Final = 2**53 - 1
_ID = Annotated[StrictStr, Field(max_length=MAX_ID_LENGTH)] | Annotated[StrictInt, Field(ge=-MAX_ID, le=MAX_ID)]

CONTROLS: Final = frozenset({"$cancel", "$auth"})
"""Types of the frames of our own that a client may send."""

ABSENT: Final[Any] = object()
"""Marks a part of the envelope that is left out."""


class Decoded(TypedDict):
    """One frame that was read."""

    type: str
    data: Any
    id: NotRequired[Id]


class Unreadable(Exception):
    """A frame that is no message for this handler: the error that answers it, and the id to answer to."""

    def __init__(self, error: WebSocketError, id: Id | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.id = id


@dataclass(frozen=True, slots=True)
class Schema:
    """What the frames of one handler class may hold: worked out once, at registration."""

    payloads: Mapping[str, Any]
    """Mapping of message type to the type of its payload: a `Message`, or what pydantic can validate."""

    open: bool
    """Whether ``on_message`` takes what no payload is declared for."""

    _thorough: Mapping[str, SchemaValidator] = field(init=False)
    _hasty: Mapping[str, SchemaValidator] = field(init=False)

    def __post_init__(self) -> None:
        adapters = {name: adapter(payload) for name, payload in self.payloads.items()}
        thorough = {name: validator(each, fail_fast=False) for name, each in adapters.items()}
        object.__setattr__(self, "_thorough", thorough)
        object.__setattr__(self, "_hasty", {name: validator(each) for name, each in adapters.items()})

    def read(self, value: Any, size: int, validate: Callable[[SchemaValidator, Any], Any]) -> Decoded:
        """Return the message in a decoded value.

        Args:
            value: what the codec made of the frame.
            size: characters or bytes of the frame; in a large one the mistakes are not all looked for.
            validate: validates the payload with the validator of its type.

        Raises:
            Unreadable: it is no envelope, its type is unknown, or its payload does not validate.
        """
        if not is_object(value):
            raise Unreadable(WebSocketError("invalid", "A message is one object with a 'type'"))
        id = value.get("id")
        if "id" in value and not is_id(id):
            raise Unreadable(
                WebSocketError(
                    "invalid",
                    f"'id' is a text of at most {MAX_ID_LENGTH} characters, or an integer within ±(2^53-1)",
                )
            )
        tag = value.get("type")
        if not isinstance(tag, str):
            raise Unreadable(WebSocketError("invalid", "'type' is missing or no text"), id)
        if tag in CONTROLS:
            return decoded(tag, value.get("data"), id)
        payload = (self._thorough if size <= MAX_EXPLAINED else self._hasty).get(tag)
        if payload is None:
            if self.open and tag and not tag.startswith("$"):
                return decoded(tag, value.get("data"), id)
            raise Unreadable(WebSocketError("unknown_type", "No such message type"), id)
        data = value.get("data", {} if is_message(self.payloads[tag]) else None)
        try:
            return decoded(tag, validate(payload, data), id)
        except ValidationError as exc:
            raise Unreadable(invalid(exc), id) from None


def decoded(type: str, data: Any, id: Id | None) -> Decoded:
    return Decoded(type=type, data=data) if id is None else Decoded(type=type, data=data, id=id)


def is_id(value: object) -> TypeGuard[Id]:
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_ID <= value <= MAX_ID


def is_object(value: object) -> TypeIs[dict[object, Any]]:
    return isinstance(value, dict)


def is_message(payload: Any) -> bool:
    return isinstance(payload, type) and issubclass(payload, Message)


class Codec(ABC):
    """How the messages of one subprotocol are written as frames.

    A codec for another format implements `loads` and `dumps`; the rest has a portable default. One object
    serves all connections, so it keeps no state of any.
    """

    subprotocol: str
    """What a client offers to speak it, such as ``wsrouter.v1+cbor`` (RFC 6455, section 1.9)."""

    @abstractmethod
    def loads(self, frame: Frame) -> Any:
        """Return the value that a frame holds: objects as dicts, arrays as lists.

        Raises:
            ValueError: the frame is not of this format.
        """

    @abstractmethod
    def dumps(self, value: Any) -> Frame:
        """Return the frame of a value that is made of what JSON knows."""

    def decoder(self, schema: Schema) -> Callable[[Frame], Decoded]:
        """Return what reads the frames of one handler class; it raises `Unreadable`."""

        def decode(frame: Frame) -> Decoded:
            try:
                value = self.loads(frame)
            except (ValueError, RecursionError):
                raise Unreadable(WebSocketError("invalid", f"The frame is not {self.subprotocol}")) from None
            return schema.read(value, len(frame), lambda validator, data: validator.validate_python(data))

        return decode

    def message(self, message: Message, id: Id | None = None) -> Frame:
        """Return the frame of a message."""
        return self.control(message.__message_type__, id, data=message)

    def control(self, type: str, id: Id | None = None, *, data: Any = ABSENT, error: Any = ABSENT) -> Frame:
        """Return a frame with any type, its data and its error given as values that pydantic can write."""
        envelope: dict[str, Any] = {"type": type}
        if id is not None:
            envelope["id"] = id
        if data is not ABSENT:
            envelope["data"] = from_json(dump(data))
        if error is not ABSENT:
            envelope["error"] = from_json(dump(error))
        return self.dumps(envelope)

    def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> Frame:
        """Return the frame of a publication whose data is JSON already, ``None`` for none; once per broadcast."""
        envelope: dict[str, Any] = {"type": type}
        if room is not None:
            envelope["room"] = room
        if offset is not None:
            envelope["offset"] = offset
        if data is not None:
            envelope["data"] = from_json(data)
        return self.dumps(envelope)


def dump(value: Any) -> bytes:
    """Return a value as JSON: models by alias, NaN and infinities as ``null``."""
    if isinstance(value, Message):
        return value.__pydantic_serializer__.to_json(value, by_alias=True)
    return to_json(value, by_alias=True, inf_nan_mode="null")


class JSONCodec(Codec):
    """One JSON object per text frame."""

    subprotocol = "wsrouter.v1"

    def loads(self, frame: Frame) -> Any:
        return from_json(frame, allow_inf_nan=False)

    def dumps(self, value: Any) -> str:
        return to_json(value).decode()

    def decoder(self, schema: Schema) -> Callable[[Frame], Decoded]:
        """Read the whole frame with one validator, discriminated by ``type``.

        What it does not accept is read again, slowly, to find out what to answer.
        """
        envelopes = tuple(envelope_type(name, payload) for name, payload in schema.payloads.items())
        validate: Callable[[Frame], Decoded] | None = None
        if len(envelopes) == 1:
            validate = validator(adapter(envelopes[0])).validate_json
        elif envelopes:
            union: Any = Annotated[Union[envelopes], Field(discriminator="type")]  # noqa: UP007
            validate = validator(adapter(union)).validate_json

        def explain(frame: Frame) -> Decoded:
            try:
                value = self.loads(frame)
            except ValueError:
                raise Unreadable(WebSocketError("invalid", "The frame is not JSON"), lenient_id(frame)) from None
            return schema.read(value, len(frame), lambda validator, data: validator.validate_json(to_json(data)))

        def decode(frame: Frame) -> Decoded:
            if not isinstance(frame, str):
                raise Unreadable(WebSocketError("invalid", "A message is a text frame"))
            if validate is None or "NaN" in frame or "Infinity" in frame:
                return explain(frame)
            try:
                return validate(frame)
            except ValidationError as exc:
                if exc.error_count() > MAX_ERRORS:  # only a payload has so many: to look at all would hold the loop
                    raise Unreadable(invalid(exc), lenient_id(frame)) from None
                return explain(frame)

        return decode

    def message(self, message: Message, id: Id | None = None) -> str:
        data = message.__pydantic_serializer__.to_json(message, by_alias=True)
        if id is None:
            return (message.__message_head__ + data + b"}").decode()
        return f'{{"type":{quoted(message.__message_type__)},"id":{quoted(id)},"data":{data.decode()}}}'

    def control(self, type: str, id: Id | None = None, *, data: Any = ABSENT, error: Any = ABSENT) -> str:
        frame = f'{{"type":"{type}"'
        if id is not None:
            frame += f',"id":{quoted(id)}'
        if data is not ABSENT:
            frame += f',"data":{dump(data).decode()}'
        if error is not ABSENT:
            frame += f',"error":{dump(error).decode()}'
        return frame + "}"

    def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> str:
        place = "" if room is None else f',"room":{quoted(room)}'
        if offset is not None:
            place += f',"offset":{offset}'
        if data is not None:
            place += f',"data":{data.decode()}'
        return f'{{"type":{quoted(type)}{place}}}'


def envelope_type(name: str, payload: Any) -> Any:
    """Return the type of the envelope around one type of message."""
    fields: dict[str, Any] = {"type": Literal[name], "data": payload, "id": NotRequired[_ID]}
    # A checker knows only those that are written out.
    return TypedDict("Envelope", fields)  # type: ignore[operator] # pyright: ignore[reportArgumentType]


def lenient_id(frame: Frame) -> Id | None:
    """Return the id in a frame that only a more lenient parser reads: one with NaN or a lone surrogate."""
    try:
        value: object = json.loads(frame)
        id: object = value.get("id") if is_object(value) else None
        return id if is_id(id) and to_json(id) else None
    except (ValueError, RecursionError):
        return None


def quoted(value: str | int) -> str:
    """Return a text or an integer as JSON."""
    return to_json(value).decode()
