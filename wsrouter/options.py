"""What routers and handler classes are given: guards, middleware, limits; checked, with what each of them needs."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import params

from wsrouter._fastapi import concurrency_of
from wsrouter.annotations import holds_metadata, parameters_of, unfolded
from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError
from wsrouter.hub import Hub
from wsrouter.identity import Authenticator
from wsrouter.kinds import Kind, kind_of, name_of
from wsrouter.metering import FrameLimit
from wsrouter.signatures import Dependency, Given, Needs, ScopedDependency, check_dependency, is_mark, is_ours, needs_of


def listed(value: Any, place: str) -> Sequence[Any]:
    """Return what a list holds.

    Raises:
        ConfigurationError: it is no list.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{place}: expected a list, got {value!r}; write [...] around it")
    return [*value]


def check_left_to_fastapi(dependency: Callable[..., Any], path: str) -> None:
    """Check a dependency that FastAPI solves before the guards of a route.

    Raises:
        ConfigurationError: it asks for what FastAPI would take from the query, where a client can set it.
    """
    place = next(_unknown_to_fastapi(dependency, f"{path}: the dependency {name_of(dependency)}"), None)
    if place is not None:
        raise ConfigurationError(
            f"{place}: it is solved by FastAPI, which knows no Provide, ConnectionScoped, Connection or Hub and would"
            " take it from the query; list the dependency in guards=[...] of a WebSocketRouter"
        )


def calls_below(call: Callable[..., Any], owner: str) -> Iterator[Callable[..., Any]]:
    """Yield a dependency that FastAPI solves, and all that it depends on."""
    yield call
    for parameter in parameters_of(call, owner):
        annotation: Any
        annotation, metadata = unfolded(parameter.annotation)
        marks: list[Any] = [mark for mark in (*metadata, parameter.default) if isinstance(mark, params.Depends)]
        if marks:
            needed: Any = annotation if marks[-1].dependency is None else marks[-1].dependency
            if callable(needed):
                yield from calls_below(needed, owner)


def _unknown_to_fastapi(call: Callable[..., Any], owner: str) -> Iterator[str]:
    """Yield the places in a tree of dependencies that we would fill otherwise than FastAPI does."""
    if is_ours(call):
        yield owner
        return
    for parameter in parameters_of(call, owner):
        place = f"{owner}, parameter {parameter.name!r}"
        annotation: Any
        annotation, metadata = unfolded(parameter.annotation)
        marks: list[Any] = [mark for mark in (*metadata, parameter.default) if is_mark(mark)]
        if any(is_ours(mark) for mark in marks) or holds_metadata(annotation, is_ours):
            yield place
        elif marks:
            needed: Any = annotation if marks[-1].dependency is None else marks[-1].dependency
            if callable(needed):
                yield from _unknown_to_fastapi(needed, f"{owner} → {name_of(needed)}")
        elif inspect.isclass(annotation) and issubclass(annotation, Connection | Hub):
            yield place


def check_instance(value: object, kind: type, place: str, example: str) -> None:
    """Check an option that may be left out.

    Raises:
        ConfigurationError: it is something else.
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{place}: expected {example}, got {value!r}")


def guard_needs(guard: object, owner: str) -> Dependency:
    """Return a guard as a dependency: a callable, or FastAPI's ``Depends`` of one.

    Raises:
        ConfigurationError: it can't deny anybody.
    """
    scopes: tuple[str, ...] = ()
    concurrency = None
    if isinstance(guard, params.Depends):
        scopes = tuple(getattr(guard, "scopes", None) or ())
        concurrency = concurrency_of(guard)
        guard = guard.dependency
    elif isinstance(guard, ScopedDependency):
        guard = guard.dependency
    if not callable(guard):
        raise ConfigurationError(f"{owner}: {guard!r} is no guard; a guard is a callable, written as a dependency")
    place = f"{owner}, guard {name_of(guard)}"
    function: object = guard
    while isinstance(function, functools.partial):
        function = function.func
    check_dependency(guard, place)
    if inspect.isclass(function):
        raise ConfigurationError(f"{place}: a class denies nobody; list an instance, {name_of(function)}(...)")
    if scopes and isinstance(guard, Authenticator) and not needs_of(guard, place).uses(Given.SCOPES):
        raise ConfigurationError(
            f"{place}: it takes no SecurityScopes, so the scopes of Security(...) would demand nothing; list"
            f" RequireScopes({', '.join(map(repr, scopes))}) after it"
        )
    return Dependency(needs_of(guard, place), True, False, scopes, concurrency)


def middleware_needs(middleware: object, owner: str) -> Needs:
    """Return what a message middleware needs beyond the message, the connection and ``call_next``.

    Raises:
        ConfigurationError: it is no coroutine function of these three.
    """
    place = f"{owner}, middleware {name_of(middleware)}"
    if not callable(middleware) or kind_of(middleware) is not Kind.ASYNC:
        raise ConfigurationError(
            f"{place}: write it as async def (message, connection, call_next), or give an instance with such a __call__"
        )
    if len(parameters_of(middleware, place)) < 3:
        raise ConfigurationError(
            f"{place}: it is called with (message, connection, call_next); let it take these three first"
        )
    return needs_of(middleware, place, skip=3)


def sorted_middleware(each: Sequence[object], owner: str) -> tuple[list[Needs], list[FrameLimit]]:
    """Return what wraps messages and what limits frames, of what is listed as middleware.

    Raises:
        ConfigurationError: something is neither.
    """
    around = [middleware_needs(item, owner) for item in each if not isinstance(item, FrameLimit)]
    return around, [item for item in each if isinstance(item, FrameLimit)]


def exception_handler_needs(function: object, owner: str) -> Needs:
    """Return what an exception handler needs beyond the exception.

    Raises:
        ConfigurationError: it is no function of an exception, or yields.
    """
    place = f"{owner}, exception handler {name_of(function)}"
    if not callable(function) or kind_of(function) not in (Kind.ASYNC, Kind.SYNC):
        raise ConfigurationError(f"{place}: it returns one message; write it as async def (exc), without yield")
    if not parameters_of(function, place):
        raise ConfigurationError(f"{place}: it is called with the exception; let it take that first")
    return needs_of(function, place, skip=1)
