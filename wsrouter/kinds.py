"""How a callable is called, and what it is called in texts."""

import functools
import inspect
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Final


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
    """Return how a callable is called, decorators and ``functools.partial`` seen through.

    A decorator that is itself a coroutine function or a generator decides. A plain one is taken to return what the
    function under it does.
    """
    if inspect.isclass(call):
        return Kind.CLASS
    return next((kind for kind in _kinds(call) if kind is not Kind.SYNC), Kind.SYNC)


def loses_items(call: Callable[..., Any]) -> bool:
    """Whether a decorator makes a coroutine function of an async generator, and so a value of what it yields."""
    kinds = [] if inspect.isclass(call) else [kind for kind in _kinds(call) if kind is not Kind.SYNC]
    return kinds[:1] == [Kind.ASYNC] and Kind.ASYNC_GENERATOR in kinds


def is_plain(call: Callable[..., Any]) -> bool:
    """Whether a callable is a plain function, whatever it has been made of."""
    return next(_kinds(call)) is Kind.SYNC


def awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function of a plain one that may return a coroutine, or a value at once."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return call


def _kinds(call: Any) -> Iterator[Kind]:
    """Yield what each layer of a callable is by itself, from the outermost decorator inwards."""
    while call is not None:
        while isinstance(call, functools.partial):
            call = call.func
        if not inspect.isroutine(call) and not inspect.isclass(call) and not hasattr(call, "__wrapped__"):
            call = type(call).__call__
        yield next((kind for predicate, kind in _PREDICATES if predicate(call)), Kind.SYNC)
        call = getattr(call, "__wrapped__", None)


_PREDICATES: Final = (
    (inspect.isasyncgenfunction, Kind.ASYNC_GENERATOR),
    (inspect.isgeneratorfunction, Kind.GENERATOR),
    (inspect.iscoroutinefunction, Kind.ASYNC),
)
