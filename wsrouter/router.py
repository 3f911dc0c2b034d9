"""The router: what it carries, what it admits, and how a handler becomes a route."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NoReturn, TypeVar

from dependency_injector.containers import Container
from fastapi import APIRouter, Depends, params
from starlette.types import Lifespan

from wsrouter import containers
from wsrouter.chain import Layer, Reject
from wsrouter.codecs import Codec
from wsrouter.errors import ConfigurationError
from wsrouter.handler import Guard, Middleware, WebSocketHandler
from wsrouter.hub import Hub
from wsrouter.kinds import name_of
from wsrouter.limits import Limits
from wsrouter.options import (
    check_instance,
    exception_handler_needs,
    guard_needs,
    listed,
    sorted_middleware,
)
from wsrouter.routes import Mark, bind_routes, check_only_handlers, endpoint_of
from wsrouter.table import HandlerTable

HandlerT = TypeVar("HandlerT", bound=type[WebSocketHandler])
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)


class WebSocketRouter(APIRouter):
    """A router of WebSocket handlers: mount it with ``app.include_router(router)``, as any other.

    Routers nest. Guards and middleware add up from the outermost inwards; of ``hub``, ``container``,
    ``limits``, ``reject``, ``codecs`` and ``direct`` the innermost that is given rules for a handler. A guard or
    middleware gets hub and container of the router that lists it.

    Args:
        prefix: begins every path; starts with ``/``.
        hub: rooms and broadcast; by default the outermost router has one of its own, for one process.
        container: a dependency-injector container for ``Provide[...]``. Its resources are initialised and
            shut down with the application.
        guards: dependencies that let a connection in or raise `Deny`, in this order, before accept.
        middleware: message middleware, outermost first.
        limits: `Limits` of a connection.
        reject: how a client learns that it is denied: ``"http"`` (default) answers with the HTTP status,
            headers and a JSON body; ``"close"`` accepts and closes with the close code, since a browser can
            read neither status nor body of a refused handshake; ``"auto"`` is ``"close"`` for requests
            with an ``Origin`` header, else ``"http"``.
        codecs: formats by negotiated subprotocol, the first for clients that offer none of them.
        direct: whether frames go straight to the socket where the server offers that
            (`wsrouter.uvicorn.WebSocketProtocol`), past ASGI middleware that wraps ``send``; by default they do.
        dependencies: FastAPI's own, which FastAPI runs before any guard.
        lifespan: as for FastAPI's ``APIRouter``.

    Raises:
        ConfigurationError: a guard or middleware is not callable as one.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        hub: Hub | None = None,
        container: Container | None = None,
        guards: Sequence[Guard] = (),
        middleware: Sequence[Middleware] = (),
        limits: Limits | None = None,
        reject: Reject | None = None,
        codecs: Sequence[Codec] | None = None,
        direct: bool | None = None,
        dependencies: Sequence[params.Depends] | None = None,
        lifespan: Lifespan[Any] | None = None,
    ) -> None:
        if reject not in (None, "http", "close", "auto"):
            raise ConfigurationError(f"WebSocketRouter(reject={reject!r}): use 'http', 'close' or 'auto'")
        owner = f"WebSocketRouter(prefix={prefix!r})"
        check_instance(hub, Hub, f"{owner}, argument 'hub'", "Hub()")
        check_instance(container, Container, f"{owner}, argument 'container'", "an instance such as Container()")
        check_instance(limits, Limits, f"{owner}, argument 'limits'", "Limits(...)")
        self._layer = Layer(hub, container, limits, reject, codecs, direct)
        self._layer.guards.extend(guard_needs(guard, owner) for guard in listed(guards, f"{owner}, argument 'guards'"))
        each = listed(middleware, f"{owner}, argument 'middleware'")
        self._layer.add_middleware(*sorted_middleware(each, owner))
        self._owner = owner
        mark = Depends(Mark(self._layer))
        super().__init__(prefix=prefix, dependencies=[mark, *(dependencies or ())], lifespan=self._lifespan(lifespan))

    def handler(self, path: str, *, name: str | None = None) -> Callable[[HandlerT], HandlerT]:
        """Register a handler class; use it as a class decorator.

        Args:
            path: path below the prefix, such as ``/chat/{room}``.
            name: name of the route for ``url_path_for``; by default that of the class.

        Raises:
            ConfigurationError: a mistake in the class, with the parameter and the cure.
        """

        if callable(path):
            raise ConfigurationError(f"{self._owner}.handler({name_of(path)}): no path; write @router.handler('/path')")

        def register(cls: HandlerT) -> HandlerT:
            self.add_handler(path, cls, name=name)
            return cls

        return register

    def add_handler(self, path: str, cls: type[WebSocketHandler], *, name: str | None = None) -> None:
        """Register a handler class; see `handler`."""
        if path and not path.startswith("/"):
            raise ConfigurationError(
                f"{self._owner}: the path {path!r} of {name_of(cls)} begins without a slash; write {'/' + path!r}"
            )
        table = HandlerTable(cls)
        table.check(self.prefix + path)
        super().add_api_websocket_route(path, endpoint_of(table), name=name or cls.__name__)

    def middleware(self, middleware: MiddlewareT) -> MiddlewareT:
        """Add message middleware inside what was added before; also as a decorator.

        It is an ``async def (message, connection, call_next)``, or an object with such a ``__call__``; further
        parameters are injected per message. ``message`` is an `Envelope`, or what a raw handler reads;
        ``await call_next(message)`` handles it, its call scope included. A raised exception answers it. A
        `RateLimit` is added in the same way.
        """
        self._layer.add_middleware(*sorted_middleware([middleware], self._owner))
        return middleware

    def exception_handler(self, exception: type[Exception]) -> Callable[[FunctionT], FunctionT]:
        """Answer an exception of message methods with a message; use it as a decorator.

        The function gets the exception, further parameters are injected. What it returns is sent as the
        reply; ``None`` leaves the exception to the usual rules.
        """

        if not _is_exception(exception):
            raise ConfigurationError(
                f"{self._owner}.exception_handler({exception!r}): expected an exception class, such as LookupError"
            )
        if issubclass(exception, ExceptionGroup):
            raise ConfigurationError(
                f"{self._owner}.exception_handler({exception.__name__}): of a group, one of its exceptions is answered;"
                " register for their class"
            )

        def register(function: FunctionT) -> FunctionT:
            self._layer.exception_handlers[exception] = exception_handler_needs(function, self._owner)
            return function

        return register

    def include_router(self, router: APIRouter, *args: Any, **kwargs: Any) -> None:
        """Include a router that holds only handlers; arguments as for FastAPI's ``include_router``."""
        check_only_handlers(router, f"{self._owner}.include_router")
        super().include_router(router, *args, **kwargs)

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"{self._owner}: {what} on a WebSocketRouter would run none of its guards;"
            " put it on an APIRouter or the app"
        )

    def add_api_route(self, path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the HTTP route {path!r}")

    def add_route(self, path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the route {path!r}")

    def add_api_websocket_route(self, path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the plain WebSocket route {path!r}")

    def add_websocket_route(self, path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the plain WebSocket route {path!r}")

    def mount(self, path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the mount {path!r}")

    def host(self, host: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse(f"the host {host!r}")

    def frontend(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: a `WebSocketRouter` holds handlers only."""
        self._refuse("a frontend")

    def _lifespan(self, own: Lifespan[Any] | None) -> Lifespan[Any]:
        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncGenerator[Any]:
            check_only_handlers(self, self._owner)
            chains = bind_routes(getattr(app, "routes", ()))
            async with AsyncExitStack() as stack:
                if self._layer.container is not None:
                    await containers.start(self._layer.container)
                    stack.push_async_callback(containers.stop, self._layer.container)
                for authenticator in {
                    each for chain in chains if self._layer in chain.layers for each in chain.sources
                }:
                    stack.push_async_callback(authenticator.aclose)
                hubs = {id(chain.hub): chain.hub for chain in chains if self._layer in chain.layers}
                if self._layer.hub is not None:
                    hubs[id(self._layer.hub)] = self._layer.hub
                for hub in hubs.values():
                    await stack.enter_async_context(hub)
                yield None if own is None else await stack.enter_async_context(own(app))

        return lifespan


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
