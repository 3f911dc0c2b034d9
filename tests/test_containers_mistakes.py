"""Mistakes with containers are reported: a missing one, a provider it does not have, a place that FastAPI fills."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Closing, Provide, Provider
from fastapi import APIRouter, Depends, FastAPI
from websockets.exceptions import InvalidStatus

from tests.injecting import app_of
from tests.support import connect, serve
from wsrouter import ConfigurationError, Connection, ConnectionScoped, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import WebSocketTestClient


class Inner(containers.DeclarativeContainer):
    service = providers.Object("nested")


class Container(containers.DeclarativeContainer):
    service = providers.Factory(str, "of the container")
    inner = providers.Container(Inner)


class Unknown(containers.DeclarativeContainer):
    other = providers.Object("other")


class Asking(WebSocketHandler):
    def __init__(self, service: Annotated[str, Provide[Container.service]]) -> None: ...


async def plain() -> str:
    return "plain"


def marked(marker: Any, depth: int) -> Any:
    """Return what marks a parameter: the marker, or a dependency at some depth that is given its value."""
    if depth == 0:
        return marker

    async def asking(value: Annotated[Any, marker]) -> Any:
        return value

    found: Callable[..., Any] = asking
    for _ in range(depth - 1):

        async def around(value: Annotated[Any, Depends(found)]) -> Any:
            return value

        found = around
    return Depends(found)


async def started(app: FastAPI) -> None:
    async with WebSocketTestClient(app):
        pass


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("marker", "container", "text"),
    [
        (Provide[Container.service], None, "container=..."),
        (Provide["service"], None, "container=..."),
        (Provide["nothing"], Container(), "Container, the container of the router, has no provider 'nothing'"),
        (Provide["inner.nothing"], Container(), "no provider 'inner.nothing'"),
        (Provide[Unknown.other], Container(), "no provider <dependency_injector.providers.Object"),
        (Provide[Unknown.other.provided.real], Container(), "no provider"),
    ],
)
async def test_a_missing_container_or_provider_is_reported_at_start(
    marker: Any, container: Any, text: str, depth: int
) -> None:
    """The application does not start, and the text names the class, the parameter, the container and the cure."""
    mark = marked(marker, depth)

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, service: Annotated[Any, mark]) -> None: ...

    with pytest.raises(ConfigurationError) as wrong:
        await started(app_of(Handler, container=container))
    assert "Handler.use" in str(wrong.value)
    assert ("parameter 'service'" if depth == 0 else "parameter 'value'") in str(wrong.value)
    assert text in str(wrong.value)


@pytest.mark.parametrize("place", ["guard", "middleware", "exception handler", "constructor", "on_disconnect"])
async def test_a_missing_container_is_reported_for_every_place(place: str) -> None:
    """A guard, a middleware and an exception handler get the container of the router that lists them, or a report."""

    async def asking(service: Annotated[Any, Provide[Container.service]]) -> None: ...

    async def passing(
        message: Any, connection: Connection, call_next: Any, service: Annotated[Any, Provide[Container.service]]
    ) -> None: ...

    class Plain(WebSocketHandler):
        pass

    class Constructed(WebSocketHandler):
        def __init__(self, service: Annotated[Any, Provide[Container.service]]) -> None: ...

    class Disconnected(WebSocketHandler):
        async def on_disconnect(self, service: Annotated[Any, Provide[Container.service]]) -> None: ...

    outer = WebSocketRouter(
        guards=[asking] if place == "guard" else [], middleware=[passing] if place == "middleware" else []
    )
    if place == "exception handler":

        @outer.exception_handler(LookupError)
        async def answer(exc: LookupError, service: Annotated[Any, Provide[Container.service]]) -> None: ...

    inner = WebSocketRouter(container=Container() if place in ("guard", "middleware", "exception handler") else None)
    inner.add_handler("/ws", {"constructor": Constructed, "on_disconnect": Disconnected}.get(place, Plain))
    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer)
    with pytest.raises(ConfigurationError, match="the router has none") as wrong:
        await started(app)
    assert "parameter 'service'" in str(wrong.value)


@pytest.mark.logs_errors
async def test_where_no_lifespan_ran_the_first_handshake_reports(caplog: pytest.LogCaptureFixture) -> None:
    """A mounted application has no lifespan to check at: its handshakes are refused with 500, and the log says why."""
    app = FastAPI()
    app.mount("/inner", app_of(Asking))
    async with serve(app) as server:
        for _ in range(2):
            with pytest.raises(InvalidStatus) as denied:
                await connect(server, "/inner/ws")
            assert denied.value.response.status_code == 500
    assert "Asking.__init__, parameter 'service'" in caplog.text
    assert "write WebSocketRouter(container=...)" in caplog.text


@pytest.mark.parametrize("guard", [Provide[Container.service], Container.service, Depends(Provide[Container.service])])
def test_a_guard_is_no_provider(guard: Any) -> None:
    """A guard from a container would let everybody in, as nobody would call what it provides: refused."""
    with pytest.raises(ConfigurationError, match=r"write a function that takes Provide\[\.\.\.\]"):
        WebSocketRouter(container=Container(), guards=[guard])

    class Handler(WebSocketHandler):
        guards = [guard]

    with pytest.raises(ConfigurationError, match=r"Handler.*write a function that takes Provide\[\.\.\.\]"):
        WebSocketRouter(container=Container()).add_handler("/ws", Handler)


@pytest.mark.parametrize("mark", [Depends(Container.service), ConnectionScoped(Provide[Container.service])])
def test_a_provider_is_no_dependency(mark: Any) -> None:
    """A provider of the class, which belongs to no container, is not called; the text says what to write."""

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, service: Annotated[Any, mark]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Handler\.use, parameter 'service': a provider is no dependency"):
        WebSocketRouter(container=Container()).add_handler("/ws", Handler)


@pytest.mark.parametrize(
    "marker", [Closing[Provide[Container.service]], Closing[Provide["service"]], Closing[Container.service]]
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_closing_is_refused(marker: Any, depth: int) -> None:
    """Closing would shut a resource down for the whole process while others use it: refused at registration."""
    mark = marked(marker, depth)

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, service: Annotated[Any, mark]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Handler\.use.*Closing.*use Provide\[\.\.\.\]"):
        WebSocketRouter(container=Container()).add_handler("/ws", Handler)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("where", ["app", "include", "router", "between", "constructor argument"])
@pytest.mark.parametrize(
    "marker",
    [
        Provide[Container.service],
        Provider[Container.service],
        Closing[Provide[Container.service]],
        Container.service,
        Provide,
        ConnectionScoped(plain),
        Depends(Provide[Container.service]),
    ],
)
async def test_what_fastapi_solves_must_not_ask_for_a_provider(marker: Any, where: str, depth: int) -> None:
    """FastAPI would read it from the query: a Provide in any dependencies=[...] is a report at start."""

    async def asking(key: Annotated[str, marker]) -> None: ...

    async def around(asking: Annotated[None, Depends(asking)]) -> None: ...

    depends = Depends(around if depth else asking)
    app = FastAPI(dependencies=[depends] if where == "app" else None)
    router = WebSocketRouter(container=Container(), dependencies=[depends] if where == "constructor argument" else None)
    router.add_handler("/ws", Asking)
    outer = WebSocketRouter()
    between = APIRouter(dependencies=[depends] if where == "between" else None)
    outer.include_router(router, dependencies=[depends] if where == "router" else None)
    between.include_router(outer)
    app.include_router(between, dependencies=[depends] if where == "include" else None)
    with pytest.raises(ConfigurationError, match=r"guards=\[\.\.\.\]") as wrong:
        await started(app)
    assert "asking" in str(wrong.value)
    assert "/ws" in str(wrong.value)
