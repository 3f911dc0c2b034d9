"""What a fresh token gives is given when all guards have let it in: until then only they see it."""

import asyncio
import time
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection

from tests.auth.tokens import SECRET, token
from tests.envelopes import close_of, receive, send
from tests.support import Server, connect, serve
from wsrouter import Connection, Deny, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import JWTAuth, Principal, Query
from wsrouter.guards import RequireScopes

REVOKED = "revoked"

auth = JWTAuth(key=SECRET, algorithms=["HS256"], expiry_grace=0)
partner = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Query("partner")])


class Wipe(Message):
    pass


class Rights(Message):
    pass


class Watch(Message):
    pass


class Partner(Message):
    pass


class Here:
    """One handler behind a guard that asks somebody else, for as long as the test likes, whether a token is revoked."""

    def __init__(self, *guards: Any) -> None:
        here = self
        self.asked = asyncio.Event()
        self.answered = asyncio.Event()
        self.watching = asyncio.Event()
        self.seen: list[list[str]] = []
        self.wiped = 0

        async def not_revoked(principal: Annotated[Principal, Depends(auth)]) -> frozenset[str]:
            if "jti" in principal.claims:
                here.asked.set()
                await here.answered.wait()
                if principal.claims["jti"] == REVOKED:
                    raise Deny
            return principal.scopes

        class Board(WebSocketHandler):
            max_in_flight = 4

            @on(guards=[RequireScopes("admin")])
            async def wipe(self, message: Wipe) -> None:
                here.wiped += 1

            @on
            async def rights(
                self,
                message: Rights,
                principal: Annotated[Principal, Depends(auth)],
                checked: Annotated[frozenset[str], Depends(not_revoked)],
                http: HTTPConnection,
            ) -> list[list[str]]:
                users = (self.user, self.connection.user, principal, http.scope["user"])
                return [*(sorted(each.scopes) for each in users), sorted(checked)]

            @on
            async def watch(self, message: Watch) -> None:
                here.watching.set()
                await here.answered.wait()
                here.seen.append(sorted(self.user.scopes))

            @on
            async def partner(self, message: Partner, found: Annotated[Principal, Depends(partner)]) -> str:
                return found.id

        router = WebSocketRouter(guards=[auth, not_revoked, *guards])
        router.add_handler("/", Board)
        self.app = FastAPI()
        self.app.include_router(router)


def arrive(server: Server, path: str = "/", seconds: float = 60) -> Any:
    credential = token(sub="ada", exp=time.time() + seconds)
    return connect(server, path, additional_headers={"Authorization": f"Bearer {credential}"})


async def ask(ws: ClientConnection, type: str) -> Any:
    await send(ws, type, {}, id=type)
    answer = await receive(ws)
    return answer["error"]["code"] if answer["type"] == "$error" else answer.get("data", answer["type"])


async def renew(ws: ClientConnection, **claims: Any) -> None:
    await send(ws, "$auth", {"token": token(sub="ada", scope="admin", **claims)}, id="$auth")


async def test_a_token_that_a_guard_denies_gives_no_rights_meanwhile() -> None:
    """A message that comes right behind ``$auth`` has the old rights while a guard still asks about the new ones."""
    here = Here()
    async with serve(here.app) as server, arrive(server) as ws:
        await renew(ws, jti=REVOKED)
        await here.asked.wait()
        assert await ask(ws, "wipe") == "forbidden"
        assert await ask(ws, "rights") == [[]] * 5
        here.answered.set()
        assert (await close_of(ws))[0] == 4403
    assert here.wiped == 0


async def test_a_method_at_work_sees_the_old_user_until_guards_have_passed() -> None:
    """Also one that began before and looks at its user again; when all have passed everybody sees the new one."""
    here = Here()
    async with serve(here.app) as server, arrive(server) as ws:
        await send(ws, "watch", {}, id="watch")
        await here.watching.wait()
        await renew(ws, jti="fresh")
        await here.asked.wait()
        assert await ask(ws, "rights") == [[]] * 5
        here.answered.set()
        answers = [await receive(ws), await receive(ws)]
        assert {answer["id"]: answer["type"] for answer in answers} == {"watch": "$ok", "$auth": "$ok"}
        assert await ask(ws, "rights") == [["admin"]] * 5
        assert await ask(ws, "wipe") == "$ok"


async def by_connection(connection: Connection) -> Any:
    await asyncio.sleep(0)
    return connection.user


async def by_http(http: HTTPConnection) -> Any:
    return http.scope["user"]


async def by_websocket(websocket: WebSocket) -> Any:
    return websocket.user


def in_a_thread(connection: Connection) -> Any:
    return connection.user


async def by_a_task(connection: Connection) -> Any:
    return await asyncio.create_task(by_connection(connection))


@pytest.mark.parametrize("find", [by_connection, by_http, by_websocket, in_a_thread, by_a_task])
async def test_guards_see_the_new_user(find: Any) -> None:
    """However they look, in a thread and in a task of their own too."""
    seen: list[list[str]] = []

    async def guard(user: Annotated[Any, Depends(find)]) -> None:
        seen.append(sorted(user.scopes))

    here = Here(guard)
    here.answered.set()
    async with serve(here.app) as server, arrive(server) as ws:
        await renew(ws, jti="fresh")
        assert (await receive(ws))["type"] == "$ok"
    assert seen == [[], ["admin"]]


async def test_what_a_guard_notes_in_the_scope_stays_if_all_pass() -> None:
    """A guard that makes something else the user, as many applications do, does so for the fresh token too."""

    class Account:
        def __init__(self, id: str, scopes: frozenset[str]) -> None:
            self.id = id
            self.scopes = scopes

    async def account(connection: Connection, principal: Annotated[Principal, Depends(auth)]) -> None:
        connection.scope["user"] = Account(f"account of {principal.id}", principal.scopes)

    here = Here(account)
    async with serve(here.app) as server, arrive(server) as ws:
        await renew(ws, jti="fresh")
        await here.asked.wait()
        assert await ask(ws, "rights") == [[]] * 5
        here.answered.set()
        assert (await receive(ws))["type"] == "$ok"
        assert await ask(ws, "rights") == [["admin"]] * 5


async def test_who_is_found_meanwhile_stays_found() -> None:
    """A message may ask another authenticator while guards run; its token ends the connection as ever."""
    here = Here()
    ends = token(sub="partner", exp=time.time() + 2)
    async with serve(here.app) as server, arrive(server, f"/?partner={ends}") as ws:
        await renew(ws, jti="fresh")
        await here.asked.wait()
        assert await ask(ws, "partner") == "partner"
        here.answered.set()
        assert (await receive(ws))["type"] == "$ok"
        assert await ask(ws, "partner") == "partner"


async def test_the_end_is_put_off_when_guards_have_passed() -> None:
    """A token that they still look at, and deny after the old one has ended, does not make the connection last."""
    here = Here()
    async with serve(here.app) as server, arrive(server, seconds=2) as ws:
        await renew(ws, jti=REVOKED)
        assert (await close_of(ws))[0] == 4519
        here.answered.set()
