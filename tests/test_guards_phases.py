"""A thousand connections that end in every phase of their life, and counters that are zero after each."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final
from urllib.parse import quote

import pytest
from fastapi import Depends, FastAPI, Header, Query
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from tests.support import Server, eventually, no_task_left, serve
from tests.wire import CLOSE, RawClient, request, text
from wsrouter import Connection, ConnectionScoped, Deny, Hub, Limits, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.guards import ConnectionLimit
from wsrouter.rates import CLOSE_AT, RateLimit

EACH: Final = 56
"""Connections per phase."""
PATIENCE: Final = 20
"""Seconds in which a thousand connections get somewhere on a machine that has more to do."""
MESSAGES: Final = 4
"""Messages per hour that are allowed."""
FLOOD: Final = CLOSE_AT * MESSAGES * 2
"""Messages at once of a client that is too fast: twice what closes it."""

HELD: Final = ("guard before", "guard between", "guard after", "constructor", "parameters", "accept")
"""The phases in which the server waits before it has accepted."""
PHASES: Final = (
    "nothing sent",
    "half a request",
    *HELD,
    "denied by a guard",
    "denied by the constructor",
    "on_connect",
    "idle",
    "message in flight",
    "messages waiting",
    "closed by the handler",
    "replaced",
    "too fast",
    "on_disconnect",
    "shutdown",
)


class World:
    """What the application under test counts, and where it waits."""

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        self.go = asyncio.Event()
        self.held: Counter[str] = Counter()
        """What guards and dependencies of a connection hold now."""
        self.begun = 0
        self.ended = 0

    async def stop(self, phase: str, wanted: str) -> None:
        """Wait in a phase, if it is the one that the client asked for."""
        if phase == wanted:
            self.reached[phase] += 1
            await self.go.wait()


class Phase(Message):
    name: str


Wanted = Annotated[str, Query(alias="phase")]


class Slow:
    """ASGI middleware that takes its time to accept."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self.app = app
        self.world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def slow_send(event: Event) -> None:
            if event["type"] == "websocket.accept" and scope["query_string"] == b"phase=accept":
                await self.world.stop("accept", "accept")
            await send(event)

        await self.app(scope, receive, slow_send if scope["type"] == "websocket" else send)


class Subject:
    """The application, and all that counts in it."""

    def __init__(self) -> None:
        self.world = World()
        self.hub = Hub()
        self.first = ConnectionLimit(total=10_000, per_ip=10_000)
        self.per_user = ConnectionLimit(per_user=10_000)
        self.single = ConnectionLimit(per_user=1, on_full="replace_oldest")
        self.rates = [RateLimit(messages=(MESSAGES, 3600.0)), RateLimit(messages="1000/second", per="user")]
        app = FastAPI()
        app.include_router(self.router("/", self.per_user))
        app.include_router(self.router("/single", self.single))
        self.app = Slow(app, self.world)

    def router(self, path: str, limit: ConnectionLimit) -> WebSocketRouter:
        world = self.world

        async def before(wanted: Wanted = "") -> None:
            await world.stop("guard before", wanted)

        async def between(connection: Connection, wanted: Wanted = "", x_user: Annotated[str, Header()] = "") -> None:
            await world.stop("guard between", wanted)
            connection.scope["user"] = type("User", (), {"id": x_user})()

        async def after(wanted: Wanted = "") -> AsyncGenerator[None]:
            world.held["guard"] += 1
            try:
                await world.stop("guard after", wanted)
                if wanted == "denied by a guard":
                    raise Deny
                yield
            finally:
                world.held["guard"] -= 1

        async def resource() -> AsyncGenerator[int]:
            world.held["resource"] += 1
            try:
                yield 1
            finally:
                world.held["resource"] -= 1

        async def constructing(wanted: Wanted = "") -> None:
            await world.stop("constructor", wanted)

        async def connecting(wanted: Wanted = "") -> AsyncGenerator[None]:
            world.held["parameter"] += 1
            try:
                await world.stop("parameters", wanted)
                yield
            finally:
                world.held["parameter"] -= 1

        class Member(WebSocketHandler):
            limits = Limits(drain=0.1, on_disconnect=5)

            def __init__(
                self,
                done: Annotated[None, Depends(constructing)],
                number: Annotated[int, ConnectionScoped(resource)],
                wanted: Wanted = "",
            ) -> None:
                self.wanted = wanted
                if wanted == "denied by the constructor":
                    raise Deny
                if wanted == "failed constructor":
                    raise RuntimeError("the constructor failed")

            async def on_connect(self, done: Annotated[None, Depends(connecting)]) -> None:
                world.begun += 1
                await self.join("all")
                await world.stop("on_connect", self.wanted)
                if self.wanted == "closed by the handler":
                    await self.close(4321)

            @on
            async def phase(self, message: Phase) -> None:
                await world.stop(message.name, self.wanted)

            async def on_disconnect(self) -> None:
                world.ended += 1
                await world.stop("on_disconnect", self.wanted)

        router = WebSocketRouter(
            hub=self.hub, guards=[before, self.first, between, limit, after], middleware=self.rates
        )
        router.add_handler(path, Member)
        return router

    def counters(self) -> dict[str, int]:
        """Return everything that is zero when nobody is there."""
        hub = self.hub.stats()
        limits = [each.stats() for each in (self.first, self.per_user, self.single)]
        return {
            "places": sum(each.taken for each in limits),
            "users with places": sum(each.users for each in limits),
            "addresses with places": sum(each.addresses for each in limits),
            "connections that are counted": sum(each.stats().connections for each in self.rates),
            "users that are counted": sum(each.stats().users for each in self.rates),
            "hub connections": hub.connections,
            "hub rooms": hub.rooms,
            "hub users": hub.users,
            "held": self.world.held.total(),
            "without an end": self.world.begun - self.world.ended,
            "tasks of ours": sum(task.get_name().startswith("wsrouter") for task in asyncio.all_tasks()),
        }

    async def all_zero(self, phase: str) -> None:
        try:
            await eventually(lambda: not any(self.counters().values()), PATIENCE)
        except AssertionError:
            left = {name: count for name, count in self.counters().items() if count}
            raise AssertionError(f"after the phase {phase!r} there are left: {left}") from None


async def arrive(client: RawClient, phase: str, number: int, flood: int = FLOOD) -> None:
    """Bring a client into a phase; the server's part of those in `HELD` is waited for by the caller."""
    if phase == "nothing sent":
        return
    path = f"/{'single' if phase == 'replaced' else ''}?phase={quote(phase)}"
    handshake = request(path, [("X-User", "ada" if phase == "replaced" else f"u{number}")])
    if phase == "half a request":
        client.send(handshake[: len(handshake) // 2])
        return
    client.send(handshake)
    if phase in HELD:
        return
    status = await client.answer()
    assert status == (403 if phase.startswith("denied") else 101)
    message = text(f'{{"type":"phase","data":{{"name":"{phase}"}}}}')
    if phase == "message in flight":
        client.send(message)
    if phase == "messages waiting":
        client.send(message * MESSAGES)
    if phase == "too fast":
        client.send(message * flood)
        assert await client.close_code() == 4529
    if phase == "closed by the handler":
        assert await client.close_code() == 4321


def leave(client: RawClient, number: int, *, accepted: bool) -> None:
    """End a connection in one of the ways in which clients do."""
    if number % 3 == 0:
        client.reset()
    elif number % 3 == 1 and accepted:
        client.send(CLOSE)
        client.drop()
    else:
        client.drop()


async def run_phase(subject: Subject, server: Server, phase: str, stack: AsyncExitStack, flood: int) -> None:
    """Open connections, bring them into a phase, and drop them; the shutdown is to end those of the last."""
    world = subject.world
    world.go.clear()
    clients = [await stack.enter_async_context(RawClient(server)) for _ in range(EACH)]
    await asyncio.gather(*(arrive(client, phase, number, flood) for number, client in enumerate(clients)))
    if phase in (*HELD, "on_connect", "message in flight", "messages waiting"):
        await eventually(lambda: world.reached[phase] == EACH, PATIENCE, what=phase)
    if phase == "shutdown":
        await eventually(lambda: subject.hub.stats().connections == EACH, PATIENCE)
        return
    for number, client in enumerate(clients):
        leave(client, number, accepted=phase not in (*HELD, "nothing sent", "half a request"))
    if phase == "on_disconnect":
        await eventually(lambda: world.reached[phase] == EACH, PATIENCE, what=phase)
        assert subject.counters()["places"] == 2 * EACH
        world.go.set()
    if phase == "accept":
        world.go.set()
    await subject.all_zero(phase)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("options", "phases", "flood"),
    [
        ({"ws": "websockets-sansio"}, PHASES, FLOOD),
        ({"ws": "wsproto"}, PHASES, FLOOD),
        # hypercorn cancels at its shutdown, which asyncio logs as errors. And of what comes when an application has
        # closed it keeps ten messages: with more it waits for ever for somebody to read them, and with it the socket.
        ({"server": "hypercorn"}, PHASES[:-1], CLOSE_AT * MESSAGES + 4),
    ],
    ids=["sansio", "wsproto", "hypercorn"],
)
async def test_a_thousand_connections_leave_every_counter_at_zero(
    options: dict[str, Any], phases: Sequence[str], flood: int
) -> None:
    """Whatever phase a connection ends in, and however, places, members, scopes and tasks are gone after."""
    assert EACH * len(phases) >= 1000
    subject = Subject()
    async with AsyncExitStack() as stack:
        async with serve(subject.app, **options) as server:
            started = asyncio.all_tasks()
            for phase in phases:
                await run_phase(subject, server, phase, stack, flood)
            if "shutdown" not in phases:
                await no_task_left(but=started, timeout=PATIENCE)  # hypercorn lets go of a socket after us
        await subject.all_zero("shutdown")
    assert subject.single.stats().replaced == EACH - 1
    assert subject.rates[0].stats().closed == EACH
    assert subject.world.begun >= 9 * EACH


@pytest.mark.logs_errors
async def test_a_constructor_that_fails_gives_everything_back() -> None:
    """An unexpected exception in the constructor is a 500, and nothing stays taken."""
    subject = Subject()
    async with serve(subject.app) as server:
        for number in range(20):
            async with RawClient(server) as client:
                headers = [("X-User", f"u{number}")]
                assert await client.handshake(f"/?phase={quote('failed constructor')}", headers) == 500
        await subject.all_zero("failed constructor")


async def test_a_cancel_from_outside_gives_everything_back() -> None:
    """When the server cancels its handlers at the end of its patience, nothing stays taken."""
    subject = Subject()
    app = Cancelled(subject.app)
    async with serve(app) as server, AsyncExitStack() as stack:
        for number in range(20):
            client = await stack.enter_async_context(RawClient(server))
            await arrive(client, ("idle", "on_connect", "message in flight")[number % 3], number)
        await eventually(lambda: subject.hub.stats().connections == 20)
        app.cancel()
        await subject.all_zero("cancelled")


class Cancelled:
    """Runs the application in tasks that can be cancelled, as a server does when its patience ends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.tasks: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        task = asyncio.create_task(self.run(scope, receive, send))
        self.tasks.append(task)
        await asyncio.wait([task])

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
