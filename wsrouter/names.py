"""What the names of a handler's methods and fields say, and which of them say nothing."""

import inspect
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Final

from wsrouter.errors import ConfigurationError
from wsrouter.handler import MARK, Registration, WebSocketHandler

_HOOKS: Final = ("on_connect", "on_message", "on_disconnect", "on_join")
_ELSEWHERE: Final = {"on_receive": "on_message", "on_open": "on_connect", "on_close": "on_disconnect"}
"""Mapping of what Starlette, Tornado and websocket-client call a hook to what it is called here."""


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
    handlers = [base for base in cls.__mro__ if issubclass(base, WebSocketHandler)]
    theirs = {name for base in cls.__mro__ if base not in handlers for name in vars(base)}
    for name in sorted({name for base in handlers for name, value in vars(base).items() if inspect.isfunction(value)}):
        if name in {*own, *fields, *registered, *theirs}:
            continue
        for meant in {_ELSEWHERE.get(name), *(hook for hook in _HOOKS if _is_misspelled(name, hook))}:
            if meant in missing:
                raise ConfigurationError(
                    f"{cls.__qualname__}.{name}: no connection calls it; write {meant}, or @on above it if it is for"
                    " messages (or give it another name)"
                )


def _is_misspelled(name: str, hook: str) -> bool:
    """Whether a name is most likely to be a hook's; ``on_connected`` and ``on_reconnect`` are words of their own."""
    near = name.startswith("on") and abs(len(name) - len(hook)) <= 1 and hook not in name
    return near and SequenceMatcher(None, name, hook).ratio() >= 0.9
