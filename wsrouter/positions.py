"""Parameters of type `Position`: how far a client has read a room, as its handshake says."""

import inspect
from typing import Annotated, Any, Optional

from fastapi import Query, params
from pydantic import PlainValidator

from wsrouter.annotations import unfolded
from wsrouter.errors import ConfigurationError
from wsrouter.history import Position

_OPTIONAL = (Position | None, Optional[Position])  # noqa: UP045 # two objects that are not equal


def positioned(parameter: inspect.Parameter, owner: str) -> inspect.Parameter:
    """Return a parameter that comes from the request; one of type ``Position | None`` as one that accepts any text.

    It is the query parameter of its name, unless ``Query(alias=...)``, ``Header()`` or ``Cookie()`` says otherwise.

    Raises:
        ConfigurationError: it is a ``Position`` that can't be ``None``, or says where it comes from by its default.
    """
    annotation, metadata = unfolded(parameter.annotation)
    if annotation is Position:
        raise ConfigurationError(
            f"{owner}, parameter {parameter.name!r}: a client that comes for the first time has no position; annotate"
            " it with Position | None"
        )
    if annotation not in _OPTIONAL:
        return parameter
    if isinstance(parameter.default, params.Param):
        marker = type(parameter.default).__name__
        raise ConfigurationError(
            f"{owner}, parameter {parameter.name!r}: write Annotated[Position | None, {marker}(...)] = None"
        )
    source = next((each for each in metadata if isinstance(each, params.Param)), Query())
    text: Any = Annotated[Any, PlainValidator(Position.parse), source]
    return parameter.replace(annotation=text, default=None)
