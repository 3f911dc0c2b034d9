"""What wsrouter takes from FastAPI and Starlette where there is no public way; nobody else imports it from there.

``make test-matrix`` runs the suite on the lowest and the newest FastAPI that pyproject admits.
"""

# What is private in them is used here.
# pyright: reportPrivateUsage=false

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Annotated, Any, Final

from fastapi import UploadFile, params, routing
from fastapi.dependencies import utils
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, request_params_to_args, solve_dependencies
from fastapi.routing import RouteContext, get_websocket_app, websocket_session
from starlette import _exception_handler
from starlette._exception_handler import wrap_app_handling_exceptions
from starlette.requests import HTTPConnection
from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope
from starlette.types import Send as AnySend
from starlette.websockets import WebSocket, WebSocketState

from wsrouter.annotations import unfolded
from wsrouter.frames import Send


@dataclass
class _WithFactory:
    value: list[str] = field(default_factory=list[str])


_FACTORY: Final = inspect.signature(_WithFactory).parameters["value"].default
"""What a dataclass has for the default of a field with a ``default_factory``."""


def _left_out(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter that is ``None`` where the client leaves it out, since then the factory makes its value."""
    type_, marks = unfolded(parameter.annotation)
    annotation: Any = type_ | None
    for mark in marks:
        annotation = Annotated[annotation, mark]
    return parameter.replace(annotation=annotation, default=None)


class RequestParameters:
    """Path, query, header and cookie parameters of one callable, read as FastAPI reads them.

    Args:
        path: path of the route, such as ``/docs/{doc:int}``; it tells path parameters from query parameters.
        parameters: the parameters of the callable that come from the request, annotations resolved.

    Raises:
        AssertionError: FastAPI does not admit a parameter.
        FastAPIError: pydantic has no schema for an annotation.
        BodyParameter: a parameter would be read from a body.
    """

    def __init__(self, path: str, parameters: list[inspect.Parameter]) -> None:
        def call() -> None: ...

        for parameter in parameters:
            type_, marks = unfolded(parameter.annotation)
            if type_ is UploadFile or any(isinstance(mark, params.Body) for mark in (*marks, parameter.default)):
                raise BodyParameter(parameter.name)
        self._made = {parameter.name for parameter in parameters if parameter.default is _FACTORY}
        keywords = [_left_out(each) if each.name in self._made else each for each in parameters]
        keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in keywords]
        call.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
        # As FastAPI does for a route: it takes {doc:int} for the name of a parameter.
        self._dependant: Dependant = get_dependant(path=compile_path(path)[1], call=call)
        assert not self._dependant.dependencies, "FastAPI solves nothing for wsrouter"
        if self._dependant.body_params:
            raise BodyParameter(self._dependant.body_params[0].name)

    def read(self, connection: HTTPConnection) -> tuple[dict[str, Any], list[Any]]:
        """Return a mapping of parameter name to value, and the validation errors."""
        values: dict[str, Any] = {}
        errors: list[Any] = []
        for fields, received in (
            (self._dependant.path_params, connection.path_params),
            (self._dependant.query_params, connection.query_params),
            (self._dependant.header_params, connection.headers),
            (self._dependant.cookie_params, connection.cookies),
        ):
            if fields:
                part, problems = request_params_to_args(fields, received)
                values.update(part)
                errors.extend(problems)
        for name in self._made:
            if values.get(name) is None:
                values.pop(name, None)
        return values, errors


class BodyParameter(Exception):
    """A parameter would be read from a request body, which a WebSocket does not have."""


def concurrency_of(depends: params.Depends) -> Any:
    """Return what ``Depends(max_concurrency=n)`` counts with, ``None`` without it or before FastAPI had it."""
    return getattr(depends, "_concurrency", None)


def take_place(concurrency: Any) -> AbstractAsyncContextManager[Any]:
    """Return the context manager that holds one of the ``max_concurrency`` places."""
    place: AbstractAsyncContextManager[Any] = concurrency.get_semaphore()
    return place


def channels_of(websocket: WebSocket) -> tuple[Receive, AnySend]:
    """Return the ASGI ``receive`` and ``send`` of a WebSocket, without Starlette's state machine."""
    return websocket._receive, websocket._send


def raw_channels(receive: Receive, send: AnySend) -> tuple[Receive, Send]:
    """Return ``receive`` and ``send`` as coroutine functions, past what Starlette wraps around ``send``."""
    return _as_coroutine_function(receive), _as_coroutine_function(_past_exception_handlers(send))


def _as_coroutine_function(function: Any) -> Any:
    """Return a channel that can be stepped: those of some servers give awaitables that are no coroutines."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_COROUTINE:
        return function

    async def channel(*event: Message) -> Any:
        return await function(*event)

    return channel


def _find_sender() -> tuple[CodeType, int] | None:
    """Return the code of what Starlette wraps around every ``send`` for its exception handlers, and the wrapped cell.

    ``None`` if it does more than to note whether an HTTP response has begun, which a WebSocket never does.
    """
    for outer in wrap_app_handling_exceptions.__code__.co_consts:
        for sender in outer.co_consts if isinstance(outer, CodeType) else ():
            if isinstance(sender, CodeType) and "send" in sender.co_freevars:
                texts = {const for const in sender.co_consts if isinstance(const, str)}
                return (sender, sender.co_freevars.index("send")) if texts == _NOTED else None
    return None


_NOTED: Final = {"type", "http.response.start"}
_SENDER: Final = _find_sender()


def _past_exception_handlers(send: Any) -> Any:
    """Return the ``send`` that Starlette's exception handlers wrap twice, at a coroutine per frame each."""
    if _SENDER is not None:
        code, cell = _SENDER
        while getattr(send, "__code__", None) is code:
            send = send.__closure__[cell].cell_contents
    return send


def dependencies_of(route: Any) -> list[params.Depends]:
    """Return the dependencies that FastAPI runs before the endpoint of a route, outermost first."""
    dependencies: list[params.Depends] = list(getattr(route, "dependencies", None) or [])
    return dependencies


def drop_dependencies(route: Any, dropped: Callable[[Any], bool]) -> None:
    """Keep FastAPI from solving some dependencies of a route, which go on to stand in its list."""
    solved: list[Dependant] = route.dependant.dependencies
    solved[:] = [each for each in solved if not dropped(each.call)]


def _is_as_written(function: Any, module: ModuleType) -> bool:
    """Whether a function is the one that a module defines, and not what somebody has put in its place."""
    return type(function) is FunctionType and function.__code__.co_filename == module.__file__


_AS_WRITTEN: Final = (
    _is_as_written(solve_dependencies, utils)
    and _is_as_written(wrap_app_handling_exceptions, _exception_handler)
    and _is_as_written(websocket_session, routing)
    and _is_as_written(get_websocket_app, routing)
)
"""Whether nobody had changed FastAPI before it was imported here."""


def is_untouched(route: Any) -> bool:
    """Whether a route calls its endpoint as FastAPI made it, with nothing of anybody else's in between."""
    dependant: Dependant = route.dependant
    if not _AS_WRITTEN:
        return False
    solves = _variables_of(route.app, websocket_session).get("func")
    return _variables_of(solves, get_websocket_app).get("dependant") is dependant and dependant.call is route.endpoint


def _variables_of(function: Any, maker: Any) -> Mapping[str, Any]:
    """Return what a function has from the one that made it, nothing if it was made by another."""
    if type(function) is not FunctionType or function.__code__ not in maker.__code__.co_consts:
        return {}
    return inspect.getclosurevars(function).nonlocals


def does_nothing(dependant: Dependant, endpoint: Callable[..., Any], scope: Scope) -> bool:
    """Whether FastAPI would do nothing for a connection but to call the endpoint.

    It records connections with its telemetry, and others who record or check put something in the place of its parts.
    """
    parts = vars(routing)
    return (
        not dependant.dependencies
        and dependant.call is endpoint
        and scope.get("fastapi.telemetry") is None
        and parts["solve_dependencies"] is solve_dependencies
        and parts["wrap_app_handling_exceptions"] is wrap_app_handling_exceptions
        and parts["WebSocket"] is WebSocket
    )


async def handle_failure(failure: Exception, scope: Scope, receive: Receive, send: AnySend) -> None:
    """Give an exception to the application's handler for it, as FastAPI does around an endpoint, or raise it."""
    websocket = WebSocket(scope, receive, send)
    websocket.client_state = WebSocketState.CONNECTED

    async def fail(scope: Scope, receive: Receive, send: AnySend) -> None:
        raise failure

    await wrap_app_handling_exceptions(fail, websocket)(scope, receive, send)


def overrides_of(app: Any) -> Mapping[Any, Any]:
    """Return ``dependency_overrides`` of an application, empty where it has none."""
    overrides: Mapping[Any, Any] = getattr(app, "dependency_overrides", None) or {}
    return overrides


def effective_route(context: RouteContext) -> Any:
    """Return the route that a connection finds in ``scope["route"]``, all inclusions applied.

    It is a ``BaseRoute``, or what FastAPI puts in the place of one.
    """
    route: Any = context._effective_route
    # FastAPI's first versions with contexts (0.137) wrap WebSocket routes once more.
    return getattr(route, "starlette_route", None) or route
