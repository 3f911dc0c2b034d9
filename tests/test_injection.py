"""Dependencies of a message: opened for it, closed after it, and told how it ended."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from websockets.asyncio.client import ClientConnection

from tests.injecting import app_of
from tests.support import connect, eventually, serve, vanish
from wsrouter import (
    Deny,
    Limits,
    Message,
    WebSocketError,
    WebSocketHandler,
    on,
)
from wsrouter.testing import WebSocketTestClient


class Session:
    """What a message works with; `number` tells one from another."""

    def __init__(self, number: int) -> None:
        self.number = number


class Sessions:
    """A dependency that yields a session of its own each time, and notes what becomes of them."""

    def __init__(self) -> None:
        self.opened = 0
        self.most = 0
        self.ends: list[str] = []

    @property
    def open(self) -> int:
        return self.opened - len(self.ends)

    def begin(self) -> Session:
        self.opened += 1
        self.most = max(self.most, self.open)
        return Session(self.opened)

    async def __call__(self) -> AsyncIterator[Session]:
        try:
            yield self.begin()
        except BaseException as exc:
            self.ends.append(type(exc).__name__)
            raise
        else:
            self.ends.append("done")

    def sync(self) -> Iterator[Session]:
        """Do the same in the thread pool."""
        try:
            yield self.begin()
        except BaseException as exc:
            self.ends.append(type(exc).__name__)
            raise
        else:
            self.ends.append("done")

    def of_kind(self, kind: str) -> Callable[[], Any]:
        return self if kind == "async" else self.sync


each_kind = pytest.mark.parametrize("kind", ["async", "sync"])


def frame(type: str, id: int | None = None, data: Any = None) -> str:
    return json.dumps({"type": type, "id": id, "data": data} if id is not None else {"type": type, "data": data})


async def receive(ws: ClientConnection) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(await asyncio.wait_for(ws.recv(), 5))
    return envelope


async def call(ws: ClientConnection, type: str, data: Any = None) -> dict[str, Any]:
    """Send a message with an id, and return what comes next."""
    await ws.send(frame(type, 1, data))
    return await receive(ws)


async def send_all(ws: ClientConnection, count: int) -> None:
    for number in range(count):
        await ws.send(frame("use", number))


@each_kind
async def test_every_message_has_a_session_of_its_own(kind: str) -> None:
    """1,000 messages on one connection open and close 1,000 sessions, one at a time."""
    sessions = Sessions()

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, session: Annotated[Session, Depends(sessions.of_kind(kind))]) -> int:
            await asyncio.sleep(0)
            return session.number

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        sending = asyncio.create_task(send_all(ws, 1000))
        answers = [await receive(ws) for _ in range(1000)]
        await sending
    assert answers == [{"type": "$ok", "id": number, "data": number + 1} for number in range(1000)]
    assert sessions.ends == ["done"] * 1000
    assert sessions.most == 1


async def test_no_more_sessions_are_open_than_messages_in_flight() -> None:
    """With max_in_flight = 4, 1,000 messages open 1,000 sessions, four at once and never five."""
    sessions = Sessions()
    four = asyncio.Barrier(4)

    class Handler(WebSocketHandler):
        max_in_flight = 4

        @on("use")
        async def use(self, message: None, session: Annotated[Session, Depends(sessions)]) -> int:
            await four.wait()
            return session.number

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        sending = asyncio.create_task(send_all(ws, 1000))
        answers = [await receive(ws) for _ in range(1000)]
        await sending
    assert sorted(answer["id"] for answer in answers) == list(range(1000))
    assert sorted(answer["data"] for answer in answers) == list(range(1, 1001))
    assert sessions.ends == ["done"] * 1000
    assert sessions.most == 4


@each_kind
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (WebSocketError("conflict", "no"), "conflict"),
        (Deny(403), "forbidden"),
        pytest.param(LookupError("secret"), "internal", marks=pytest.mark.logs_errors),
        pytest.param(ExceptionGroup("many", [LookupError()]), "internal", marks=pytest.mark.logs_errors),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_exception_in_the_method_reaches_the_generator(kind: str, failure: Exception, code: str) -> None:
    """The generator sees the method's own exception at its yield, before the client hears of it."""
    sessions = Sessions()

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, session: Annotated[Session, Depends(sessions.of_kind(kind))]) -> None:
            raise failure

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        answer = await call(ws, "use")
        assert (answer["type"], answer["error"]["code"]) == ("$error", code)
        assert sessions.ends == [type(failure).__name__]
        assert (await call(ws, "use"))["type"] == "$error"
        assert sessions.open == 0


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
async def database(unmeasured: None, tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/lines.sqlite3")
    async with engine.begin() as setup:
        await setup.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, expire_on_commit=False)
    await engine.dispose()


async def test_a_transaction_commits_or_rolls_back_with_its_message(database: async_sessionmaker[AsyncSession]) -> None:
    """A real transaction around each message: what a failed one wrote is gone, what a good one wrote is there."""

    async def transaction() -> AsyncIterator[AsyncSession]:
        async with database.begin() as session:
            yield session

    mark = Depends(transaction)

    class Handler(WebSocketHandler):
        @on("add")
        async def add(self, text: str, session: Annotated[AsyncSession, mark]) -> None:
            session.add(Line(text=text))
            await session.flush()
            if text == "refused":
                raise WebSocketError("invalid", "not this one")

        @on("count")
        async def count(self, message: None, session: Annotated[AsyncSession, mark]) -> int | None:
            return await session.scalar(select(func.count()).select_from(Line))

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        assert await call(ws, "add", "first") == {"type": "$ok", "id": 1}
        assert (await call(ws, "add", "refused"))["error"]["code"] == "invalid"
        assert (await call(ws, "count"))["data"] == 1
        assert await call(ws, "add", "second") == {"type": "$ok", "id": 1}
        assert (await call(ws, "count"))["data"] == 2


@pytest.mark.logs_errors
async def test_a_commit_that_fails_is_what_the_client_hears(database: async_sessionmaker[AsyncSession]) -> None:
    """A commit that breaks a constraint after the method is an error and no $ok, and the connection lives."""

    async def transaction() -> AsyncIterator[AsyncSession]:
        async with database.begin() as session:
            yield session

    class Handler(WebSocketHandler):
        @on("add")
        async def add(self, text: str, session: Annotated[AsyncSession, Depends(transaction)]) -> str:
            session.add(Line(text=text))
            return text

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        assert (await call(ws, "add", "once"))["data"] == "once"
        answer = await call(ws, "add", "once")
        assert answer["error"] == {"code": "internal", "message": "Internal error", "retry": False}
        assert (await call(ws, "add", "twice"))["data"] == "twice"


class Done(Message):
    pass


@each_kind
@pytest.mark.parametrize("returns", ["nothing", "a value", "a message", "a stream"])
@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (WebSocketError("conflict"), "conflict"),
        pytest.param(OSError("disk full"), "internal", marks=pytest.mark.logs_errors),
    ],
    ids=["told", "unexpected"],
)
async def test_a_clean_up_that_fails_replaces_the_reply(kind: str, returns: str, failure: Exception, code: str) -> None:
    """Whatever the method returned, what its dependency's clean-up raised is what the client hears."""

    async def failing() -> AsyncIterator[None]:
        yield
        raise failure

    def failing_in_a_thread() -> Iterator[None]:
        yield
        raise failure

    mark = Depends(failing if kind == "async" else failing_in_a_thread)

    class Handler(WebSocketHandler):
        @on("nothing")
        async def nothing(self, message: None, failing: Annotated[None, mark]) -> None: ...

        @on("a value")
        async def value(self, message: None, failing: Annotated[None, mark]) -> int:
            return 1

        @on("a message")
        async def message(self, message: None, failing: Annotated[None, mark]) -> Done:
            return Done()

        @on("a stream")
        async def stream(self, message: None, failing: Annotated[None, mark]) -> AsyncIterator[int]:
            yield 1

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        await ws.send_json({"type": returns, "id": 1})
        if returns == "a stream":
            assert await ws.receive() == {"type": "$item", "id": 1, "data": 1}
        answer = await ws.receive()
        assert (answer["type"], answer["error"]["code"]) == ("$error", code)
        await ws.expect_nothing()


async def test_a_generator_can_turn_an_exception_into_another() -> None:
    """What a dependency raises in place of the method's exception is what answers the message."""

    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except LookupError:
            raise WebSocketError("not_found", "no such line") from None

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, translating: Annotated[None, Depends(translating)]) -> None:
            raise LookupError

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        await ws.send_json({"type": "use", "id": 1})
        assert (await ws.receive())["error"] == {"code": "not_found", "message": "no such line", "retry": False}


@pytest.mark.logs_errors
async def test_a_generator_that_swallows_an_exception_makes_no_success_of_it() -> None:
    """A dependency that swallows what the method raised does not hide it from the client."""

    async def swallowing() -> AsyncIterator[None]:
        with suppress(LookupError):
            yield

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, swallowing: Annotated[None, Depends(swallowing)]) -> None:
            raise LookupError

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        await ws.send_json({"type": "use", "id": 1})
        assert (await ws.receive())["error"]["code"] == "internal"


class Working:
    """A handler whose method works until it is cancelled, with a session and a stream that do the same."""

    def __init__(self, dependency: Callable[[], Any], *, max_in_flight: int = 1) -> None:
        self.began = asyncio.Event()
        began = self.began
        mark = Depends(dependency)
        most = max_in_flight

        class Handler(WebSocketHandler):
            cancel_on_disconnect = True
            max_in_flight = most

            @on("work")
            async def work(self, message: None, session: Annotated[Session, mark]) -> None:
                began.set()
                await asyncio.Event().wait()

            @on("stream")
            async def stream(self, message: None, session: Annotated[Session, mark]) -> AsyncIterator[int]:
                yield 1
                began.set()
                await asyncio.Event().wait()

            @on("ping")
            async def ping(self, message: None) -> str:
                return "pong"

        self.handler = Handler


@each_kind
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("method", ["work", "stream"])
async def test_cancel_closes_the_session(kind: str, max_in_flight: int, method: str) -> None:
    """$cancel closes what the call had open, before the client hears `cancelled`; the connection goes on."""
    sessions = Sessions()
    working = Working(sessions.of_kind(kind), max_in_flight=max_in_flight)
    async with serve(app_of(working.handler)) as server, connect(server, "/ws") as ws:
        await ws.send(frame(method, 7))
        await asyncio.wait_for(working.began.wait(), 5)
        assert sessions.open == 1
        await ws.send(frame("$cancel", 7))
        if method == "stream":
            assert (await receive(ws))["type"] == "$item"
        assert (await receive(ws))["error"]["code"] == "cancelled"
        assert sessions.ends == ["CancelledError"]
        assert (await call(ws, "ping"))["data"] == "pong"


@each_kind
@pytest.mark.parametrize("max_in_flight", [1, 4])
async def test_a_deadline_closes_the_session(kind: str, max_in_flight: int) -> None:
    """A method that outlives message_timeout is cancelled, its session closed, and the client told `timeout`."""
    sessions = Sessions()
    working = Working(sessions.of_kind(kind), max_in_flight=max_in_flight)
    app = app_of(working.handler, limits=Limits(message_timeout=0.05))
    async with serve(app) as server, connect(server, "/ws") as ws:
        answer = await call(ws, "work")
        assert (answer["error"]["code"], answer["error"]["retry"]) == ("timeout", True)
        assert sessions.ends == ["CancelledError"]
        assert (await call(ws, "ping"))["data"] == "pong"


@each_kind
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("method", ["work", "stream"])
@pytest.mark.parametrize("leave", ["close", "vanish"])
async def test_a_client_that_leaves_closes_the_session(kind: str, max_in_flight: int, method: str, leave: str) -> None:
    """With cancel_on_disconnect a client that leaves, politely or not, has its session closed at once."""
    sessions = Sessions()
    working = Working(sessions.of_kind(kind), max_in_flight=max_in_flight)
    async with serve(app_of(working.handler)) as server:
        ws = await connect(server, "/ws")
        await ws.send(frame(method, 7))
        await asyncio.wait_for(working.began.wait(), 5)
        await (ws.close() if leave == "close" else vanish(ws))
        await eventually(lambda: sessions.open == 0)
    assert sessions.ends == ["CancelledError"]


@pytest.mark.parametrize("place", ["dependency", "method"])
async def test_a_cancel_waits_for_the_thread_before_the_scope_closes(place: str) -> None:
    """A thread can't be cancelled: the session that it uses stays open until it has ended."""
    sessions = Sessions()
    began, go_on = threading.Event(), threading.Event()
    events: list[str] = []

    def use(session: Session) -> None:
        began.set()
        assert go_on.wait(5)
        events.append(f"thread ends, {sessions.open} open")

    def dependency(session: Annotated[Session, Depends(sessions)]) -> None:
        use(session)

    class Handler(WebSocketHandler):
        @on("dependency")
        async def by_dependency(self, message: None, used: Annotated[None, Depends(dependency)]) -> None:
            events.append("method")

        @on("method")
        def by_method(self, message: None, session: Annotated[Session, Depends(sessions)]) -> None:
            use(session)

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        await ws.send(frame(place, 1))
        await eventually(began.is_set)
        await ws.send(frame("$cancel", 1))
        await ws.ping()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.1)
        assert sessions.ends == []
        go_on.set()
        assert (await receive(ws))["error"]["code"] == "cancelled"
    assert events == ["thread ends, 1 open"]
    assert sessions.ends == ["CancelledError"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_clean_up_is_not_cancelled(fails: bool) -> None:
    """A $cancel that comes while a session commits or rolls back neither interrupts that nor changes the reply."""
    ending, go_on = asyncio.Event(), asyncio.Event()
    events: list[str] = []

    async def end(how: str) -> None:
        ending.set()
        await go_on.wait()
        events.append(how)

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except WebSocketError:
            await end("rolled back")
            raise
        await end("committed")

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, transaction: Annotated[None, Depends(transaction)]) -> None:
            if fails:
                raise WebSocketError("conflict")

        @on("ping")
        async def ping(self, message: None) -> None: ...

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        await ws.send(frame("use", 1))
        await asyncio.wait_for(ending.wait(), 5)
        await ws.send(frame("$cancel", 1))
        await ws.send(frame("ping", 2))
        await (await ws.ping())
        go_on.set()
        answer = await receive(ws)
        assert (answer["error"]["code"] == "conflict") if fails else (answer == {"type": "$ok", "id": 1})
        assert await receive(ws) == {"type": "$ok", "id": 2}
    assert events == ["rolled back" if fails else "committed"]
