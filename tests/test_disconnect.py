"""How a connection ends: what on_disconnect is told, and that it runs whoever ends the connection, and however."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import connect, eventually, serve, vanish
from wsrouter import (
    BrokerError,
    CloseInfo,
    Connection,
    ConnectionScoped,
    Deny,
    Disconnect,
    History,
    Hub,
    Limits,
    Message,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.brokers import MemoryBroker

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


class Work(Message):
    how: str


class Left(Message):
    code: int


class Person:
    id = "u1"


async def know(connection: HTTPConnection) -> None:
    connection.scope["user"] = Person()


class Ends:
    """What on_disconnect was told, every time it ran, and other things that happened, in order."""

    def __init__(self) -> None:
        self.closes: list[CloseInfo] = []
        self.events: list[str] = []
        self.connections: list[Connection] = []
        self.working = asyncio.Event()
        self.go_on = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        """That of the session."""

    def cancel(self) -> None:
        """Cancel the session, as a server does that won't wait longer."""
        assert self.task is not None, "a client has connected"
        self.task.cancel()


def application(
    ends: Ends,
    *,
    limits: Limits | None = None,
    hub: Hub | None = None,
    in_flight: int = 1,
    direct: bool | None = None,
) -> FastAPI:
    async def lease() -> AsyncGenerator[None]:
        yield
        ends.events.append("released")

    async def session() -> AsyncGenerator[None]:
        yield
        ends.working.set()
        await ends.go_on.wait()
        ends.events.append("committed")

    async def greeting() -> AsyncGenerator[None]:
        try:
            yield
        except ConnectionError:
            ends.events.append("greeting closed")
            raise

    class Worker(WebSocketHandler):
        max_in_flight = in_flight

        def __init__(self, lease: Annotated[None, ConnectionScoped(lease)], deny: bool = False) -> None:
            self.deny = deny

        async def on_connect(self, greeting: Annotated[None, Depends(greeting)]) -> None:
            ends.connections.append(self.connection)
            ends.task = asyncio.current_task()
            if self.deny:
                raise Deny(403, reason="not you")

        @on
        async def work(self, message: Work) -> None:
            if message.how == "close":
                await self.close(4000, "ready")
            elif message.how == "disconnect":
                raise Disconnect(4001, "enough")
            elif message.how == "long reason":
                await self.close(4002, "ü" * 100)
            else:
                ends.working.set()
                await ends.go_on.wait()

        @on("save")
        async def save(self, data: None, session: Annotated[None, Depends(session)]) -> None: ...

        async def on_disconnect(self, close: CloseInfo) -> None:
            await asyncio.sleep(0)
            ends.closes.append(close)
            ends.events.append("on_disconnect")

    router = WebSocketRouter(guards=[know], limits=limits, hub=hub, direct=direct)
    router.add_handler("/", Worker)
    app = FastAPI()
    app.include_router(router)
    return app


async def close_with_code_and_reason(ws: ClientConnection) -> None:
    await ws.close(4321, "my reasons")


async def close_with_code(ws: ClientConnection) -> None:
    await ws.close(1000)


async def close_without_code(ws: ClientConnection) -> None:
    ws.protocol.send_close()
    ws.transport.write(b"".join(ws.protocol.data_to_send()))
    await ws.wait_closed()


async def end_tcp(ws: ClientConnection) -> None:
    ws.transport.close()
    await ws.wait_closed()


@pytest.mark.parametrize(
    ("leave", "expected"),
    [
        (close_with_code_and_reason, CloseInfo(4321, "my reasons", "client")),
        (close_with_code, CloseInfo(1000, "", "client")),
        (close_without_code, CloseInfo(1005, "", "client")),
        (end_tcp, CloseInfo(1006, "", "client")),
        (vanish, CloseInfo(1006, "", "client")),
    ],
)
async def test_on_disconnect_is_told_how_the_client_left(
    leave: Callable[[ClientConnection], Awaitable[None]], expected: CloseInfo
) -> None:
    """CloseInfo has the client's code and reason, 1005 where it gave none, 1006 where it just went."""
    ends = Ends()
    async with serve(application(ends)) as server:
        ws = await connect(server)
        await leave(ws)
        await eventually(lambda: "released" in ends.events)
    assert ends.closes == [expected]


@pytest.mark.parametrize("leave", [close_with_code_and_reason, end_tcp, vanish])
async def test_hypercorn_tells_only_that_the_client_left(leave: Callable[[ClientConnection], Awaitable[None]]) -> None:
    """On hypercorn every client that left has left with 1006, since it tells nothing else."""
    ends = Ends()
    async with serve(application(ends), server="hypercorn") as server:
        ws = await connect(server)
        await leave(ws)
        await eventually(lambda: "released" in ends.events)
    assert ends.closes == [CloseInfo(1006, "", "client")]


async def closed(ws: ClientConnection) -> tuple[int, str] | None:
    """Wait for the end, and return code and reason of the server's close frame."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as exc:
        return (exc.rcvd.code, exc.rcvd.reason) if exc.rcvd else None


@each_server
@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("close", 4000, "ready"),
        ("disconnect", 4001, "enough"),
        ("long reason", 4002, "ü" * 61),
    ],
)
async def test_on_disconnect_is_told_how_the_handler_closed(
    how: str, code: int, reason: str, server_name: ServerName
) -> None:
    """After self.close or Disconnect, client and on_disconnect are told the same code and reason, cut to fit."""
    ends = Ends()
    async with serve(application(ends), server=server_name) as server, connect(server) as ws:
        await ws.send(json.dumps({"type": "work", "data": {"how": how}}))
        assert await closed(ws) == (code, reason)
        await eventually(lambda: "released" in ends.events)
    assert ends.closes == [CloseInfo(code, reason, "server")]
    assert ends.events == ["on_disconnect", "released"]


@each_server
async def test_on_disconnect_is_told_that_on_connect_denied(server_name: ServerName) -> None:
    """A Deny in on_connect closes with the code of the table, and on_disconnect runs."""
    ends = Ends()
    async with serve(application(ends), server=server_name) as server, connect(server, "/?deny=1") as ws:
        assert await closed(ws) == (4403, "not you")
        await eventually(lambda: "released" in ends.events)
    assert ends.closes == [CloseInfo(4403, "not you", "server")]


@each_server
async def test_on_disconnect_is_told_that_the_hub_disconnected_the_user(server_name: ServerName) -> None:
    """After hub.disconnect_user every connection of the user ends with its code and reason."""
    ends = Ends()
    hub = Hub()
    async with (
        serve(application(ends, hub=hub), server=server_name) as server,
        connect(server) as one,
        connect(server) as other,
    ):
        await eventually(lambda: len(ends.connections) == 2)
        await hub.disconnect_user("u1", code=4403, reason="banned")
        assert await closed(one) == (4403, "banned")
        assert await closed(other) == (4403, "banned")
        await eventually(lambda: ends.events.count("released") == 2)
    assert ends.closes == [CloseInfo(4403, "banned", "server")] * 2


@each_server
async def test_a_clean_up_that_is_under_way_when_the_client_leaves_completes(server_name: ServerName) -> None:
    """Neither the client's leaving nor the end of the drain interrupts the clean-up of a message's dependency."""
    ends = Ends()
    async with serve(application(ends, limits=Limits(drain=0.05)), server=server_name) as server:
        ws = await connect(server)
        await ws.send('{"type":"save"}')
        await ends.working.wait()
        await vanish(ws)
        await eventually(lambda: ends.connections[0].closed is not None)
        asyncio.get_running_loop().call_later(0.2, ends.go_on.set)
        await eventually(lambda: "released" in ends.events)
    assert ends.events == ["committed", "on_disconnect", "released"]


@each_server
@pytest.mark.parametrize("leave", [end_tcp, vanish])
async def test_a_method_that_outlasts_the_drain_is_cancelled(
    leave: Callable[[ClientConnection], Awaitable[None]], server_name: ServerName
) -> None:
    """When the client has left, its last message is worked on until the drain ends; then on_disconnect runs."""
    ends = Ends()
    async with serve(application(ends, limits=Limits(drain=0.1)), server=server_name) as server:
        ws = await connect(server)
        await ws.send('{"type":"work","data":{"how":"long"}}')
        await ends.working.wait()
        await leave(ws)
        await eventually(lambda: "released" in ends.events)
    assert ends.closes == [CloseInfo(1006, "", "client")]
    assert ends.events == ["on_disconnect", "released"]


SHORT_PATIENCE: dict[ServerName, dict[str, Any]] = {
    "uvicorn": {"timeout_graceful_shutdown": 0.2},
    "hypercorn": {"graceful_timeout": 0.2},
}


@pytest.mark.logs_errors
@each_server
async def test_a_server_that_does_not_wait_longer_has_on_disconnect_run(server_name: ServerName) -> None:
    """A server that shuts down while a method works, and cancels it, has on_disconnect run and all released."""
    ends = Ends()
    app = application(ends, limits=Limits(drain=30))
    async with serve(app, server=server_name, **SHORT_PATIENCE[server_name]) as server:
        ws = await connect(server)
        await ws.send('{"type":"work","data":{"how":"long"}}')
        await ends.working.wait()
    await eventually(lambda: "released" in ends.events)
    assert ends.events == ["on_disconnect", "released"]
    assert ends.closes == [CloseInfo(1012, "", "server")]
    await ws.close()


@pytest.mark.logs_errors
@each_server
async def test_a_server_that_shuts_down_ends_idle_connections(server_name: ServerName) -> None:
    """A connection that waits for a message ends with the server, and on_disconnect is told who it was."""
    ends = Ends()
    async with serve(application(ends), server=server_name, **SHORT_PATIENCE[server_name]) as server:
        ws = await connect(server)
        await eventually(lambda: len(ends.connections) == 1)
    await eventually(lambda: "released" in ends.events)
    assert ends.events == ["on_disconnect", "released"]
    assert ends.closes == [CloseInfo(1012, "", "server")]
    await ws.close()


class HoldsClose:
    """ASGI middleware that never lets a close frame through."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.closing = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note() -> Event:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                self.left.set()
            return event

        async def hold(event: Event) -> None:
            if event["type"] == "websocket.close":
                self.closing.set()
                await asyncio.Event().wait()
            await send(event)

        await self.app(scope, note, hold)


@pytest.mark.logs_errors
@pytest.mark.parametrize("client_has_left", [False, True])
async def test_a_cancel_while_the_close_frame_goes_out_skips_nothing(client_has_left: bool) -> None:
    """A cancel from outside that comes while the close frame is on its way still finds on_disconnect run."""
    ends = Ends()
    app = HoldsClose(application(ends, limits=Limits(close=0.3), direct=False))
    async with serve(app) as server:
        ws = await connect(server)
        await ws.send('{"type":"work","data":{"how":"disconnect"}}')
        await app.closing.wait()
        if client_has_left:
            await vanish(ws)
            await app.left.wait()
        ends.cancel()
        await eventually(lambda: "released" in ends.events)
        await ws.close()
    assert ends.events == ["on_disconnect", "released"]
    assert ends.closes == [CloseInfo(4001, "enough", "server")]


@pytest.mark.logs_errors
async def test_a_cancel_while_messages_are_finished_skips_nothing() -> None:
    """Cancels from outside that come while a message's dependency is closed let it complete before on_disconnect."""
    ends = Ends()
    async with serve(application(ends, in_flight=4)) as server:
        ws = await connect(server)
        await ws.send('{"type":"save"}')
        await ends.working.wait()
        await ws.send('{"type":"work","data":{"how":"disconnect"}}')
        assert await closed(ws) == (4001, "enough")
        ends.cancel()
        await asyncio.sleep(0)
        ends.cancel()
        asyncio.get_running_loop().call_soon(ends.go_on.set)
        await eventually(lambda: "released" in ends.events)
    assert ends.events == ["committed", "on_disconnect", "released"]


class FailingBroker(MemoryBroker):
    """A broker that is down when the last connection of a user leaves."""

    async def unsubscribe(self, target: str, name: str) -> None:
        raise ConnectionError("the broker is down")


@pytest.mark.logs_errors
@each_server
async def test_a_broker_that_fails_at_the_end_skips_nothing(server_name: ServerName) -> None:
    """When the hub can't let go of a connection, on_disconnect still runs, all is released, and it is logged."""
    ends = Ends()
    async with serve(application(ends, hub=Hub(FailingBroker())), server=server_name) as server:
        async with connect(server) as ws:
            await ws.send('{"type":"work","data":{"how":"close"}}')
            assert await closed(ws) == (4000, "ready")
        await eventually(lambda: "released" in ends.events)
    assert ends.events == ["on_disconnect", "released"]


class RefusingBroker(MemoryBroker):
    """A broker that is down when the first connection of a user comes."""

    async def subscribe(self, target: str, name: str, history: History | None = None) -> None:
        raise BrokerError("the broker is down")


@pytest.mark.logs_errors
@each_server
async def test_a_broker_that_fails_at_the_beginning_leaves_nothing_open(server_name: ServerName) -> None:
    """Where the hub can't be told whose a connection is, `disconnect_user` would not reach it: it is denied with 503,
    no hook runs, and what guards hold is released."""
    ends, hub = Ends(), Hub(RefusingBroker())
    async with serve(application(ends, hub=hub), server=server_name) as server:
        with pytest.raises(InvalidStatus) as denied:
            await connect(server)
        assert denied.value.response.status_code == 503
        await eventually(lambda: hub.stats().users == 0)
    assert not ends.connections
    assert not [event for event in ends.events if event != "released"]


@pytest.mark.logs_errors
async def test_a_dependency_of_on_disconnect_that_hangs_does_not_hold_the_connection() -> None:
    """What on_disconnect is the first to need of the connection scope has to come within its deadline, too."""
    events: list[str] = []

    async def guard() -> AsyncGenerator[None]:
        yield
        events.append("guard closed")

    async def hanging() -> None:
        events.append("hanging")
        await asyncio.Event().wait()

    class Quiet(WebSocketHandler):
        guards = [guard]

        async def on_disconnect(self, hanging: Annotated[None, ConnectionScoped(hanging)]) -> None:
            events.append("on_disconnect")

    router = WebSocketRouter(limits=Limits(on_disconnect=0.1))
    router.add_handler("/", Quiet)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        async with connect(server):
            pass
        await eventually(lambda: events == ["hanging", "guard closed"])


@each_server
async def test_on_disconnect_can_tell_the_others(server_name: ServerName) -> None:
    """In on_disconnect the connection is in no room any more, still knows in which it was, and can broadcast."""

    class Talk(WebSocketHandler):
        async def on_connect(self) -> Left:
            await self.join("talk")
            return Left(code=0)

        async def on_disconnect(self, close: CloseInfo) -> None:
            for room in self.connection.rooms:
                await self.broadcast(room, Left(code=close.code))

    router = WebSocketRouter()
    router.add_handler("/", Talk)
    app = FastAPI()
    app.include_router(router)
    async with serve(app, server=server_name) as server, connect(server) as stays:
        assert "left" in str(await stays.recv())
        async with connect(server) as leaves:
            await leaves.recv()
            await vanish(leaves)
        assert json.loads(await stays.recv()) == {"type": "left", "room": "talk", "data": {"code": 1006}}
