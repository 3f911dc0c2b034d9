"""What messages share: guard values and what is `ConnectionScoped` are the connection's, all else is their own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI, Query
from websockets.asyncio.client import ClientConnection

from tests.injecting import app_of, call
from tests.support import connect, eventually, serve
from wsrouter import CloseInfo, Connection, ConnectionScoped, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import WebSocketTestClient


class Done(Message):
    pass


class Session:
    """What a message works with; `number` tells one from another."""

    def __init__(self, number: int) -> None:
        self.number = number


class Sessions:
    """A dependency that yields a session of its own each time, and counts them."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0

    async def __call__(self) -> AsyncIterator[Session]:
        self.opened += 1
        self.open += 1
        yield Session(self.opened)
        self.open -= 1


async def use(ws: ClientConnection) -> Any:
    """Send a message, and return the data of its reply."""
    await ws.send('{"type":"use","id":1}')
    return json.loads(await asyncio.wait_for(ws.recv(), 5))["data"]


class Repository:
    def __init__(self, session: Session) -> None:
        self.session = session


async def test_a_dependency_shared_with_the_constructor_gets_the_messages_session() -> None:
    """`repository(session=Depends(...))` is the connection's in the constructor and the message's in a message."""
    sessions = Sessions()
    seen: list[int] = []

    def repository(session: Annotated[Session, Depends(sessions)]) -> Repository:
        return Repository(session)

    class Handler(WebSocketHandler):
        def __init__(self, repository: Annotated[Repository, ConnectionScoped(repository)]) -> None:
            self.repository = repository

        @on("use")
        async def use(
            self,
            message: None,
            repository: Annotated[Repository, Depends(repository)],
            session: Annotated[Session, Depends(sessions)],
            lasting: Annotated[Repository, ConnectionScoped(repository)],
        ) -> list[int]:
            assert repository.session is session
            assert lasting is self.repository
            seen.append(self.repository.session.number)
            return [repository.session.number, sessions.open]

        async def on_disconnect(self, close: CloseInfo) -> None:
            seen.append(sessions.open)

    async with serve(app_of(Handler)) as server:
        async with connect(server, "/ws") as ws:
            assert await use(ws) == [2, 2]
            assert await use(ws) == [3, 2]
            assert sessions.open == 1
        await eventually(lambda: sessions.open == 0)
    assert seen == [1, 1, 1]
    assert sessions.opened == 3


@pytest.mark.parametrize(
    "place", ["guard", "constructor", "on_connect", "method", "middleware", "failure", "on_disconnect"]
)
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("kind", ["marked", "beneath"])
async def test_the_connection_scope_is_closed_in_the_task_that_opened_it(
    place: str, max_in_flight: int, kind: str
) -> None:
    """Wherever it is first needed, even by a message in a task of its own: a cancel scope can be held open in it."""
    tasks: list[asyncio.Task[Any] | None] = []
    events: list[str] = []
    most = max_in_flight

    async def lasting() -> AsyncIterator[object]:
        tasks.append(asyncio.current_task())
        with anyio.CancelScope():
            yield object()
        tasks.append(asyncio.current_task())
        events.append("closed")

    async def beneath(held: Annotated[object, Depends(lasting)]) -> object:
        return held

    mark = ConnectionScoped(lasting if kind == "marked" else beneath)

    async def guard(held: Annotated[object, mark]) -> None: ...

    async def passing(message: Any, connection: Connection, call_next: Any, held: Annotated[object, mark]) -> None:
        await call_next(message)

    class Plain(WebSocketHandler):
        max_in_flight = most

        @on("use")
        async def use(self, message: None) -> None:
            if place == "failure":
                raise LookupError

        async def on_disconnect(self, *args: Any, **kwargs: Any) -> None:
            events.append("on_disconnect")

    class Guarded(Plain):
        guards = [guard]

    class Constructed(Plain):
        def __init__(self, held: Annotated[object, mark]) -> None: ...

    class Connected(Plain):
        async def on_connect(self, held: Annotated[object, mark]) -> None: ...

    class Used(Plain):
        async def use(self, message: None, held: Annotated[object, mark] = None) -> None: ...

    class Between(Plain):
        middleware = [passing]

    class Disconnected(Plain):
        async def on_disconnect(self, held: Annotated[object, mark]) -> None:
            events.append("on_disconnect")

    app = FastAPI()
    router = WebSocketRouter()
    handlers: dict[str, type[WebSocketHandler]] = {
        "guard": Guarded,
        "constructor": Constructed,
        "on_connect": Connected,
        "method": Used,
        "middleware": Between,
        "failure": Plain,
        "on_disconnect": Disconnected,
    }
    router.add_handler("/ws", handlers[place])

    @router.exception_handler(LookupError)
    async def answer(exc: LookupError, held: Annotated[object, mark]) -> Done:
        return Done()

    app.include_router(router)
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        for number in range(4):
            await ws.send_json({"type": "use", "id": number})
        for _ in range(4):
            assert (await ws.receive())["type"] == ("done" if place == "failure" else "$ok")
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]
    assert events == ["on_disconnect", "closed"]


async def test_only_guard_values_and_what_is_connection_scoped_are_shared() -> None:
    """Of guard, its dependency, a ConnectionScoped and a plain one, only what is neither of both runs for messages."""
    calls: list[str] = []

    def noting(name: str) -> Callable[[], object]:
        async def dependency() -> object:
            calls.append(name)
            return object()

        return dependency

    plain, scoped, beneath_guard = noting("plain"), noting("scoped"), noting("beneath the guard")

    async def guard(beneath: Annotated[object, Depends(beneath_guard)]) -> AsyncIterator[object]:
        calls.append("guard")
        yield object()
        calls.append("guard's end")

    class Handler(WebSocketHandler):
        guards = [guard]

        def __init__(
            self,
            value: Annotated[object, Depends(guard)],
            lasting: Annotated[object, ConnectionScoped(scoped)],
            own: Annotated[object, Depends(plain)],
        ) -> None:
            self.shared = (value, lasting)
            self.own = own

        @on("use")
        async def use(
            self,
            message: None,
            value: Annotated[object, Depends(guard)],
            lasting: Annotated[object, ConnectionScoped(scoped)],
            own: Annotated[object, Depends(plain)],
            also: Annotated[object, Depends(beneath_guard)],
        ) -> bool:
            return (value, lasting) == self.shared and own is not self.own

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        assert calls == ["beneath the guard", "guard", "scoped", "plain"]
        calls.clear()
        assert await use(ws) is True
        assert calls == ["plain", "beneath the guard"]
        assert await use(ws) is True
        assert calls == ["plain", "beneath the guard"] * 2
        calls.clear()
    await eventually(lambda: calls == ["guard's end"])


async def test_mutable_parameters_are_not_shared_between_messages() -> None:
    """What one message does to a list of the query, or to a default, is not seen by the next."""

    fallback = ["fallback"]

    async def tags_of(tag: Annotated[list[str], Query()] = fallback) -> list[str]:
        return tag

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, tags: Annotated[list[str], Depends(tags_of)]) -> int:
            before = len(tags)
            tags.append("more")
            return before

    async with WebSocketTestClient(app_of(Handler)) as client:
        for path in ("/ws?tag=a", "/ws"):
            async with client.connect(path) as ws:
                for _ in range(3):
                    assert await call(ws) == 1
