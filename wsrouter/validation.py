"""What a client is told of a payload that does not validate: where and what, never its own input."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wsrouter.errors import WebSocketError

MAX_DETAILS: Final = 32
"""Validation errors that a client is told of one message."""
MAX_LOCATION: Final = 16
MAX_ERRORS: Final = 256
"""A payload that is wrong in more places is answered without details: they would cost more than the message."""
MAX_EXPLAINED: Final = 2048
"""Characters or bytes of a frame of which all mistakes are gathered; of a larger one the first in each collection."""
MAX_KEY_LENGTH: Final = 64
"""Characters of one key in the location of a validation error."""

_QUOTING: Final[Mapping[str, str]] = {
    "byte_size_unit": "Input should have a valid unit",
    "import_error": "Input should be a valid python path",
    "union_tag_invalid": "Input should have a {discriminator} that is one of {expected_tags}",
    "uuid_parsing": "Input should be a valid UUID",
    "zoneinfo_str": "Input should be a valid timezone",
}
"""What is said in place of pydantic's messages that have a part of the input in them, by type of error."""


def readable_errors(errors: list[ErrorDetails] | list[Any]) -> list[dict[str, Any]]:
    """Return validation errors as a client may see them: where and what, never a value of the input.

    There are at most `MAX_DETAILS`, a location has at most `MAX_LOCATION` parts, and a key in it is cut to
    `MAX_KEY_LENGTH` characters: all come from the client.
    """
    return [
        {
            "type": error["type"],
            "loc": [part[:MAX_KEY_LENGTH] if isinstance(part, str) else part for part in error["loc"][:MAX_LOCATION]],
            "msg": _message_of(error),
        }
        for error in errors[:MAX_DETAILS]
    ]


def _message_of(error: ErrorDetails | Any) -> str:
    message: str = error["msg"]
    instead = _QUOTING.get(error["type"])
    return message if instead is None else instead.format(**error.get("ctx", {}))


def invalid(exc: ValidationError) -> WebSocketError:
    """Return the error that answers a payload which does not validate."""
    if exc.error_count() > MAX_ERRORS:
        return WebSocketError("invalid", f"The message is not valid, in {exc.error_count()} places")
    details = exc.errors(include_url=False, include_input=False)
    return WebSocketError("invalid", "The message is not valid", details=readable_errors(details))
