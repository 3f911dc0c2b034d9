"""What travels: typed messages and the envelope around them."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from wsrouter.errors import ConfigurationError

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """Return a class name as a message type: ``HTTPSay`` is ``http_say``."""
    return _WORDS.sub("_", name).lower()


def check_type(value: object, owner: str) -> str:
    """Return ``value`` if it can be the type of a message.

    Raises:
        ConfigurationError: it is no text, empty, or begins with ``$``, which is wsrouter's own.
    """
    if not isinstance(value, str) or not value or value.startswith("$"):
        raise ConfigurationError(
            f"{owner}: the message type {value!r} must be a text that is not empty and does not begin with '$'"
        )
    return value


class Message(BaseModel):
    """A typed message: the fields of the class are the ``data`` of the envelope.

    Its type is the class keyword ``type=``, else the class name in snake case. Floats refuse NaN and
    infinities, which JSON does not have. In what a client sends, so do those of models within it, unless a model or
    field says ``allow_inf_nan=True``.

        class Said(Message, type="chat.said"):
            user: str
            text: str

    The class keyword ``key=`` names the field that says what a message is the newest value of, for rooms with
    ``RoomOptions(overflow="latest")``.

        class Price(Message, key="symbol"):
            symbol: str
            price: float

    Raises:
        ConfigurationError: at class creation, when ``type=`` is empty or begins with ``$``, or ``key=`` is no field.
    """

    model_config = ConfigDict(allow_inf_nan=False, serialize_by_alias=True)

    __message_type__: ClassVar[str] = "message"
    __message_head__: ClassVar[bytes] = b'{"type":"message","data":'

    __message_key__: ClassVar[str | None] = None

    def __init_subclass__(cls, *, type: str | None = None, key: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, key: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if key is not None:
            if key not in cls.model_fields:
                raise ConfigurationError(f"{cls.__qualname__}: key={key!r} is none of its fields")
            cls.__message_key__ = key
        generic = cls.__pydantic_generic_metadata__["origin"]
        if generic is not None and issubclass(generic, Message):
            cls.__message_type__ = generic.__message_type__
        else:
            cls.__message_type__ = check_type(snake_case(cls.__name__) if type is None else type, cls.__qualname__)
        cls.__message_head__ = b'{"type":' + to_json(cls.__message_type__) + b',"data":'


def key_of(message: Message) -> str | None:
    """Return what a message is the newest value of, ``None`` if its class has no ``key=``."""
    name = message.__message_key__
    return None if name is None else to_json(getattr(message, name), inf_nan_mode="constants").decode()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with what is around it (the envelope of the wire protocol).

    ``on_message`` with an `Envelope` gets what no `on` method claims, ``data`` as plain JSON values;
    message middleware gets every message, ``data`` as the validated payload.
    """

    type: str
    """Which message."""

    data: Any = None
    """The payload."""

    id: str | int | None = None
    """Set by a client that wants exactly one terminal reply; it comes back on the replies."""

    room: str | None = None
    """On frames that a room delivered: its name."""
