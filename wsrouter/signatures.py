"""What a callable needs, read from its signature once, when it is registered."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, get_args, get_origin

from fastapi import BackgroundTasks, Depends, Response, Security, params
from fastapi.exceptions import FastAPIError
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from wsrouter._fastapi import BodyParameter, RequestParameters, concurrency_of
from wsrouter.annotations import holds_metadata, parameters_of, unfolded
from wsrouter.connection import Connection
from wsrouter.containers import is_closing, is_marker, is_provider, is_unfinished_marker
from wsrouter.errors import ConfigurationError
from wsrouter.frames import CloseInfo
from wsrouter.hub import Hub
from wsrouter.identity import Authenticator
from wsrouter.kinds import Kind, kind_of, loses_items, name_of
from wsrouter.positions import positioned


class Given(Enum):
    """What is given by the type of a parameter alone."""

    CONNECTION = Connection
    HUB = Hub
    WEBSOCKET = WebSocket
    HTTP = HTTPConnection
    SCOPES = SecurityScopes
    CLOSE = CloseInfo


_NOT_HERE: Final = {
    Request: "a WebSocket has no Request: annotate it with HTTPConnection, which HTTP routes can give as well",
    BackgroundTasks: "background tasks never run on a WebSocket: start a task of your own",
    Response: "a WebSocket has no Response: pass headers with Deny(headers=...)",
}


@dataclass(frozen=True, slots=True)
class ScopedDependency:
    """Marks a dependency that lives as long as the connection; made by `ConnectionScoped`."""

    dependency: Callable[..., Any]
    use_cache: bool = True


def ConnectionScoped(dependency: Callable[..., Any], *, use_cache: bool = True) -> Any:  # noqa: N802
    """Mark a dependency that is opened once per connection, in place of ``Depends(dependency)``.

    It is opened when it is first needed, shared by all who mark it so, and closed after ``on_disconnect``,
    in the task that opened it. What it depends on lives as long.

    Args:
        dependency: function, generator function or class, as for FastAPI's ``Depends``.
        use_cache: ``False`` gives each place that names it a value of its own.
    """
    return ScopedDependency(dependency, use_cache)


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """A parameter that is what another callable returns or yields."""

    needs: "Needs"
    use_cache: bool
    lasting: bool
    scopes: tuple[str, ...]
    concurrency: Any


@dataclass(frozen=True, slots=True)
class Provided:
    """A parameter that comes from a container: the marker of dependency-injector."""

    marker: Any
    owner: str


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """A callable with everything that it has to be given."""

    call: Callable[..., Any]
    kind: Kind
    owner: str
    sources: tuple[tuple[str, Dependency | Provided | Given], ...]
    request: tuple[inspect.Parameter, ...]

    def walk(self) -> Iterator["Needs"]:
        """Yield this and all that it depends on."""
        yield self
        for _, source in self.sources:
            if isinstance(source, Dependency):
                yield from source.needs.walk()

    def uses(self, *kinds: Given | type[Provided]) -> bool:
        """Whether it or anything that it depends on is given one of ``kinds``."""
        return any(
            (isinstance(source, Provided) and Provided in kinds) or source in kinds
            for needs in self.walk()
            for _, source in needs.sources
        )

    def check_not_given(self, given: Given, cure: str) -> None:
        """Check that a type is not asked for.

        Raises:
            ConfigurationError: it is.
        """
        for name, source in self.sources:
            if source is given:
                raise ConfigurationError(f"{self.owner}, parameter {name!r}: {cure}")

    def parameters(self, path: str) -> RequestParameters | None:
        """Return what reads the parameters that come from the request, of a route with this path.

        Raises:
            ConfigurationError: FastAPI does not admit one of them.
        """
        if not self.request:
            return None
        try:
            return RequestParameters(path, list(self.request))
        except Exception:
            for parameter in self.request:
                self._check(path, parameter)
            raise

    def _check(self, path: str, parameter: inspect.Parameter) -> None:
        place = f"{self.owner}, parameter {parameter.name!r}"
        type_ = inspect.formatannotation(unfolded(parameter.annotation)[0])
        try:
            RequestParameters(path, [parameter])
        except BodyParameter:
            raise ConfigurationError(
                f"{place}: {type_} would be read from a body, which a WebSocket does not have; mark it with Query(),"
                " Header(), Depends() or Provide[...]"
            ) from None
        except Exception as exc:
            why = (str(exc).splitlines() or [repr(exc)])[0]
            if isinstance(exc, FastAPIError):  # which speaks of responses
                why = "pydantic has no schema for it"
            raise ConfigurationError(
                f"{place}: {type_} is no path, query, header or cookie parameter ({why}); use a type that pydantic can"
                " validate, Depends() or Provide[...]"
            ) from exc


def check_dependency(call: Any, place: str) -> None:
    """Check that something can be a dependency.

    Raises:
        ConfigurationError: it is no callable, comes from a container, or has no hash.
    """
    if is_provider(call) or is_marker(call):
        raise ConfigurationError(
            f"{place}: a provider is no dependency, since it belongs to no router's container; write a function that"
            " takes Provide[...]"
        )
    if not callable(call):
        raise ConfigurationError(f"{place}: {call!r} is no callable, so it can't be a dependency")
    if unfolded(call)[0] is not call or get_origin(call) is not None:  # its own parameters would be passed over
        named = [each.dependency for each in unfolded(call)[1] if isinstance(each, params.Depends) and each.dependency]
        cure = f"give the callable, {name_of(named[0])}" if named else "write a function that returns one"
        raise ConfigurationError(f"{place}: {call!r} is a type, and would only be made; {cure}")
    if inspect.isclass(call) and issubclass(call, Authenticator):
        raise ConfigurationError(
            f"{place}: {call.__qualname__} is a class; make one authenticator, auth = {call.__qualname__}(...), and"
            " give that, as in Depends(auth)"
        )
    try:
        hash(call)
    except TypeError:
        raise ConfigurationError(
            f"{place}: {type(call).__qualname__} has no hash, by which its value is kept;"
            " write @dataclass(frozen=True), or define __hash__"
        ) from None


def needs_of(call: Callable[..., Any], owner: str, *, skip: int = 0) -> Needs:
    """Work out what a callable needs.

    Args:
        call: the callable.
        owner: what it is, for the texts of errors.
        skip: how many leading parameters are passed by position (``self``, the payload).

    Raises:
        ConfigurationError: a parameter can't be injected, or an annotation can't be resolved.
    """
    if loses_items(call):
        raise ConfigurationError(
            f"{owner}: a decorator makes a coroutine function of an async generator, so what it yields would be lost;"
            " make the decorator's function one too: async for item in function(...): yield item"
        )
    sources: list[tuple[str, Dependency | Provided | Given]] = []
    request: list[inspect.Parameter] = []
    parameters = parameters_of(call, owner)
    for parameter in parameters[:skip]:
        marks = (*unfolded(parameter.annotation)[1], parameter.default)
        if any(is_mark(mark) or isinstance(mark, params.Param | params.Body) for mark in marks):
            raise ConfigurationError(
                f"{owner}, parameter {parameter.name!r}: here stands what is handled, a payload, message or exception,"
                " and nothing is injected; put that before it (a method for messages without data: payload: None)"
            )
    for parameter in parameters[skip:]:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{owner}, parameter {parameter.name!r}: what is injected is passed by name; remove the '/'"
            )
        source = _source_of(parameter, owner)
        if source is None:
            request.append(positioned(parameter, owner))
        else:
            sources.append((parameter.name, source))
    return Needs(call, kind_of(call), owner, tuple(sources), tuple(request))


def _source_of(parameter: inspect.Parameter, owner: str) -> Dependency | Provided | Given | None:
    annotation, metadata = unfolded(parameter.annotation)
    place = f"{owner}, parameter {parameter.name!r}"
    found = [mark for mark in (*metadata, parameter.default) if is_mark(mark)]
    if holds_metadata(annotation, is_mark):
        raise ConfigurationError(
            f"{place}: a marker inside of the type would be passed over; put it around the whole type, as in"
            " Annotated[Service | None, Provide[...]]"
        )
    if len(found) > 1:
        raise ConfigurationError(f"{place}: more than one of Depends, ConnectionScoped and Provide; keep one")
    if found:
        return _marked(found[0], annotation, owner, place)
    if not isinstance(annotation, type):
        for member in get_args(annotation):
            if any(member is given.value for given in Given):
                raise ConfigurationError(f"{place}: {member.__name__} is always given; annotate it with that alone")
        return None
    for given in Given:
        if issubclass(annotation, given.value):
            if annotation is not given.value and issubclass(annotation, HTTPConnection) and annotation is not WebSocket:
                continue
            return given
    for refused, cure in _NOT_HERE.items():
        if issubclass(annotation, refused):
            raise ConfigurationError(f"{place}: {cure}")
    if issubclass(annotation, HTTPConnection):
        raise ConfigurationError(f"{place}: {annotation.__name__} can't be given; annotate it with HTTPConnection")
    return None


def is_mark(value: object) -> bool:
    """Whether it says of a parameter that it is injected."""
    return isinstance(value, params.Depends) or is_ours(value)


def _is_unfinished(value: object) -> bool:
    return any(value is mark for mark in (Depends, Security, ConnectionScoped)) or is_unfinished_marker(value)


def is_ours(mark: object) -> bool:
    """Whether it says so to us, and nothing to FastAPI."""
    return isinstance(mark, ScopedDependency) or is_provider(mark) or is_marker(mark) or _is_unfinished(mark)


def _marked(mark: Any, annotation: Any, owner: str, place: str) -> Dependency | Provided:
    if isinstance(mark, params.Depends) and is_marker(mark.dependency):
        mark = mark.dependency
    if _is_unfinished(mark):
        name = name_of(mark)
        example = "Provide[Container.service]" if is_unfinished_marker(mark) else f"{name}(dependency)"
        raise ConfigurationError(f"{place}: {name} alone says nothing; write {example}")
    return _wanted(mark, annotation, owner, place)


def _wanted(mark: Any, annotation: Any, owner: str, place: str) -> Dependency | Provided:
    if is_provider(mark):
        raise ConfigurationError(f"{place}: a provider alone is not resolved; write Provide[...] around it")
    if is_closing(mark):
        raise ConfigurationError(
            f"{place}: Closing is shared by the whole process; use Provide[...], or a dependency with yield"
        )
    if is_marker(mark):
        return Provided(mark, place)
    if isinstance(mark, ScopedDependency):
        call, scopes, concurrency = mark.dependency, (), None
    else:
        call = annotation if mark.dependency is None else mark.dependency
        if call is inspect.Parameter.empty:
            raise ConfigurationError(f"{place}: Depends() takes the annotation, and there is none; write Depends(f)")
        scopes = tuple(getattr(mark, "scopes", None) or ())
        concurrency = concurrency_of(mark)
    check_dependency(call, place)
    needs = needs_of(call, f"{owner} → {name_of(call)}")
    return Dependency(needs, mark.use_cache, isinstance(mark, ScopedDependency), scopes, concurrency)
