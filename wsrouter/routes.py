"""The routes of an application: how one serves a handler, and which routers it is under."""

import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from wsrouter._fastapi import (
    channels_of,
    dependencies_of,
    does_nothing,
    drop_dependencies,
    effective_route,
    handle_failure,
    is_untouched,
    raw_channels,
)
from wsrouter.chain import Chain, Layer
from wsrouter.errors import ConfigurationError
from wsrouter.options import calls_below, check_left_to_fastapi
from wsrouter.session import Session
from wsrouter.table import HandlerTable
from wsrouter.tasks import apart

_TABLE: Final = "__wsrouter_table__"
"""Where an endpoint has the table of its handler class, and what is wrapped around it too."""
_endpoints: "weakref.WeakSet[Callable[..., Any]]" = weakref.WeakSet()
"""Those that are wrapped in nothing."""


class Mark:
    """A dependency that does nothing but show, in a route's list, which router carries it."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    async def __call__(self) -> None: ...


def endpoint_of(table: HandlerTable) -> Callable[[WebSocket], Any]:
    """Return the FastAPI endpoint that serves a handler class, whatever routers include it."""

    async def endpoint(websocket: WebSocket) -> None:
        chain = chain_of(websocket.scope["route"], table)
        if websocket.client_state is not WebSocketState.CONNECTING:
            raise ConfigurationError(
                f"{table.cls.__qualname__}: a dependency outside wsrouter accepted the connection before its guards"
                " ran; remove its accept()"
            )
        await websocket.receive()  # websocket.connect
        await apart(Session.serve(chain, websocket.scope, *raw_channels(*channels_of(websocket))))

    endpoint.__name__ = endpoint.__qualname__ = table.cls.__name__
    setattr(endpoint, _TABLE, table)
    _endpoints.add(endpoint)
    return endpoint


def _application(chain: Chain, route: Any) -> ASGIApp:
    """Return what a route calls where FastAPI does nothing on its way to the endpoint.

    What FastAPI has on that way, exit stacks, wrappers and coroutines, would stay for as long as the connection does.

    Args:
        chain: the handler in its chain of routers.
        route: the route, untouched.
    """
    usual, dependant, endpoint = route.app, route.dependant, route.endpoint

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if not does_nothing(dependant, endpoint, scope):
            await usual(scope, receive, send)
            return
        event = await receive()
        if event["type"] != "websocket.connect":
            raise RuntimeError(f"Expected ASGI message 'websocket.connect', but got {event['type']!r}")
        try:
            await apart(Session.serve(chain, scope, *raw_channels(receive, send)))
        except Exception as failure:
            await handle_failure(failure, scope, receive, send)

    return application


_PARAMETER_NAME: Final = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*")
"""As Starlette has it, which finds a route whatever its parameters are called."""

_chains: "dict[int, tuple[weakref.ref[Any], Chain]]" = {}


def chain_of(route: Any, table: HandlerTable) -> Chain:
    """Return the chain of a route as FastAPI has it after all inclusions; bound on first use.

    Raises:
        ConfigurationError: see `Chain`.
    """
    known = _chains.get(id(route))
    if known is not None and known[0]() is route:
        return known[1]
    layers: list[Layer] = []
    outside: list[Callable[..., Any]] = []
    for depends in dependencies_of(route):
        if isinstance(depends.dependency, Mark):
            layers.append(depends.dependency.layer)
        elif depends.dependency is not None:
            check_left_to_fastapi(depends.dependency, route.path)
            outside.extend(calls_below(depends.dependency, route.path))
    chain = Chain(table, layers, route.path, outside)
    drop_dependencies(route, lambda call: isinstance(call, Mark))
    if route.endpoint in _endpoints and is_untouched(route) and not route.dependant.dependencies:
        route.app = _application(chain, route)
    key = id(route)
    _chains[key] = (weakref.ref(route, lambda _: _chains.pop(key, None)), chain)
    return chain


def bind_routes(routes: Sequence[BaseRoute]) -> list[Chain]:
    """Bind every handler among the routes of an application, and return the chains.

    Raises:
        ConfigurationError: see `Chain`; or a handler would never be reached, since another route has its path.
    """
    chains: list[Chain] = []
    taken: dict[str, WebSocketRoute] = {}
    for context in iter_route_contexts(routes):
        route = effective_route(context)
        if not isinstance(route, WebSocketRoute):
            continue
        table = getattr(route.endpoint, _TABLE, None)
        path = _PARAMETER_NAME.sub("{", route.path)
        if table is not None:
            if path in taken:
                raise ConfigurationError(f"{table.cls.__qualname__}: {_why_unreached(route, taken[path])}")
            chains.append(chain_of(route, table))
        if type(route).matches is WebSocketRoute.matches or type(route).matches is APIWebSocketRoute.matches:
            taken.setdefault(path, route)
    return chains


def _why_unreached(route: WebSocketRoute, first: WebSocketRoute) -> str:
    if first.endpoint is route.endpoint:
        return (
            f"the path {route.path!r} is there twice, and the first one gets all connections; include its router once"
        )
    return (
        f"{first.name}, which comes first, has the path {first.path!r} too, and would get all of its connections; give"
        " one of them another path"
    )


def check_only_handlers(router: APIRouter, owner: str) -> None:
    """Check that all routes below a router are those of handlers.

    Raises:
        ConfigurationError: one is not.
    """
    for context in iter_route_contexts(router.routes):
        route = effective_route(context)
        if not hasattr(getattr(route, "endpoint", None), _TABLE):
            path = getattr(route, "path", None)
            raise ConfigurationError(
                f"{owner}: the route {path!r} is no handler, and would run none of the guards; put it on an"
                " APIRouter or the app"
            )
