"""A connection that somebody ends before it is accepted is denied, whatever its guards say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import connect, eventually, serve
from wsrouter import Connection, ConnectionScoped, Hub, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Authenticator

Place = Literal["guard", "constructor", "on_connect"]


class User:
    id = "ann"


class Admission:
    """An application whose handshake waits in one place until it is told to go on."""

    def __init__(self, place: Place, reject: Literal["http", "close"]) -> None:
        self.hub = Hub()
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.calls: list[str] = []
        admission = self

        async def know() -> User:
            return User()

        know.gives_user = True  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]

        async def wait(at: Place) -> None:
            if at == place:
                admission.waits.set()
                await admission.go_on.wait()
            admission.calls.append(at)

        async def guard() -> None:
            await wait("guard")

        async def hold() -> AsyncIterator[None]:
            try:
                yield
            finally:
                admission.calls.append("let go")

        async def for_constructor(held: Annotated[None, ConnectionScoped(hold)]) -> None:
            await wait("constructor")

        async def for_on_connect() -> None:
            await wait("on_connect")

        class Member(WebSocketHandler):
            def __init__(self, waited: Annotated[None, Depends(for_constructor)]) -> None: ...

            async def on_connect(self, waited: Annotated[None, Depends(for_on_connect)]) -> None:
                admission.calls.append("connected")

        router = WebSocketRouter(hub=self.hub, guards=[know, guard], reject=reject)
        router.add_handler("/", Member)
        self.app = FastAPI()
        self.app.include_router(router)


@pytest.mark.parametrize("place", ["guard", "constructor", "on_connect"])
@pytest.mark.parametrize("code", [4403, 4401, 4999])
async def test_a_user_who_is_disconnected_during_the_handshake_is_denied(place: Place, code: int) -> None:
    """Once a guard has said who it is, `disconnect_user` reaches the handshake, wherever it waits."""
    admission = Admission(place, "http")
    async with serve(admission.app) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await asyncio.wait_for(admission.waits.wait(), 5)
        await admission.hub.disconnect_user("ann", code=code, reason="gone")
        admission.go_on.set()
        with pytest.raises(InvalidStatus) as denied:
            await opening
        assert denied.value.response.status_code == {4403: 403, 4401: 401, 4999: 403}[code]
        assert b'"detail": "gone"' in (denied.value.response.body or b"")
        await eventually(lambda: not admission.hub.stats().users)
    assert "connected" not in admission.calls
    assert ("let go" in admission.calls) is (place != "guard")


@pytest.mark.parametrize("listed", [True, False])
async def test_so_is_one_whose_user_is_found_out_later(listed: bool) -> None:
    """Who looked up the user before they were disconnected, and learns of it after, lets nobody in; a new one may."""
    hub, looked, go_on = Hub(), asyncio.Event(), asyncio.Event()

    class Account(Authenticator):
        async def __call__(self) -> User:
            looked.set()
            await go_on.wait()
            return User()

    account = Account()

    class Member(WebSocketHandler):
        def __init__(self, user: Annotated[User, Depends(account)]) -> None: ...

    router = WebSocketRouter(hub=hub, guards=[account] if listed else [])
    router.add_handler("/", Member)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await asyncio.wait_for(looked.wait(), 5)
        await hub.disconnect_user("ann", reason="gone")
        await hub.disconnect_user("bob")
        go_on.set()
        if listed:
            with pytest.raises(InvalidStatus) as denied:
                await opening
            assert b'"detail": "gone"' in (denied.value.response.body or b"")
        else:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for((await opening).recv(), 5)
        await eventually(lambda: not hub.stats().users)
        async with connect(server):
            await eventually(lambda: hub.stats().users == 1)


async def test_it_reads_the_code_where_a_denial_is_a_close() -> None:
    """With ``reject="close"`` the client gets the code and reason that `disconnect_user` was called with."""
    admission = Admission("constructor", "close")
    async with serve(admission.app) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await asyncio.wait_for(admission.waits.wait(), 5)
        await admission.hub.disconnect_user("ann", code=4409, reason="elsewhere")
        admission.go_on.set()
        ws = await opening
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(ws.recv(), 5)
        assert (ws.close_code, ws.close_reason) == (4409, "elsewhere")


async def test_a_user_whom_a_middleware_knows_is_reached_from_the_first_guard_on() -> None:
    """What an ASGI middleware has put into ``scope["user"]`` counts before any guard has run."""
    hub, waits, go_on = Hub(), asyncio.Event(), asyncio.Event()

    async def guard(connection: Connection) -> None:
        waits.set()
        await go_on.wait()

    router = WebSocketRouter(hub=hub, guards=[guard])
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)

    class Known:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                scope["user"] = User()
            await self.app(scope, receive, send)

    app.add_middleware(Known)
    async with serve(app) as server:
        opening = asyncio.ensure_future(connect(server).__aenter__())
        await asyncio.wait_for(waits.wait(), 5)
        assert hub.stats().users == 1
        await hub.disconnect_user("ann")
        go_on.set()
        with pytest.raises(InvalidStatus):
            await opening
        await eventually(lambda: not hub.stats().users)


@pytest.mark.parametrize("end", ["denied", "left", "failed"])
@pytest.mark.logs_errors
async def test_a_handshake_that_fails_leaves_nothing_in_the_hub(end: str) -> None:
    """Whoever was recognised and not let in is not a user of the hub any more."""
    hub, waits = Hub(), asyncio.Event()

    async def know() -> Any:
        return User()

    know.gives_user = True  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]

    async def guard() -> None:
        if end == "left":
            waits.set()
            await asyncio.Event().wait()
        raise LookupError if end == "failed" else PermissionError

    router = WebSocketRouter(hub=hub, guards=[know, guard])
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        if end == "left":
            opening = asyncio.ensure_future(connect(server).__aenter__())
            await asyncio.wait_for(waits.wait(), 5)
            assert hub.stats().users == 1
            opening.cancel()
        else:
            with pytest.raises(InvalidStatus):
                await connect(server)
        await eventually(lambda: not hub.stats().users)
