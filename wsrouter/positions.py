"""Parameters of type `Position`: how far a client has read a room, as its handshake says."""

import inspect
from typing import Annotated, Any, Optional

from fastapi import Query
from pydantic import PlainValidator

from wsrouter.errors import ConfigurationError
from wsrouter.history import Position


def positioned(parameter: inspect.Parameter, owner: str) -> inspect.Parameter:
    """Return a parameter; one of type ``Position | None`` as the query parameter of its name, that accepts any text.

    Raises:
        ConfigurationError: it is a ``Position`` that can't be ``None``.
    """
    if parameter.annotation is Position:
        raise ConfigurationError(
            f"{owner}, parameter {parameter.name!r}: a client that comes for the first time has no position; annotate"
            " it with Position | None"
        )
    if parameter.annotation not in (Position | None, Optional[Position]):  # noqa: UP045 # an object of its own
        return parameter
    text: Any = Annotated[Any, PlainValidator(Position.parse), Query()]
    return parameter.replace(annotation=text, default=None)
