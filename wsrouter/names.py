"""What the names of a handler's methods and fields say, and which of them say nothing."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from wsrouter.errors import ConfigurationError
from wsrouter.handler import MARK, Registration, WebSocketHandler

_HOOKS: Final = ("on_connect", "on_message", "on_disconnect", "on_join")
_ELSEWHERE: Final = {"on_receive": "on_message", "on_open": "on_connect", "on_close": "on_disconnect"}
"""Mapping of what Starlette, Tornado and browsers call a hook to what it is called here."""


def registrations(cls: type[WebSocketHandler]) -> Mapping[str, Registration]:
    """Return a mapping of method name to what is registered; the innermost ``@on`` of a name rules."""
    found: dict[str, Registration] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if hasattr(value, MARK):
                found[name] = getattr(value, MARK)
            elif name in found and value is None:
                del found[name]
    return found


def check_names(cls: type[WebSocketHandler]) -> None:
    """Check that what a class defines takes the place of nothing but hooks, and is not meant for one.

    Raises:
        ConfigurationError: a message method or dataclass field has the name of something of the handler's own, or a
            method that nothing calls has almost that of a hook.
    """
    registered = registrations(cls)
    own = {"connection", *(name for name in vars(WebSocketHandler) if not name.startswith("_"))}
    fields: Mapping[str, object] = getattr(cls, "__dataclass_fields__", {})
    for name in sorted(own & {*fields, *registered}):
        raise ConfigurationError(
            f"{cls.__qualname__}.{name}: that name is the handler's own (self.{name}); give the field or method"
            " another, a message type stays what it is with @on('...')"
        )
    missing = [hook for hook in _HOOKS if getattr(cls, hook) is getattr(WebSocketHandler, hook)]
    for name in dir(cls):
        if not name.startswith("on_") or name in {*own, *fields, *registered}:
            continue
        if not inspect.isfunction(inspect.getattr_static(cls, name)):
            continue
        for meant in {_ELSEWHERE.get(name), *get_close_matches(name, _HOOKS, 1, 0.9)}.intersection(missing):
            raise ConfigurationError(
                f"{cls.__qualname__}.{name}: nothing calls it; write {meant}, or @on above it if it is for messages"
                " (or give it a name that does not begin with on_)"
            )
