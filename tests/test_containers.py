"""dependency-injector's containers: every provider, at every depth, without wiring."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, cast

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide, Provider, as_float, as_int, invariant, provided, required
from fastapi import APIRouter, Depends, FastAPI

from tests.injecting import app_of, call
from tests.support import connect, serve
from wsrouter import (
    CloseInfo,
    Connection,
    ConnectionScoped,
    Deny,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.testing import Denied, WebSocketTestClient

events: list[str] = []


@pytest.fixture(autouse=True)
def no_events() -> None:
    events.clear()


class Service:
    """Something with a name, and with things behind it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.options = {"colour": "red"}

    def greet(self, whom: str) -> str:
        return f"{self.name} greets {whom}"

    def __str__(self) -> str:
        return self.name


def text(name: str) -> str:
    return f"called {name}"


async def text_later(name: str) -> str:
    await asyncio.sleep(0)
    return f"awaited {name}"


def opened() -> Iterator[Service]:
    events.append("open")
    yield Service("resource")
    events.append("close")


async def opened_later() -> AsyncIterator[Service]:
    await asyncio.sleep(0)
    events.append("open later")
    yield Service("async resource")
    events.append("close later")


class Inner(containers.DeclarativeContainer):
    config = providers.Configuration()
    service = providers.Singleton(Service, config.name)


class Container(containers.DeclarativeContainer):
    config = providers.Configuration(
        default={
            "name": "configured",
            "port": "8080",
            "inner": {"name": "nested"},
            "greetings": {"configured": "hello"},
        }
    )
    singleton = providers.Singleton(Service, "singleton")
    factory = providers.Factory(Service, config.name)
    called = providers.Callable(text, "callable")
    coroutine = providers.Coroutine(text_later, "coroutine")
    resource = providers.Resource(opened)
    async_resource = providers.Resource(opened_later)
    from_async = providers.Factory(Service, async_resource.provided.name)
    value = providers.Object("object")
    many = providers.List(config.name, value)
    chosen = providers.Selector(config.name, configured=providers.Object("chosen"))
    inner = providers.Container(Inner, config=config.inner)
    context = providers.ContextLocalSingleton(Service, "context local")
    local = providers.ThreadLocalSingleton(Service, "thread local")


MARKERS: list[tuple[Any, Any]] = [
    (Provide[Container.singleton], "singleton"),
    (Provide[Container.factory], "configured"),
    (Provide[Container.called], "called callable"),
    (Provide[Container.coroutine], "awaited coroutine"),
    (Provide[Container.resource], "resource"),
    (Provide[Container.async_resource], "async resource"),
    (Provide[Container.from_async], "async resource"),
    (Provide[Container.value], "object"),
    (Provide[Container.many], "['configured', 'object']"),
    (Provide[Container.chosen], "chosen"),
    (Provide[Container.context], "context local"),
    (Provide[Container.local], "thread local"),
    (Provide[Container.config.inner], {"name": "nested"}),
    (Provide[Container.config.name], "configured"),
    (Provide[Container.config.port.as_int()], 8080),
    (Provide[Container.config.missing], "None"),
    (Provide[cast(Any, Container).inner.service], "nested"),
    (Provide[Container.singleton.provided.name], "singleton"),
    (Provide[Container.singleton.provided.options["colour"]], "red"),
    (Provide[Container.singleton.provided.greet.call("Ada")], "singleton greets Ada"),
    (Provide["singleton"], "singleton"),
    (Provide["inner.service"], "nested"),
    (Provide["config.name"], "configured"),
    (Provide["config.port", as_int()], 8080),
    (Provide["config.port", as_float()], 8080.0),
    (Provide["config.port", required().as_int()], 8080),
    (Provide["config.greetings", invariant("config.name")], "hello"),
    (Provide["singleton", provided().name], "singleton"),
    (Provide["singleton", provided().options["colour"]], "red"),
    (Provide["async_resource"], "async resource"),
]


def dependency(marker: Any, depth: int, form: str) -> Callable[..., Any]:
    """Return a dependency that is given the marker's value, itself or by what it depends on."""

    async def annotated(value: Annotated[Any, marker]) -> Any:
        return value

    def default(value: Any = marker) -> Any:
        return value

    found: Callable[..., Any] = annotated if form == "annotated" else default
    for _ in range(depth - 1):

        async def around(value: Annotated[Any, Depends(found)]) -> Any:
            return value

        found = around
    return found


def marked(marker: Any, depth: int, form: str) -> Any:
    return marker if depth == 0 else Depends(dependency(marker, depth, form))


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("form", ["annotated", "default"])
@pytest.mark.parametrize(("marker", "expected"), MARKERS)
async def test_every_provider_reaches_every_place(marker: Any, expected: Any, form: str, depth: int) -> None:
    """As a default or in Annotated, by object or by name, a provider's value is what every place gets."""
    mark = marked(marker, depth, form)
    got: list[tuple[str, Any]] = []

    class Annotating(WebSocketHandler):
        def __init__(self, value: Annotated[Any, mark]) -> None:
            got.append(("constructor", value))

        async def on_connect(self, value: Annotated[Any, mark]) -> None:
            got.append(("on_connect", value))

        @on("use")
        async def use(self, message: None, value: Annotated[Any, mark]) -> None:
            got.append(("method", value))

        async def on_disconnect(self, close: CloseInfo, value: Annotated[Any, mark]) -> None:
            got.append(("on_disconnect", value))

    class Defaulting(WebSocketHandler):
        def __init__(self, value: Any = mark) -> None:
            got.append(("constructor", value))

        async def on_connect(self, value: Any = mark) -> None:
            got.append(("on_connect", value))

        @on("use")
        async def use(self, message: None, value: Any = mark) -> None:
            got.append(("method", value))

        async def on_disconnect(self, close: CloseInfo, value: Any = mark) -> None:
            got.append(("on_disconnect", value))

    async def guard(value: Annotated[Any, mark]) -> None:
        got.append(("guard", value))

    async def passing(message: Any, connection: Connection, call_next: Any, value: Any = mark) -> None:
        got.append(("middleware", value))
        await call_next(message)

    app = app_of(
        Annotating if form == "annotated" else Defaulting, container=Container(), guards=[guard], middleware=[passing]
    )
    async with WebSocketTestClient(app) as client, client.connect("/ws?value=evil") as ws:
        await call(ws)
    assert [place for place, _ in got] == [
        "guard",
        "constructor",
        "on_connect",
        "middleware",
        "method",
        "on_disconnect",
    ]
    for _, value in got:
        assert value == expected or str(value) == expected


async def test_provider_gives_the_provider_itself() -> None:
    """With Provider[...] a handler makes as many objects as it likes, from its own container."""

    class Handler(WebSocketHandler):
        def __init__(self, make: Annotated[Callable[[], Service], Provider[Container.factory]]) -> None:
            self.make = make

        @on("use")
        async def use(
            self, message: None, make: Annotated[Callable[[], Service], Provider["factory"]]
        ) -> list[str | bool]:
            return [self.make().name, make().name, make() is make()]

    app = app_of(Handler, container=Container(config={"name": "mine"}))
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == ["mine", "mine", False]


async def test_how_often_a_provider_is_asked() -> None:
    """A factory makes an object for each message and place; what is ConnectionScoped asks it once."""
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    class Counting(containers.DeclarativeContainer):
        number = providers.Factory(make)
        once = providers.Singleton(make)

    async def lasting(number: Annotated[int, Provide[Counting.number]]) -> int:
        return number

    async def guard(number: Annotated[int, Provide[Counting.number]]) -> int:
        return number

    class Handler(WebSocketHandler):
        guards = [guard]

        @on("use")
        async def use(
            self,
            message: None,
            guarded: Annotated[int, Depends(guard)],
            lasting: Annotated[int, ConnectionScoped(lasting)],
            own: Annotated[int, Provide[Counting.number]],
        ) -> list[int]:
            return [guarded, lasting, own]

    async with WebSocketTestClient(app_of(Handler, container=Counting())) as client, client.connect("/ws") as ws:
        assert await call(ws) == [0, 1, 2]
        assert await call(ws) == [0, 1, 3]
        assert await call(ws) == [0, 1, 4]


class Greeter(WebSocketHandler):
    def __init__(self, service: Annotated[Service, Provide[Container.factory]]) -> None:
        self.service = service

    @on("use")
    async def use(self, message: None, service: Annotated[Service, Provide[Container.factory]]) -> list[str]:
        return [self.service.name, service.name]


async def test_resources_live_as_long_as_the_application() -> None:
    """They are initialised before the first connection and shut down after the last, and all connections share them."""

    class Handler(WebSocketHandler):
        def __init__(
            self,
            resource: Annotated[Service, Provide[Container.resource]],
            later: Annotated[Service, Provide[Container.async_resource]],
        ) -> None:
            self.services = (resource, later)

        @on("use")
        async def use(
            self,
            message: None,
            resource: Annotated[Service, Provide[Container.resource]],
            later: Annotated[Service, Provide[Container.async_resource]],
        ) -> bool:
            events.append("use")
            return (resource, later) == self.services

    async with serve(app_of(Handler, container=Container())) as server:
        assert sorted(events) == ["open", "open later"]
        for _ in range(2):
            async with connect(server, "/ws") as ws:
                await ws.send('{"type":"use","id":1}')
                assert await ws.recv() == '{"type":"$ok","id":1,"data":true}'
        assert events[2:] == ["use", "use"]
    assert sorted(events[4:]) == ["close", "close later"]


async def test_resources_of_a_container_on_several_routers_start_once() -> None:
    """A container that several routers, inclusions and nested routers share is started and stopped once."""
    container: Any = Container()
    app = FastAPI()
    inner = WebSocketRouter(container=container)
    inner.add_handler("/ws", Greeter)
    outer = WebSocketRouter(container=container)
    outer.include_router(inner, prefix="/nested")
    app.include_router(outer)
    app.include_router(inner, prefix="/again")
    async with WebSocketTestClient(app) as client:
        assert sorted(events) == ["open", "open later"]
        for path in ("/nested/ws", "/again/ws"):
            async with client.connect(path) as ws:
                assert await call(ws) == ["configured"] * 2
    assert sorted(events) == ["close", "close later", "open", "open later"]


async def test_an_override_of_a_provider_holds_at_once() -> None:
    """container.x.override() in a test replaces what the next message gets, and ends with its block."""
    container: Any = Container()
    async with WebSocketTestClient(app_of(Greeter, container=container)) as client, client.connect("/ws") as ws:
        assert await call(ws) == ["configured", "configured"]
        with container.factory.override(providers.Object(Service("fake"))):
            assert await call(ws) == ["configured", "fake"]
            async with client.connect("/ws") as other:
                assert await call(other) == ["fake", "fake"]
        assert await call(ws) == ["configured", "configured"]
        container.config.name.from_value("changed")
        assert await call(ws) == ["configured", "changed"]


async def test_a_provider_overridden_by_an_asynchronous_one_is_awaited() -> None:
    """Whether a provider is asynchronous is seen when it is asked, so that a fake may be it."""
    container: Any = Container()
    async with WebSocketTestClient(app_of(Greeter, container=container)) as client, client.connect("/ws") as ws:
        with container.factory.override(providers.Coroutine(later_service)):
            assert await call(ws) == ["configured", "later"]


async def later_service() -> Service:
    await asyncio.sleep(0)
    return Service("later")


async def test_two_applications_with_two_containers_stay_apart() -> None:
    """One handler class in two applications of one process gets each one's own objects, overrides and resources."""
    first: Any = Container(config={"name": "first"})
    second = Container(config={"name": "second"})
    async with (
        WebSocketTestClient(app_of(Greeter, container=first)) as one,
        WebSocketTestClient(app_of(Greeter, container=second)) as two,
        one.connect("/ws") as ws_one,
        two.connect("/ws") as ws_two,
    ):
        assert sorted(events) == ["open", "open", "open later", "open later"]
        assert await call(ws_one) == ["first", "first"]
        assert await call(ws_two) == ["second", "second"]
        with first.factory.override(providers.Object(Service("fake"))):
            assert await call(ws_one) == ["first", "fake"]
            assert await call(ws_two) == ["second", "second"]


async def test_two_containers_of_one_application_stay_apart() -> None:
    """A nested router's container is its handlers'; a guard gets that of the router which lists it, also as a value."""

    async def guard(service: Annotated[Service, Provide[Container.factory]]) -> str:
        return service.name

    class Handler(WebSocketHandler):
        @on("use")
        async def use(
            self,
            message: None,
            guarded: Annotated[str, Depends(guard)],
            service: Annotated[Service, Provide[Container.factory]],
        ) -> list[str]:
            return [guarded, service.name]

    outer = WebSocketRouter(container=Container(config={"name": "outer"}), guards=[guard])
    inner = WebSocketRouter(container=Container(config={"name": "inner"}))
    inner.add_handler("/ws", Handler)
    between = APIRouter()
    between.include_router(inner)
    outer.include_router(between)
    app = FastAPI()
    app.include_router(outer)
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == ["outer", "inner"]


async def test_sync_callables_get_providers_that_are_awaited() -> None:
    """An asynchronous provider is awaited on the event loop before a function in the thread pool is called."""

    def dependency(service: Annotated[Service, Provide[Container.async_resource]]) -> list[Any]:
        return [service.name, threading.current_thread() is threading.main_thread()]

    class Handler(WebSocketHandler):
        @on("use")
        def use(self, message: None, values: Annotated[list[Any], Depends(dependency)]) -> list[Any]:
            return values

    async with WebSocketTestClient(app_of(Handler, container=Container())) as client, client.connect("/ws") as ws:
        assert await call(ws) == ["async resource", False]


@pytest.mark.logs_errors
@pytest.mark.parametrize("deny", [False, True])
async def test_a_provider_that_fails(deny: bool) -> None:
    """What a provider raises is treated as if the dependency had raised it."""

    def failing() -> None:
        raise Deny(409, reason="taken") if deny else LookupError("secret")

    class Failing(containers.DeclarativeContainer):
        service = providers.Factory(failing)

    class Constructed(WebSocketHandler):
        def __init__(self, service: Annotated[None, Provide[Failing.service]]) -> None: ...

    class Answered(WebSocketHandler):
        @on("use")
        async def use(self, message: None, service: Annotated[None, Provide[Failing.service]]) -> None: ...

    async with WebSocketTestClient(app_of(Constructed, container=Failing())) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect("/ws"):
                pass
        assert denied.value.status == (409 if deny else 500)
        assert b"secret" not in denied.value.body
    async with WebSocketTestClient(app_of(Answered, container=Failing())) as client, client.connect("/ws") as ws:
        await ws.send_json({"type": "use", "id": 1})
        assert (await ws.receive())["error"]["code"] == ("conflict" if deny else "internal")


async def test_depends_around_provide_is_provide() -> None:
    """Depends(Provide[...]), which dependency-injector's users write for FastAPI, means the provider's value."""

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, service: Annotated[Service, Depends(Provide[Container.factory])]) -> str:
            return service.name

    async with (
        WebSocketTestClient(app_of(Handler, container=Container())) as client,
        client.connect("/ws?service=x") as ws,
    ):
        assert await call(ws) == "configured"
