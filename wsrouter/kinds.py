"""How a callable is called, and what it is called in texts."""

import functools
import inspect
from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Kind(IntEnum):
    """How a callable is called."""

    ASYNC = 0
    SYNC = 1
    CLASS = 2
    ASYNC_GENERATOR = 3
    GENERATOR = 4

    @property
    def yields(self) -> bool:
        return self in (Kind.ASYNC_GENERATOR, Kind.GENERATOR)


def name_of(call: object) -> str:
    """Return the name of a callable for texts."""
    if isinstance(call, functools.partial):
        return name_of(call.func)
    return getattr(call, "__qualname__", None) or type(call).__qualname__


def kind_of(call: Callable[..., Any]) -> Kind:
    """Return how a callable is called, decorators and ``functools.partial`` seen through."""
    if inspect.isclass(call):
        return Kind.CLASS
    bare: Any = call
    while isinstance(bare, functools.partial):
        bare = bare.func
    candidates = [bare, inspect.unwrap(bare)]
    if not inspect.isroutine(bare):
        candidates += [type(bare).__call__, inspect.unwrap(type(bare).__call__)]
    for predicate, kind in (
        (inspect.isasyncgenfunction, Kind.ASYNC_GENERATOR),
        (inspect.isgeneratorfunction, Kind.GENERATOR),
        (inspect.iscoroutinefunction, Kind.ASYNC),
    ):
        if any(predicate(candidate) for candidate in candidates):
            return kind
    return Kind.SYNC
