"""A ``CancelledError`` that nobody sent to a connection: of a task that was awaited, and was cancelled."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.envelopes import app_of, client_of, close_of, receive, send
from tests.support import connect, eventually, serve
from wsrouter import CloseInfo, ConnectionScoped, Deny, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator, Principal

pytestmark = pytest.mark.logs_errors


async def fails() -> None:
    raise KeyError("of the task group")


async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as tasks:
        yield tasks


class Fatal(BaseException):
    """No failure of a message: what ends more than that, as `SystemExit` does."""


def noting(app: ASGIApp, raised: list[BaseException]) -> ASGIApp:
    """Note what an application raises; only `Fatal`, which would end the tests too, goes no further."""

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except BaseException as exc:
            raised.append(exc)
            if not isinstance(exc, Fatal):
                raise

    return around


async def test_a_task_group_of_the_connection_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The client hears that something went wrong, not that the server stops, and the server of no cancellation."""
    left: list[CloseInfo] = []

    class Working(WebSocketHandler):
        def __init__(self, tasks: Annotated[asyncio.TaskGroup, ConnectionScoped(group)]) -> None:
            self.tasks = tasks

        @on("work")
        async def work(self, payload: None) -> None:
            self.tasks.create_task(fails())

        async def on_disconnect(self, close: CloseInfo) -> None:
            left.append(close)

    raised: list[BaseException] = []
    async with serve(noting(app_of(Working), raised)) as server, connect(server) as ws:
        await send(ws, "work")
        assert await close_of(ws) == (1011, "internal error")
        await eventually(lambda: bool(left) and bool(logged(caplog)))
    assert (left[0].code, left[0].by) == (1011, "server")
    assert logged(caplog) == [ExceptionGroup]
    assert raised == []


async def test_what_is_no_exception_reaches_the_server() -> None:
    """It is not answered, and not kept either: the connection is closed, let go of, and the server hears of it."""
    left: list[CloseInfo] = []
    raised: list[BaseException] = []

    class Ending(WebSocketHandler):
        @on("end")
        async def end(self, payload: None) -> None:
            raise Fatal

        async def on_disconnect(self, close: CloseInfo) -> None:
            left.append(close)

    async with serve(noting(app_of(Ending), raised)) as server, connect(server) as ws:
        await send(ws, "end")
        assert (await close_of(ws))[0] == 1012
        await eventually(lambda: bool(raised))
    assert [close.code for close in left] == [1012]


async def cancelled() -> None:
    """Await a task that was cancelled, as one that others share may be."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


async def ends_badly() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await cancelled()


def logged(caplog: pytest.LogCaptureFixture) -> list[type[BaseException] | None]:
    """Return what is logged as an error with its traceback."""
    records = [each for each in caplog.records if each.name == "wsrouter" and each.levelno == logging.ERROR]
    return [each.exc_info[0] for each in records if each.exc_info]


class Quiet(WebSocketHandler):
    pass


class InConstructor(WebSocketHandler):
    def __init__(self, _: Annotated[None, Depends(cancelled)]) -> None: ...


class BeforeConnect(WebSocketHandler):
    async def on_connect(self, _: Annotated[None, Depends(cancelled)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "guards"),
    [(Quiet, [cancelled]), (InConstructor, []), (BeforeConnect, [])],
    ids=["guard", "constructor", "on_connect"],
)
async def test_before_accept_it_denies(
    handler: type[WebSocketHandler], guards: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is a failure like any other: 500 in the router's own words, and a traceback in the log."""
    async with serve(app_of(handler, guards=guards)) as server:
        with pytest.raises(InvalidStatus) as denied:
            await connect(server)
    assert denied.value.response.status_code == 500
    assert denied.value.response.body == b'{"code": "internal", "detail": "Internal Server Error"}'
    assert logged(caplog) == [asyncio.CancelledError]


async def test_a_browser_learns_of_it() -> None:
    """Where a denial is accepted and closed, it is closed with 1011."""
    async with client_of(Quiet, guards=[cancelled], reject="close") as ws:
        assert await close_of(ws) == (1011, "Internal Server Error")


async def test_letting_go_of_who_is_denied(caplog: pytest.LogCaptureFixture) -> None:
    """A guard that ends so after another has denied does not change the denial, and is logged."""

    async def deny() -> None:
        raise Deny(401)

    async with serve(app_of(Quiet, guards=[ends_badly, deny])) as server:
        with pytest.raises(InvalidStatus) as denied:
            await connect(server)
        await eventually(lambda: logged(caplog))
    assert denied.value.response.status_code == 401
    assert logged(caplog) == [asyncio.CancelledError]


class Leaves(WebSocketHandler):
    async def on_disconnect(self) -> None:
        await cancelled()


class Lets(WebSocketHandler):
    def __init__(self, _: Annotated[None, ConnectionScoped(ends_badly)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "guards"), [(Leaves, []), (Lets, []), (Quiet, [ends_badly])], ids=["on_disconnect", "scope", "guard"]
)
async def test_at_the_end_it_is_logged(
    handler: type[WebSocketHandler], guards: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """`on_disconnect` and what is released fail by it; the rest is released, and the server hears nothing of it."""
    released: list[str] = []

    async def first() -> AsyncIterator[None]:
        try:
            yield
        finally:
            released.append("first")

    async with serve(app_of(handler, guards=[first, *guards])) as server:
        async with connect(server):
            pass
        await eventually(lambda: logged(caplog))
    assert released == ["first"]
    assert logged(caplog) == [asyncio.CancelledError]
    assert not [each for each in caplog.records if each.name.startswith("uvicorn") and each.levelno >= logging.ERROR]


class Oops(Exception):
    pass


class Sorry(Message):
    pass


async def test_in_an_exception_handler(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails by it is answered as if the method had, and the connection lives."""
    router = WebSocketRouter()

    @router.exception_handler(Oops)
    async def answer(exc: Oops) -> None:
        await cancelled()

    @router.handler("/")
    class Failing(WebSocketHandler):
        @on("fail")
        async def fail(self, message: None) -> None:
            raise Oops

    async with client_of(router) as ws:
        for id in 1, 2:
            await send(ws, "fail", id=id)
            assert (await receive(ws))["error"]["code"] == "internal"
    assert logged(caplog) == [asyncio.CancelledError] * 2


class Fickle(Authenticator):
    """Is cancelled when it asks again, and when it renews or a guard does."""

    revalidate_every = 0.02

    def __init__(self, *, renews: bool) -> None:
        self.asked = 0
        self.revalidate = self.ask
        self._renews = renews

    async def __call__(self) -> Principal:
        return Principal("ann")

    async def ask(self) -> None:
        self.asked += 1
        await cancelled()

    async def renew(self, connection: Any, token: str) -> Principal:
        if not self._renews:
            await cancelled()
        return Principal("ann")


async def test_asking_again_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """One attempt that fails by it is logged, and the next one comes in its time."""
    fickle = Fickle(renews=True)
    async with client_of(Quiet, guards=[fickle]):
        await eventually(lambda: fickle.asked >= 3)
    assert set(logged(caplog)) == {asyncio.CancelledError}


@pytest.mark.parametrize("renews", [True, False])
async def test_a_renewal_is_answered(renews: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An authenticator that fails by it answers `internal`, a guard that runs again closes with 1011."""
    fickle = Fickle(renews=renews)
    fickle.revalidate = None
    passed: list[int] = []

    async def guard(_: Annotated[Principal, Depends(fickle)]) -> None:
        passed.append(1)
        if len(passed) > 1:
            await cancelled()

    async with client_of(Quiet, guards=[fickle, guard]) as ws:
        await send(ws, "$auth", {"token": "fresh"}, id=1)
        if renews:
            assert await close_of(ws) == (1011, "internal error")
        else:
            assert (await receive(ws))["error"]["code"] == "internal"
            await send(ws, "$auth", {"token": "fresh"}, id=1)
            assert (await receive(ws))["error"]["code"] == "internal"
    assert set(logged(caplog)) == {asyncio.CancelledError}
