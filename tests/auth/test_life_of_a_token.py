"""JSON Web Tokens on open connections: 4519 when one ends, wherever it came from, and ``$auth`` with the next."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal, get_args

import httpx
import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import ClientConnection

from tests.auth.tokens import SECRET, token
from tests.envelopes import close_of, receive, send
from tests.support import Server, connect, serve
from wsrouter import Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Cookie, Header, JWTAuth, Principal, Ticket
from wsrouter.guards import AllowOrigins, RequireScopes

Asked = Literal["guard", "constructor", "on_connect", "FastAPI's own dependency"]

ORIGIN = "https://app.example"
ATTEMPTS = 3
"""How often something may take too long because the machine has more to do."""


class Write(Message):
    pass


class Here:
    """One handler behind a `JWTAuth` that is asked in one place."""

    def __init__(self, asked: Asked = "guard", *, grace: float = 0.2, leeway: float = 0) -> None:
        self.tickets = Ticket()
        sources = [Header(), Cookie("session"), self.tickets]
        auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=sources, expiry_grace=grace, leeway=leeway)

        class Desk(WebSocketHandler):
            @on(guards=[RequireScopes("write")])
            async def write(self, message: Write) -> str:
                return str(self.user.id)

        class Constructed(Desk):
            def __init__(self, user: Annotated[Principal, Depends(auth)]) -> None: ...

        class Greeting(Desk):
            async def on_connect(self, user: Annotated[Principal, Depends(auth)]) -> None: ...

        guards: list[Any] = [AllowOrigins(ORIGIN)]
        if asked == "guard":
            guards.append(auth)
        router = WebSocketRouter(prefix="/ws", guards=guards)
        handlers: dict[Asked, type[Desk]] = {"constructor": Constructed, "on_connect": Greeting}
        router.add_handler("", handlers.get(asked, Desk))
        self.app = FastAPI()
        outside = [Depends(auth)] if asked == "FastAPI's own dependency" else None
        self.app.include_router(router, dependencies=outside)

        @self.app.post("/ticket")
        async def issue(user: Annotated[Principal, Depends(auth)]) -> str:
            return await self.tickets.issue(user, path="/ws", origin=ORIGIN)

        @self.app.get("/draft", dependencies=[Depends(auth), Depends(RequireScopes("write"))])
        async def draft() -> str:
            return "draft"

    def connect(self, server: Server, credential: str, **headers: str) -> Any:
        given = {"Authorization": f"Bearer {credential}", "Origin": ORIGIN, **headers}
        return connect(server, "/ws", additional_headers=given)


def lasting(seconds: float, **claims: Any) -> str:
    """Return a token that ends after so many seconds; PyJWT cuts off the fraction of `exp`, so not less than two."""
    given: dict[str, Any] = {"exp": time.time() + seconds, "sub": "ada", **claims}
    return token(**given)


async def auth(ws: ClientConnection, credential: str) -> Any:
    await send(ws, "$auth", {"token": credential}, id="auth")
    return await receive(ws)


async def write(ws: ClientConnection) -> Any:
    await send(ws, "write", {}, id="write")
    answer = await receive(ws)
    return answer["data"] if answer["type"] == "$ok" else answer["error"]["code"]


async def test_it_ends_with_its_token_wherever_that_is_asked_for() -> None:
    """4519 within a second of `exp` and grace, and not before; `$auth` in time puts it off."""

    async def ends_in_time(here: Here, server: Server) -> None:
        late = 0.0
        for _ in range(ATTEMPTS):
            ends = time.time() + 2
            async with here.connect(server, token(exp=ends, sub="ada")) as ws:
                assert await close_of(ws) == (4519, "the credential has expired")
                late = time.time() - ends
            assert late >= 0.5
            if late < 1.5:
                return
        pytest.fail(f"closed {late} s after exp, in the last of {ATTEMPTS} attempts")

    async def is_put_off(here: Here, server: Server) -> None:
        async with here.connect(server, lasting(2)) as ws:
            assert (await auth(ws, lasting(4, scope="write")))["type"] == "$ok"
            with pytest.raises(TimeoutError):
                await receive_within(ws, 3)
            assert await write(ws) == "ada"
            assert (await close_of(ws))[0] == 4519

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for asked in get_args(Asked):
            here = Here(asked, grace=0.5)
            server = await stack.enter_async_context(serve(here.app))
            for life in (ends_in_time, is_put_off):
                group.create_task(life(here, server), name=f"{life.__name__}, asked in {asked}")


async def test_leeway_puts_off_the_end() -> None:
    """A token that is let in within the leeway keeps its connection until leeway and grace are over."""
    here = Here(grace=0.5, leeway=2)
    async with serve(here.app) as server:
        ended = int(time.time()) - 1
        async with here.connect(server, token(exp=ended, sub="ada", scope="write")) as ws:
            assert await write(ws) == "ada"
            assert (await close_of(ws))[0] == 4519
            assert ended + 2.5 <= time.time() < ended + 3.5


async def receive_within(ws: ClientConnection, seconds: float) -> Any:
    return await asyncio.wait_for(ws.recv(), seconds)


async def test_scopes_follow_the_token() -> None:
    """A method's guard goes by the token that rules now, with more scopes and with less."""
    here = Here()
    async with serve(here.app) as server, here.connect(server, lasting(60)) as ws:
        assert await write(ws) == "forbidden"
        assert (await auth(ws, lasting(60, scope="read write")))["type"] == "$ok"
        assert await write(ws) == "ada"
        assert (await auth(ws, lasting(60, scope="read")))["type"] == "$ok"
        assert await write(ws) == "forbidden"


async def test_another_subject_s_token_does_not_take_over() -> None:
    """Refused, the user and scopes stay what they were, and so does the end of the connection."""
    here = Here()
    async with serve(here.app) as server, here.connect(server, lasting(2)) as ws:
        for claims, code in (
            ({"sub": "eve"}, "forbidden"),
            ({"sub": "ADA"}, "forbidden"),
            ({"iss": "https://other.example"}, "forbidden"),
            ({"exp": 1}, "unauthenticated"),
        ):
            answer = await auth(ws, lasting(60, scope="write", **claims))
            assert (answer["type"], answer["error"]["code"]) == ("$error", code)
            assert await write(ws) == "forbidden"
        assert (await close_of(ws))[0] == 4519


async def test_a_connection_by_ticket_is_renewed_by_a_token() -> None:
    """A ticket lives for one handshake; what it gave lives as long as the token behind it, and is renewed like it."""
    here = Here()
    async with serve(here.app) as server, httpx.AsyncClient() as http:
        headers = {"Authorization": f"Bearer {lasting(2, scope='write')}"}
        ticket = (await http.post(server.http("/ticket"), headers=headers)).json()
        async with connect(server, f"/ws?ticket={ticket}", additional_headers={"Origin": ORIGIN}) as ws:
            assert await write(ws) == "ada"
            assert (await auth(ws, lasting(4)))["type"] == "$ok"
            with pytest.raises(TimeoutError):
                await receive_within(ws, 2.7)
            assert await write(ws) == "forbidden"
            assert (await close_of(ws))[0] == 4519


async def test_a_cookie_s_token_needs_an_origin() -> None:
    """With a cookie source nobody without an `Origin` gets in; with one the cookie's token lives as any other."""
    here = Here()
    async with serve(here.app) as server:
        cookie = {"Cookie": f"session={lasting(2)}"}
        with pytest.raises(Exception, match="403"):
            await connect(server, "/ws", additional_headers=cookie)
        async with connect(server, "/ws", additional_headers={**cookie, "Origin": ORIGIN}) as ws:
            assert (await close_of(ws))[0] == 4519


async def test_scopes_hold_on_http_routes_too() -> None:
    """The same authenticator and the same guard are dependencies of an HTTP route."""
    here = Here()
    async with serve(here.app) as server, httpx.AsyncClient(base_url=server.http("")) as http:
        for scope, status in (("write", 200), ("read", 403)):
            headers = {"Authorization": f"Bearer {lasting(60, scope=scope)}"}
            answer = await http.get("/draft", headers=headers)
            assert answer.status_code == status
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert (await http.get("/draft")).status_code == 401


async def test_nothing_of_a_refused_token_is_answered() -> None:
    """What answers ``$auth`` names neither the token nor what is in it."""
    here = Here()
    async with serve(here.app) as server, here.connect(server, lasting(60)) as ws:
        credential = lasting(60, sub="mallory-was-here")
        answer = json.dumps(await auth(ws, credential))
        assert "mallory" not in answer
        assert credential.split(".")[1] not in answer
