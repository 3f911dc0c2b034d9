"""A handler under its routers: whose guards run, and whose hub, container, limits and reject hold."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import APIRouter, Depends, FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import Server, connect, serve
from wsrouter import (
    ConfigurationError,
    Connection,
    Deny,
    Hub,
    Limits,
    Message,
    WebSocketHandler,
    WebSocketRouter,
    on,
)

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


class Shout(Message):
    text: str


class Heard(Message):
    text: str


class Talk(WebSocketHandler):
    """Tells the name that its container provides, and passes on what is shouted."""

    def __init__(self, name: Annotated[str, Provide["name"]]) -> None:
        self.name = name

    async def on_connect(self) -> Heard:
        await self.join("all")
        return Heard(text=" ".join([*guards_of(self.connection), f"handler:{self.name}"]))

    @on
    async def shout(self, message: Shout) -> None:
        await self.broadcast("all", Heard(text=message.text))


def guards_of(connection: Connection) -> list[str]:
    """Return what the guards of a connection have said so far."""
    said: list[str] | None = getattr(connection.state, "said", None)
    if said is None:
        connection.state.said = said = []
    return said


def note(connection: Connection, text: str) -> None:
    """Note what a guard says, for the handler's greeting."""
    guards_of(connection).append(text)


async def outer_guard(connection: Connection, name: Annotated[str, Provide["name"]]) -> None:
    note(connection, f"outer:{name}")


async def inner_guard(connection: Connection, name: Annotated[str, Provide["name"]]) -> None:
    note(connection, f"inner:{name}")


def container(value: str) -> containers.Container:
    class Names(containers.DeclarativeContainer):
        name = providers.Object(value)

    return Names()


def application(*routers: APIRouter, **options: Any) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router, **options)
    return app


async def heard(ws: ClientConnection) -> str:
    text: str = json.loads(await ws.recv())["data"]["text"]
    return text


async def greeting(server: Server, path: str) -> str:
    async with connect(server, path) as ws:
        return await heard(ws)


async def status_of_denial(server: Server, path: str) -> int:
    with pytest.raises(InvalidStatus) as denied:
        await connect(server, path)
    return denied.value.response.status_code


async def test_one_child_under_two_parents_has_two_chains() -> None:
    """Each parent's guard, hub and container hold for the connections that came through it, and only for those."""
    child = WebSocketRouter(guards=[inner_guard])
    child.add_handler("/talk", Talk)

    async def other_guard(connection: Connection, name: Annotated[str, Provide["name"]]) -> None:
        note(connection, f"other:{name}")

    north_hub, south_hub = Hub(), Hub()
    north = WebSocketRouter(prefix="/north", guards=[outer_guard], hub=north_hub, container=container("n"))
    south = WebSocketRouter(prefix="/south", guards=[other_guard], hub=south_hub, container=container("s"))
    north.include_router(child)
    south.include_router(child)
    async with (
        serve(application(north, south)) as server,
        connect(server, "/north/talk") as in_north,
        connect(server, "/south/talk") as in_south,
    ):
        assert await heard(in_north) == "outer:n inner:n handler:n"
        assert await heard(in_south) == "other:s inner:s handler:s"
        assert len(north_hub.connections) == len(south_hub.connections) == 1
        await in_north.send('{"type":"shout","data":{"text":"up"}}')
        await in_south.send('{"type":"shout","data":{"text":"down"}}')
        assert await heard(in_north) == "up"
        assert await heard(in_south) == "down"
        await north_hub.broadcast("all", Heard(text="to the north"))
        await south_hub.broadcast("all", Heard(text="to the south"))
        assert await heard(in_north) == "to the north"
        assert await heard(in_south) == "to the south"


async def test_a_guard_gets_the_container_and_hub_of_the_router_that_lists_it() -> None:
    """An outer guard gets the outer container and hub though the handler gets the inner ones; the class's own
    guard gets the handler's."""
    outer_hub, inner_hub = Hub(), Hub()
    hubs: dict[str, Hub] = {}

    async def outer(connection: Connection, hub: Hub, name: Annotated[str, Provide["name"]]) -> None:
        hubs["outer"] = hub
        note(connection, f"outer:{name}")

    async def own(connection: Connection, hub: Hub, name: Annotated[str, Provide["name"]]) -> None:
        hubs["own"] = hub
        note(connection, f"own:{name}")

    class Guarded(Talk):
        guards = [own]

    inner_router = WebSocketRouter(guards=[inner_guard], hub=inner_hub, container=container("i"))
    inner_router.add_handler("/talk", Guarded)
    outer_router = WebSocketRouter(guards=[outer], hub=outer_hub, container=container("o"))
    outer_router.include_router(inner_router)
    async with serve(application(outer_router)) as server:
        assert await greeting(server, "/talk") == "outer:o inner:i own:i handler:i"
    assert hubs == {"outer": outer_hub, "own": inner_hub}


async def test_one_guard_on_both_levels_runs_once_for_the_outer() -> None:
    """A guard that outer and inner router list runs once, first, with what the outer router carries."""
    inner = WebSocketRouter(guards=[outer_guard, inner_guard], container=container("i"))
    inner.add_handler("/talk", Talk)
    outer = WebSocketRouter(guards=[outer_guard], container=container("o"))
    outer.include_router(inner)
    async with serve(application(outer)) as server:
        assert await greeting(server, "/talk") == "outer:o inner:i handler:i"


async def test_a_plain_router_in_between_passes_everything_on() -> None:
    """Prefix, guards and container reach through an APIRouter that holds only handlers; its own dependencies run."""
    ran: list[str] = []

    async def of_plain_router() -> None:
        ran.append("plain")

    child = WebSocketRouter(prefix="/child", guards=[inner_guard])
    child.add_handler("/talk", Talk)
    between = APIRouter(prefix="/between", dependencies=[Depends(of_plain_router)])
    between.include_router(child)
    top = WebSocketRouter(prefix="/top", guards=[outer_guard], container=container("t"))
    top.include_router(between)
    async with serve(application(top)) as server:
        assert await greeting(server, "/top/between/child/talk") == "outer:t inner:t handler:t"
    assert ran == ["plain"]


@pytest.mark.parametrize(
    ("path", "denied_by"), [("/by-outer", 4403), ("/middle/by-middle", 4403), ("/middle/inner/by-inner", 403)]
)
async def test_the_innermost_reject_holds(path: str, denied_by: int) -> None:
    """Of nested routers the innermost that says something about reject rules: a close code, or an HTTP status."""

    async def deny() -> None:
        raise Deny

    class Denied(WebSocketHandler):
        guards = [deny]

    inner = WebSocketRouter(prefix="/inner", reject="http")
    inner.add_handler("/by-inner", Denied)
    middle = WebSocketRouter(prefix="/middle")
    middle.add_handler("/by-middle", Denied)
    middle.include_router(inner)
    outer = WebSocketRouter(reject="close")
    outer.add_handler("/by-outer", Denied)
    outer.include_router(middle)
    async with serve(application(outer)) as server:
        if denied_by == 403:
            assert await status_of_denial(server, path) == 403
        else:
            async with connect(server, path) as ws:
                assert await close_code(ws) == denied_by


async def close_code(ws: ClientConnection) -> int | None:
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize(
    ("path", "size"), [("/by-outer", 100), ("/middle/by-middle", 100), ("/middle/inner/by-inner", 200), ("/small", 50)]
)
async def test_the_innermost_limits_hold(path: str, size: int) -> None:
    """A message of the size that the innermost limits admit is answered, one byte more closes 1009."""

    class Sized(WebSocketHandler):
        @on("echo")
        async def echo(self, data: str) -> int:
            return len(data)

    class Small(Sized):
        limits = Limits(message_size=50)

    inner = WebSocketRouter(prefix="/inner", limits=Limits(message_size=200))
    inner.add_handler("/by-inner", Sized)
    middle = WebSocketRouter(prefix="/middle")
    middle.add_handler("/by-middle", Sized)
    middle.include_router(inner)
    outer = WebSocketRouter(limits=Limits(message_size=100))
    outer.add_handler("/by-outer", Sized)
    outer.add_handler("/small", Small)
    outer.include_router(middle)
    head, tail = '{"type":"echo","data":"', '"}'
    text = "x" * (size - len(head) - len(tail))
    async with serve(application(outer)) as server, connect(server, path) as ws:
        await ws.send(head + text + tail)
        assert json.loads(await ws.recv()) == {"type": "$ok", "data": len(text)}
        await ws.send(head + text + "x" + tail)
        assert await close_code(ws) == 1009


async def test_guards_and_middleware_add_up_from_outer_to_inner() -> None:
    """Guards and message middleware of routers and class run from the outermost inwards."""
    events: list[str] = []

    class Around:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __call__(self, message: Any, connection: Connection, call_next: Any) -> None:
            events.append(f"{self.name} before")
            await call_next(message)
            events.append(f"{self.name} after")

    class Guard:
        def __init__(self, name: str) -> None:
            self.name = name

        async def __call__(self) -> None:
            events.append(f"{self.name} guard")

    class Layered(WebSocketHandler):
        guards = [Guard("class")]
        middleware = [Around("class")]

        @on
        async def shout(self, message: Shout) -> None:
            events.append("shout")

    inner = WebSocketRouter(guards=[Guard("inner")], middleware=[Around("inner")])
    inner.add_handler("/", Layered)
    outer = WebSocketRouter(guards=[Guard("outer 1"), Guard("outer 2")], middleware=[Around("outer 1")])
    outer.middleware(Around("outer 2"))
    outer.include_router(inner)
    async with serve(application(outer)) as server, connect(server) as ws:
        await ws.send('{"type":"shout","id":1,"data":{"text":""}}')
        await ws.recv()
    assert events == [
        *("outer 1 guard", "outer 2 guard", "inner guard", "class guard"),
        *("outer 1 before", "outer 2 before", "inner before", "class before"),
        "shout",
        *("class after", "inner after", "outer 2 after", "outer 1 after"),
    ]


async def test_routers_without_a_hub_share_that_of_the_outermost() -> None:
    """Without hub= the handlers below one outermost router hear each other, and nobody else does."""
    first, second = WebSocketRouter(prefix="/first"), WebSocketRouter(prefix="/second")
    first.add_handler("/talk", Talk)
    second.add_handler("/talk", Talk)
    shared = WebSocketRouter(prefix="/shared", container=container("x"))
    shared.include_router(first)
    shared.include_router(second)
    alone = WebSocketRouter(prefix="/alone", container=container("x"))
    alone.include_router(first)
    async with (
        serve(application(shared, alone)) as server,
        connect(server, "/shared/first/talk") as one,
        connect(server, "/shared/second/talk") as two,
        connect(server, "/alone/first/talk") as three,
    ):
        for ws in (one, two, three):
            await heard(ws)
        await one.send('{"type":"shout","data":{"text":"together"}}')
        assert await heard(one) == "together"
        assert await heard(two) == "together"
        await three.send('{"type":"shout","data":{"text":"alone"}}')
        assert await heard(three) == "alone"


async def test_include_router_with_a_path_parameter_in_its_prefix() -> None:
    """A parameter of the prefix reaches guard, constructor, hook and method, validated by each one's annotation."""
    seen: list[object] = []

    async def guard(tenant: int) -> None:
        if tenant == 13:
            raise Deny

    class Tenant(WebSocketHandler):
        def __init__(self, tenant: int, room: str) -> None:
            seen.extend([tenant, room])

        async def on_connect(self, tenant: str) -> None:
            seen.append(tenant)

        @on
        async def shout(self, message: Shout, tenant: int) -> Heard:
            return Heard(text=f"{message.text} {tenant + 1}")

    router = WebSocketRouter(prefix="/rooms", guards=[guard])
    router.add_handler("/{room}", Tenant)
    async with serve(application(router, prefix="/tenants/{tenant}")) as server:
        async with connect(server, "/tenants/7/rooms/blue") as ws:
            await ws.send('{"type":"shout","data":{"text":"next is"}}')
            assert await heard(ws) == "next is 8"
        assert await status_of_denial(server, "/tenants/13/rooms/blue") == 403
        assert await status_of_denial(server, "/tenants/x/rooms/blue") == 422
    assert seen == [7, "blue", "7"]


async def test_include_router_with_dependencies() -> None:
    """Dependencies of include_router run before the guards, may deny, and obey dependency_overrides."""
    ran: list[str] = []

    async def of_app(key: str) -> AsyncGenerator[None]:
        ran.append("of app")
        if key != "good":
            raise Deny(401)
        yield

    async def guard() -> None:
        ran.append("guard")

    router = WebSocketRouter(guards=[guard])
    router.add_handler("/", WebSocketHandler)
    app = application(router, dependencies=[Depends(of_app)])
    async with serve(app) as server:
        assert await status_of_denial(server, "/") == 403  # FastAPI's answer to what does not validate
        assert not ran
        assert await status_of_denial(server, "/?key=bad") == 401
        assert ran == ["of app"]
        async with connect(server, "/?key=good"):
            assert ran == ["of app", "of app", "guard"]
        app.dependency_overrides[of_app] = lambda: ran.append("override")
        async with connect(server, "/?key=bad"):
            assert ran == ["of app", "of app", "guard", "override", "guard"]


async def provided(name: Annotated[str, Provide["name"]]) -> None: ...


@pytest.mark.logs_errors
async def test_what_fastapi_solves_must_not_want_a_provider() -> None:
    """A Provide in a dependency of include_router is refused at start: FastAPI would read it from the query."""
    router = WebSocketRouter(container=container("x"))
    router.add_handler("/", WebSocketHandler)
    with pytest.raises(ConfigurationError, match=r"provided.*guards=\[\.\.\.\]"):
        async with serve(application(router, dependencies=[Depends(provided)])):
            pass


@pytest.mark.logs_errors
async def test_one_inclusion_without_a_container_is_refused_at_start() -> None:
    """A child that needs a container and has one under one parent only is refused, with class, parameter and cure."""
    child = WebSocketRouter()
    child.add_handler("/talk", Talk)
    with_container = WebSocketRouter(prefix="/with", container=container("x"))
    without = WebSocketRouter(prefix="/without")
    with_container.include_router(child)
    without.include_router(child)
    with pytest.raises(ConfigurationError, match=r"Talk.__init__, parameter 'name'.*container="):
        async with serve(application(with_container, without)):
            pass


async def test_a_handler_that_is_added_after_the_inclusion_is_served() -> None:
    """Routers may be filled and nested after they were included, until the app starts."""
    child, parent = WebSocketRouter(), WebSocketRouter(prefix="/parent", guards=[outer_guard], container=container("p"))
    parent.include_router(child)
    app = application(parent)
    child.add_handler("/talk", Talk)
    async with serve(app) as server:
        assert await greeting(server, "/parent/talk") == "outer:p handler:p"


async def test_two_apps_in_one_process_have_chains_of_their_own() -> None:
    """The same child in two apps that run at the same time has each app's guards, hub and container."""
    child = WebSocketRouter()
    child.add_handler("/talk", Talk)
    north = WebSocketRouter(guards=[outer_guard], container=container("n"))
    south = WebSocketRouter(guards=[inner_guard], container=container("s"))
    north.include_router(child)
    south.include_router(child)
    async with serve(application(north)) as first, serve(application(south)) as second:
        in_first, in_second = await asyncio.gather(greeting(first, "/talk"), greeting(second, "/talk"))
    assert in_first == "outer:n handler:n"
    assert in_second == "inner:s handler:s"
