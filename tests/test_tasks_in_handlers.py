"""Timeouts, task groups, cancel scopes and clients behave in a handler as in any endpoint of FastAPI."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import ClientConnection

from tests.support import connect, eventually, serve
from wsrouter import CloseInfo, Connection, ConnectionScoped, WebSocketHandler, WebSocketRouter, on

LONG = 3600.0
Scenario = Callable[[str], Awaitable[str]]
"""Does something, given the address of the server, and says what came of it."""


async def an_expired_timeout(address: str) -> str:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(LONG)
    except TimeoutError:
        return "timed out"
    return "went on"


async def a_timeout_in_the_past(address: str) -> str:
    try:
        async with asyncio.timeout(-1):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    except TimeoutError:
        return "timed out"
    return "went on"


async def a_timeout_that_does_not_expire(address: str) -> str:
    async with asyncio.timeout(LONG):
        await asyncio.sleep(0)
    return "went on"


async def an_inner_timeout(address: str) -> str:
    async with asyncio.timeout(LONG) as outer:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(LONG)
        except TimeoutError:
            return f"inner timed out, outer {outer.expired()}"
    return "went on"


async def an_outer_timeout(address: str) -> str:
    try:
        async with asyncio.timeout(0.01):
            async with asyncio.timeout(LONG):
                await asyncio.sleep(LONG)
    except TimeoutError:
        return "outer timed out"
    return "went on"


async def wait_for(address: str) -> str:
    try:
        await asyncio.wait_for(asyncio.sleep(LONG), 0.01)
    except TimeoutError:
        return "timed out"
    return "went on"


async def a_task_group(address: str) -> str:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(double(number)) for number in range(3)]
    return str([task.result() for task in tasks])


async def a_task_group_with_a_failing_child(address: str) -> str:
    told: list[str] = []

    async def sibling() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            told.append("sibling cancelled")
            raise

    async def failing() -> None:
        await asyncio.sleep(0)
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            group.create_task(failing())
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                told.append("body cancelled")
                raise
    except* LookupError:
        told.append("LookupError")
    return ", ".join(told)


async def fail_after_expired(address: str) -> str:
    try:
        with anyio.fail_after(0.01):
            await anyio.sleep(LONG)
    except TimeoutError:
        return "timed out"
    return "went on"


async def fail_after_not_expired(address: str) -> str:
    with anyio.fail_after(LONG):
        await anyio.lowlevel.checkpoint()
    return "went on"


async def move_on_after(address: str) -> str:
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(LONG)
    return f"moved on: {scope.cancelled_caught}"


async def an_anyio_task_group(address: str) -> str:
    told: list[int] = []

    async def note(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(note, number)
    return str(told)


async def an_anyio_task_group_with_a_failing_child(address: str) -> str:
    async def failing() -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError

    told = "went on"
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(failing)
            await anyio.sleep(LONG)
    except* LookupError:
        told = "LookupError"
    return told


async def an_anyio_task_group_that_is_cancelled(address: str) -> str:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, LONG)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        await anyio.sleep(LONG)
    return f"cancelled: {group.cancel_scope.cancelled_caught}"


async def an_httpx_call(address: str) -> str:
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.get(f"{address}/hello")
    return answer.text


async def an_httpx_call_that_times_out(address: str) -> str:
    async with httpx.AsyncClient(verify=False, timeout=httpx.Timeout(10, read=0.05)) as client:
        try:
            await client.get(f"{address}/never")
        except httpx.ReadTimeout:
            return "timed out"
    return "went on"


async def two_httpx_calls_in_a_task_group(address: str) -> str:
    async with httpx.AsyncClient(verify=False) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.get(f"{address}/hello")) for _ in range(2)]
    return str([task.result().status_code for task in tasks])


async def a_thread(address: str) -> str:
    with anyio.fail_after(LONG):
        return await anyio.to_thread.run_sync(lambda: "from a thread")


async def cancelling_oneself(address: str) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return f"cancelled, {task.uncancel()} left"
    return "went on"


async def a_native_cancel_in_an_anyio_task_group(address: str) -> str:
    """As from a server that stops: no cancel scope of anyio's has asked for it."""
    task = asyncio.current_task()
    assert task is not None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, LONG)
            await anyio.lowlevel.checkpoint()
            asyncio.get_running_loop().call_soon(task.cancel, "stop")
            await anyio.sleep(LONG)
    except asyncio.CancelledError:
        task.uncancel()
        return "cancelled"
    return "swallowed"


async def contexts_of_exceptions(address: str) -> str:
    """What is raised after a suspension that ended with an exception has the context that Python gives it."""
    first = KeyError("first")

    class Cleaning:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *exc: object) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(LONG)
            raise first

    try:
        async with Cleaning():
            raise first
    except KeyError as exc:
        chain: list[str] = []
        found: BaseException | None = exc
        while found is not None:
            chain.append(type(found).__name__)
            found = found.__context__
        return " after ".join(chain)


number: ContextVar[int] = ContextVar("number", default=0)


async def context_variables(address: str) -> str:
    token = number.set(1)
    await asyncio.sleep(0)
    seen = [number.get()]
    async with asyncio.TaskGroup() as group:
        child = group.create_task(asyncio.to_thread(number.get))
    seen.append(child.result())
    number.reset(token)
    return str([*seen, number.get()])


SCENARIOS: list[Scenario] = [
    an_expired_timeout,
    a_timeout_in_the_past,
    a_timeout_that_does_not_expire,
    an_inner_timeout,
    an_outer_timeout,
    wait_for,
    a_task_group,
    a_task_group_with_a_failing_child,
    fail_after_expired,
    fail_after_not_expired,
    move_on_after,
    an_anyio_task_group,
    an_anyio_task_group_with_a_failing_child,
    an_anyio_task_group_that_is_cancelled,
    an_httpx_call,
    an_httpx_call_that_times_out,
    two_httpx_calls_in_a_task_group,
    a_thread,
    cancelling_oneself,
    a_native_cancel_in_an_anyio_task_group,
    contexts_of_exceptions,
    context_variables,
]


async def run(scenario: Scenario, address: str, *, suspends_before: bool) -> str:
    """Return what came of a scenario, and whether the task that it ran in is as it was before."""
    if suspends_before:
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    came = await scenario(address)
    assert asyncio.current_task() is task
    return f"{came}, {task.cancelling() - before} cancellations left"


def app_of(scenario: Scenario, *, suspends_before: bool, max_in_flight: int) -> tuple[FastAPI, dict[str, str]]:
    """Return an application that runs a scenario in an endpoint and in every place of a handler, and what comes."""
    came: dict[str, str] = {}
    most = max_in_flight

    async def ran(place: str, connection: Connection) -> None:
        came[place] = await run(scenario, connection.query_params["address"], suspends_before=suspends_before)

    async def guard(connection: Connection) -> AsyncIterator[None]:
        await ran("guard", connection)
        yield
        await ran("guard's end", connection)

    async def constructing(connection: Connection) -> None:
        await ran("constructor's dependency", connection)

    async def lasting(connection: Connection) -> AsyncIterator[None]:
        await ran("connection scope", connection)
        yield
        await ran("connection scope's end", connection)

    async def of_message(connection: Connection) -> AsyncIterator[None]:
        await ran("message's dependency", connection)
        yield
        await ran("message's dependency's end", connection)

    async def passing(message: Any, connection: Connection, call_next: Any) -> None:
        await ran("middleware", connection)
        await call_next(message)
        await ran("middleware's end", connection)

    class Plain(WebSocketHandler):
        """Without middleware: its method is awaited as it is."""

        max_in_flight = most

        @on("use")
        async def use(self, message: None) -> None:
            await ran("plain method", self.connection)

    class Handler(WebSocketHandler):
        guards = [guard]
        middleware = [passing]
        max_in_flight = most

        def __init__(
            self,
            constructing: Annotated[None, Depends(constructing)],
            lasting: Annotated[None, ConnectionScoped(lasting)],
        ) -> None: ...

        async def on_connect(self) -> None:
            await ran("on_connect", self.connection)

        @on("use")
        async def use(self, message: None, of_message: Annotated[None, Depends(of_message)]) -> None:
            await ran("method", self.connection)

        @on("stream")
        async def stream(self, message: None) -> AsyncIterator[int]:
            yield 1
            await ran("stream", self.connection)
            yield 2

        async def on_disconnect(self, close: CloseInfo) -> None:
            await ran("on_disconnect", self.connection)

    app = FastAPI()
    router = WebSocketRouter()
    router.add_handler("/plain", Plain)
    router.add_handler("/ws", Handler)
    app.include_router(router)

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/never")
    async def never() -> None:
        await asyncio.sleep(0.3)

    @app.get("/endpoint")
    async def endpoint(address: str) -> str:
        return await run(scenario, address, suspends_before=suspends_before)

    return app, came


async def use(ws: ClientConnection, type: str) -> None:
    """Send a message, and wait until it is answered."""
    await ws.send(json.dumps({"type": type, "id": type}))
    while json.loads(await asyncio.wait_for(ws.recv(), 10)) != {"type": "$ok", "id": type}:
        pass


@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("suspends_before", [False, True], ids=["at once", "after a suspension"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_it_behaves_as_in_an_endpoint(scenario: Scenario, suspends_before: bool, max_in_flight: int) -> None:
    """In every place of a handler the same comes of it as in a plain endpoint, and no cancellation is left behind."""
    app, came = app_of(scenario, suspends_before=suspends_before, max_in_flight=max_in_flight)
    async with serve(app) as server:
        address = server.http("")
        async with httpx.AsyncClient(verify=False) as client:
            answer = await client.get(server.http("/endpoint"), params={"address": address})
        expected = answer.json()
        assert expected.endswith(", 0 cancellations left")
        async with connect(server, f"/plain?address={address}") as ws:
            await use(ws, "use")
        async with connect(server, f"/ws?address={address}") as ws:
            await use(ws, "use")
            await use(ws, "stream")
        await eventually(lambda: "guard's end" in came, 10)
    places = [
        "guard",
        "constructor's dependency",
        "connection scope",
        "on_connect",
        "middleware",
        "message's dependency",
        "method",
        "message's dependency's end",
        "middleware's end",
        "stream",
        "on_disconnect",
        "connection scope's end",
        "guard's end",
        "plain method",
    ]
    assert came == dict.fromkeys(places, expected)


@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_cancel_goes_through_them_to_the_end(max_in_flight: int) -> None:
    """A $cancel that finds a method deep in timeouts, scopes and groups cancels it once, and is no TimeoutError."""
    began = asyncio.Event()
    told: list[str] = []
    most = max_in_flight

    async def child() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            told.append("child")

    class Handler(WebSocketHandler):
        max_in_flight = most

        @on("use")
        async def use(self, message: None) -> None:
            task = asyncio.current_task()
            assert task is not None
            try:
                async with asyncio.timeout(LONG), asyncio.TaskGroup() as group, anyio.create_task_group() as other:
                    group.create_task(child())
                    other.start_soon(child)
                    with anyio.fail_after(LONG):
                        began.set()
                        await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                told.append(f"cancelled {task.cancelling()}")
                raise

        @on("ping")
        async def ping(self, message: None) -> str:
            async with asyncio.timeout(LONG):
                await asyncio.sleep(0)
            with anyio.fail_after(LONG):
                await asyncio.sleep(0)
            return "pong"

    app = FastAPI()
    router = WebSocketRouter()
    router.add_handler("/ws", Handler)
    app.include_router(router)
    async with serve(app) as server, connect(server, "/ws") as ws:
        await ws.send('{"type":"use","id":1}')
        await asyncio.wait_for(began.wait(), 5)
        await ws.send('{"type":"$cancel","id":1}')
        assert json.loads(await ws.recv())["error"]["code"] == "cancelled"
        await ws.send('{"type":"ping","id":1}')
        assert json.loads(await ws.recv())["data"] == "pong"
    assert sorted(told) == ["cancelled 1", "child", "child"]
