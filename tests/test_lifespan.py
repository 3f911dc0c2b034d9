"""What runs with the app: hubs and containers start and stop with it, once; and handlers where no lifespan ran."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import APIRouter, Depends, FastAPI
from websockets.exceptions import InvalidStatus

from tests.support import Server, connect, serve
from wsrouter import ConfigurationError, Hub, Message, WebSocketHandler, WebSocketRouter
from wsrouter.brokers import MemoryBroker

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


class Name(Message):
    name: str


class Talk(WebSocketHandler):
    """Tells the name that its container provides."""

    def __init__(self, name: Annotated[str, Provide["name"]]) -> None:
        self.name = name

    async def on_connect(self) -> Name:
        return Name(name=self.name)


def application(*routers: APIRouter) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return app


async def name_told(server: Server, path: str) -> str:
    async with connect(server, path) as ws:
        name: str = json.loads(await ws.recv())["data"]["name"]
        return name


async def status_of_denial(server: Server, path: str) -> int:
    with pytest.raises(InvalidStatus) as denied:
        await connect(server, path)
    return denied.value.response.status_code


class CountingBroker(MemoryBroker):
    """Notes how often it is started and stopped."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events

    async def start(self, node: str, receiver: Any, grace: float = 15.0) -> None:
        self.events.append("hub starts")
        await super().start(node, receiver, grace)

    async def aclose(self) -> None:
        self.events.append("hub stops")
        await super().aclose()


@each_server
async def test_a_router_that_is_included_three_times_starts_once(server_name: ServerName) -> None:
    """Hub and container start and stop with the app, once, the container first and last."""
    events: list[str] = []

    async def resource() -> AsyncIterator[str]:
        events.append("resource opens")
        yield "resource"
        events.append("resource closes")

    class Resources(containers.DeclarativeContainer):
        name = providers.Resource(resource)

    router = WebSocketRouter(hub=Hub(CountingBroker(events)), container=Resources())
    router.add_handler("/talk", Talk)
    outer = WebSocketRouter(prefix="/outer")
    outer.include_router(router)
    app = application(router, outer)
    app.include_router(router, prefix="/again")
    async with serve(app, server=server_name) as server:
        assert events == ["resource opens", "hub starts"]
        for path in ("/talk", "/outer/talk", "/again/talk"):
            assert await name_told(server, path) == "resource"
    assert events == ["resource opens", "hub starts", "hub stops", "resource closes"]


async def test_hub_and_container_start_again_with_the_next_run_of_the_app() -> None:
    """An app that was stopped can be started again, as tests do it: hub and resources are fresh each time."""
    events: list[str] = []

    def resource() -> Iterator[str]:
        events.append("resource opens")
        yield "resource"
        events.append("resource closes")

    class Resources(containers.DeclarativeContainer):
        name = providers.Resource(resource)

    router = WebSocketRouter(hub=Hub(CountingBroker(events)), container=Resources())
    router.add_handler("/talk", Talk)
    app = application(router)
    for _ in range(2):
        async with serve(app) as server:
            assert await name_told(server, "/talk") == "resource"
    assert events == ["resource opens", "hub starts", "hub stops", "resource closes"] * 2


def errors_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(
        f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}"
        for record in caplog.records
        if record.levelno >= logging.ERROR
    )


@each_server
async def test_a_mounted_app_has_chains_of_its_own(server_name: ServerName) -> None:
    """In a mounted app, whose lifespan does not run, handlers are bound by the first handshake, the hub starts
    by itself, and the mounted app's own overrides hold."""

    async def title() -> str:
        return "plain"

    class Titled(Talk):
        def __init__(self, title: Annotated[str, Depends(title)]) -> None:
            self.name = title

    router = WebSocketRouter(prefix="/ws")
    router.add_handler("/talk", Titled)
    mounted = application(router)
    mounted.dependency_overrides[title] = lambda: "mounted"
    app = application(router)
    app.mount("/sub", mounted)
    async with serve(app, server=server_name) as server:
        assert await name_told(server, "/ws/talk") == "plain"
        assert await name_told(server, "/sub/ws/talk") == "mounted"
        app.dependency_overrides[title] = lambda: "overridden"
        assert await name_told(server, "/ws/talk") == "overridden"
        assert await name_told(server, "/sub/ws/talk") == "mounted"


@pytest.mark.logs_errors
@each_server
async def test_a_mistake_in_a_mounted_app_is_found_by_the_first_handshake(
    server_name: ServerName, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no lifespan ran, a handler that can't be bound denies with 500, and the log has the sentence."""
    router = WebSocketRouter(prefix="/ws")
    router.add_handler("/talk", Talk)
    app = FastAPI()
    app.mount("/sub", application(router))
    async with serve(app, server=server_name) as server:
        assert await status_of_denial(server, "/sub/ws/talk") == 500
        assert await status_of_denial(server, "/sub/ws/talk") == 500
    assert "Talk.__init__, parameter 'name'" in errors_of(caplog)


class RemoteBroker(MemoryBroker):
    """A broker that connects processes, as far as the hub can tell."""

    local = False


@pytest.mark.logs_errors
@each_server
async def test_a_hub_on_a_remote_broker_that_was_not_started_is_refused(
    server_name: ServerName, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no lifespan ran, a handshake that needs a hub between processes is 500 before any guard ran, and the
    log says what to do; once the hub is started, clients are let in."""
    ran: list[str] = []

    async def guard() -> None:
        ran.append("guard")

    class Quiet(WebSocketHandler): ...

    hub = Hub(RemoteBroker())
    router = WebSocketRouter(hub=hub, guards=[guard])
    router.add_handler("/ws", Quiet)
    app = FastAPI()
    app.mount("/sub", application(router))
    async with serve(app, server=server_name) as server:
        assert await status_of_denial(server, "/sub/ws") == 500
        assert not ran
        assert "RemoteBroker was not started" in errors_of(caplog)
        assert "async with hub" in errors_of(caplog)
        async with hub, connect(server, "/sub/ws"):
            assert ran == ["guard"]


async def test_a_message_to_a_remote_broker_that_was_not_started_is_refused() -> None:
    """A script that broadcasts through a hub between processes has to start it."""
    hub = Hub(RemoteBroker())
    with pytest.raises(ConfigurationError, match="async with hub"):
        await hub.broadcast("all", Name(name=""))
    async with hub:
        await hub.broadcast("all", Name(name=""))
