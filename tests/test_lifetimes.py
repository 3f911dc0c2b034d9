"""How long dependencies live: as long as the call they were solved for, or as long as the connection."""

import asyncio
import json
import resource
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import pytest
from anyio import create_task_group
from anyio.abc import TaskGroup
from fastapi import Depends, FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.envelopes import client_of, receive, send
from tests.support import Server, connect, eventually, serve
from wsrouter import (
    ConfigurationError,
    Connection,
    ConnectionScoped,
    Hub,
    Message,
    WebSocketHandler,
    WebSocketRouter,
    on,
)

IDLE = 1_000


class Pool:
    """Connections to a database, of which there are five."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(5)
        self.held = 0
        self.most = 0
        self.taken = 0

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[None]:
        async with self.places:
            self.held += 1
            self.taken += 1
            self.most = max(self.most, self.held)
            try:
                await asyncio.sleep(0)
                yield
            finally:
                self.held -= 1


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let the process open a client's and a server's end of all connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * IDLE + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_thousand_idle_connections_share_a_pool_of_five(many_files: None) -> None:
    """What a dependency of a guard, of on_connect or of on_disconnect holds is back when that call is through:
    1,000 clients are let in, greeted, idle, and seen off through a pool of five."""
    pool = Pool()
    left = 0

    async def database() -> AsyncGenerator[None]:
        async with pool.connection():
            yield

    async def guard(database: Annotated[None, Depends(database)]) -> None:
        await asyncio.sleep(0)

    class Idle(WebSocketHandler):
        async def on_connect(self, database: Annotated[None, Depends(database)]) -> None:
            await asyncio.sleep(0)

        async def on_disconnect(self, database: Annotated[None, Depends(database)]) -> None:
            nonlocal left
            left += 1

    hub = Hub()
    router = WebSocketRouter(guards=[guard], hub=hub)
    router.add_handler("/", Idle)
    app = FastAPI()
    app.include_router(router)
    at_once = asyncio.Semaphore(50)

    async def enter(server: Server) -> ClientConnection:
        async with at_once:
            return await connect(server, compression=None, ping_interval=None, open_timeout=30)

    async with serve(app, ws_per_message_deflate=False, ws_ping_interval=None, backlog=IDLE) as server:
        clients = await asyncio.gather(*(enter(server) for _ in range(IDLE)))
        await eventually(lambda: pool.taken == 2 * IDLE and pool.held == 0, timeout=20)
        assert len(hub.connections) == IDLE
        await asyncio.gather(*(client.close() for client in clients))
        await eventually(lambda: left == IDLE, timeout=20)
        await eventually(lambda: pool.held == 0)
    assert pool.taken == 3 * IDLE
    assert pool.most == 5


async def test_what_a_guard_depends_on_is_back_before_accept() -> None:
    """A pool of one serves a guard's dependency, the constructor's guard value and on_connect's, one after another."""
    events: list[str] = []

    async def database() -> AsyncGenerator[str]:
        events.append("taken")
        yield "database"
        events.append("back")

    async def guard(database: Annotated[str, Depends(database)]) -> AsyncGenerator[str]:
        yield f"admitted by {database}"
        events.append("guard closed")

    class Talk(WebSocketHandler):
        def __init__(self, admitted: Annotated[str, Depends(guard)]) -> None:
            events.append(f"constructed, {admitted}")

        async def on_connect(self, admitted: Annotated[str, Depends(guard)]) -> None:
            events.append(f"connected, {admitted}")

    router = WebSocketRouter(guards=[guard])
    router.add_handler("/", Talk)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server):
        await eventually(lambda: len(events) == 4)
    assert events == [
        "taken",
        "back",
        "constructed, admitted by database",
        "connected, admitted by database",
        "guard closed",
    ]


async def async_session() -> AsyncGenerator[str]:
    yield "session"


def sync_session() -> Generator[str]:
    yield "session"


async def repository(session: Annotated[str, Depends(async_session)]) -> str:
    return session


def in_router(handler: type[WebSocketHandler], **options: Any) -> FastAPI:
    router = WebSocketRouter(**options)
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


class HoldsAsyncSession(WebSocketHandler):
    def __init__(self, session: Annotated[str, Depends(async_session)]) -> None: ...


class HoldsSyncSession(WebSocketHandler):
    def __init__(self, session: Annotated[str, Depends(sync_session)]) -> None: ...


class HoldsRepository(WebSocketHandler):
    def __init__(self, repository: Annotated[str, Depends(repository)]) -> None: ...


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    ("handler", "dependency"),
    [(HoldsAsyncSession, "async_session"), (HoldsSyncSession, "sync_session"), (HoldsRepository, "async_session")],
)
async def test_a_yield_dependency_of_a_constructor_is_refused_at_start(
    handler: type[WebSocketHandler], dependency: str
) -> None:
    """At whatever depth, what yields for a constructor has no end: the text names class, dependency and cure."""
    with pytest.raises(ConfigurationError) as refused:
        async with serve(in_router(handler)):
            pass
    text = str(refused.value)
    assert f"{handler.__qualname__}.__init__" in text
    assert dependency in text
    assert "ConnectionScoped" in text


@pytest.mark.logs_errors
async def test_an_override_of_a_constructor_dependency_must_not_yield_either(caplog: pytest.LogCaptureFixture) -> None:
    """An override that yields where a constructor needs it denies with 500, and the log says what to do."""

    async def settings() -> str:
        return "settings"

    class Talk(WebSocketHandler):
        def __init__(self, settings: Annotated[str, Depends(settings)]) -> None: ...

    app = in_router(Talk)
    async with serve(app) as server:
        async with connect(server):
            pass
        app.dependency_overrides[settings] = async_session
        with pytest.raises(InvalidStatus) as denied:
            await connect(server)
        assert denied.value.response.status_code == 500
    assert "async_session" in caplog.text
    assert "ConnectionScoped" in caplog.text


class Need(Message): ...


class Tasks:
    """In which tasks something was opened and closed, and what happened in between."""

    def __init__(self) -> None:
        self.opened: list[asyncio.Task[Any] | None] = []
        self.closed: list[asyncio.Task[Any] | None] = []
        self.events: list[str] = []
        self.arrived = 0
        self.all_arrived = asyncio.Event()

    async def lease(self) -> AsyncGenerator[str]:
        self.opened.append(asyncio.current_task())
        await asyncio.sleep(0)
        self.events.append("opened")
        yield "lease"
        self.events.append("closed")
        await asyncio.sleep(0)
        self.closed.append(asyncio.current_task())

    async def meet(self, number: int) -> None:
        self.arrived += 1
        if self.arrived == number:
            self.all_arrived.set()
        await self.all_arrived.wait()


Place = Literal["constructor", "on_connect", "method", "dependency", "middleware", "exception handler", "on_disconnect"]


def application_that_leases(tasks: Tasks, place: Place, in_flight: int) -> FastAPI:
    """Something connection-scoped that is first needed at one place."""
    router = WebSocketRouter()

    async def behind(lease: str = ConnectionScoped(tasks.lease)) -> str:
        return lease

    class Talk(WebSocketHandler):
        max_in_flight = in_flight

        async def on_disconnect(self) -> None:
            tasks.events.append("on_disconnect")

    class InConstructor(Talk):
        def __init__(self, lease: str = ConnectionScoped(tasks.lease)) -> None: ...

    class InOnConnect(Talk):
        async def on_connect(self, lease: str = ConnectionScoped(tasks.lease)) -> None: ...

    class InMethod(Talk):
        @on
        async def need(self, message: Need, lease: str = ConnectionScoped(tasks.lease)) -> None:
            await tasks.meet(in_flight)

    class InDependency(Talk):
        @on
        async def need(self, message: Need, lease: Annotated[str, Depends(behind)]) -> None:
            await tasks.meet(in_flight)

    class Plain(Talk):
        @on
        async def need(self, message: Need) -> None:
            await tasks.meet(in_flight)
            if place == "exception handler":
                raise KeyError

    class InOnDisconnect(WebSocketHandler):
        max_in_flight = in_flight

        async def on_disconnect(self, lease: str = ConnectionScoped(tasks.lease)) -> None:
            tasks.events.append("on_disconnect")

    async def middleware(
        message: Any, connection: Connection, call_next: Callable[..., Any], lease: str = ConnectionScoped(tasks.lease)
    ) -> None:
        await call_next(message)

    async def answer(exc: KeyError, lease: str = ConnectionScoped(tasks.lease)) -> None: ...

    if place == "middleware":
        router.middleware(middleware)
    if place == "exception handler":
        router.exception_handler(KeyError)(answer)
    handlers: dict[Place, type[WebSocketHandler]] = {
        "constructor": InConstructor,
        "on_connect": InOnConnect,
        "method": InMethod,
        "dependency": InDependency,
        "on_disconnect": InOnDisconnect,
    }
    router.add_handler("/", handlers.get(place, Plain))
    app = FastAPI()
    app.include_router(router)
    return app


@pytest.mark.logs_errors
@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize(
    "place", ["constructor", "on_connect", "method", "dependency", "middleware", "exception handler", "on_disconnect"]
)
async def test_what_is_connection_scoped_is_opened_once_and_closed_in_the_same_task(
    place: Place, in_flight: int
) -> None:
    """Wherever it is first needed, also by four messages at once, it is opened once, shared, and closed after
    on_disconnect, by the task that opened it."""
    tasks = Tasks()
    async with serve(application_that_leases(tasks, place, in_flight)) as server:
        async with connect(server) as ws:
            if place not in ("constructor", "on_connect", "on_disconnect"):
                for number in range(in_flight):
                    await ws.send(f'{{"type":"need","id":{number}}}')
                for _ in range(in_flight):
                    await ws.recv()
        await eventually(lambda: tasks.closed)
    assert len(tasks.opened) == 1
    assert tasks.closed == tasks.opened
    expected = ["opened", "on_disconnect", "closed"]
    assert tasks.events == expected


async def test_a_task_group_may_live_as_long_as_the_connection() -> None:
    """A connection-scoped task group works for the connection, and its tasks end with it."""
    events: list[str] = []

    async def background() -> AsyncGenerator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group
            for task in tasks:
                task.cancel()

    tasks: list[asyncio.Task[None]] = []

    class Clock(WebSocketHandler):
        async def on_connect(self, background: Annotated[asyncio.TaskGroup, ConnectionScoped(background)]) -> None:
            tasks.append(background.create_task(self.tick()))

        async def tick(self) -> None:
            try:
                await self.send(Need())
                await asyncio.Event().wait()
            finally:
                events.append("ticking ended")

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    async with serve(in_router(Clock)) as server:
        async with connect(server) as ws:
            assert json.loads(await ws.recv())["type"] == "need"
        await eventually(lambda: events == ["on_disconnect", "ticking ended"])


@pytest.mark.parametrize("max_in_flight", [1, 2])
async def test_a_task_group_of_the_call_ends_within_one_of_the_connection(max_in_flight: int) -> None:
    """Whatever order a hook or method names them in, that of the connection is opened first, and each is closed."""
    events: list[str] = []

    async def of_the_call() -> AsyncGenerator[TaskGroup]:
        async with create_task_group() as group:
            yield group
            events.append("call")

    async def of_the_connection() -> AsyncGenerator[TaskGroup]:
        async with create_task_group() as group:
            yield group
            events.append("connection")

    call, lasting = Depends(of_the_call), ConnectionScoped(of_the_connection)
    other = ConnectionScoped(of_the_connection, use_cache=False)

    class Grouped(WebSocketHandler):
        async def on_connect(self, one: Annotated[Any, call], other: Annotated[Any, lasting]) -> None:
            events.append("on_connect")

        @on("use")
        async def use(self, message: None, one: Annotated[Any, call], other: Annotated[Any, other]) -> None:
            events.append("use")

    Grouped.max_in_flight = max_in_flight
    async with client_of(Grouped) as ws:
        for id in 1, 2:
            await send(ws, "use", id=id)
            assert await receive(ws) == {"type": "$ok", "id": id}
    assert events == ["on_connect", "call", "use", "call", "use", "call", "connection", "connection"]


@pytest.mark.logs_errors
async def test_a_task_group_that_fails_ends_the_connection_through_on_disconnect() -> None:
    """When a task of a connection-scoped task group fails, the client gets 1012, on_disconnect runs, and the
    failure is logged."""
    events: list[str] = []

    async def background() -> AsyncGenerator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            yield group

    class Clock(WebSocketHandler):
        async def on_connect(self, background: Annotated[asyncio.TaskGroup, ConnectionScoped(background)]) -> None:
            background.create_task(self.fail())

        async def fail(self) -> None:
            raise ValueError("no time")

        async def on_disconnect(self) -> None:
            events.append("on_disconnect")

    async with serve(in_router(Clock)) as server, connect(server) as ws:
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1011, 1012)
        await eventually(lambda: events == ["on_disconnect"])
