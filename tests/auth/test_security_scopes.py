"""Scopes that ``Security`` demands of a `JWTAuth`: on HTTP routes, on routers, on methods, and asked directly."""

import json
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Security
from starlette.requests import HTTPConnection

from tests.auth.handshakes import handshake, request
from tests.auth.tokens import SECRET, token
from tests.envelopes import receive, send
from tests.support import connect, serve
from wsrouter import ConfigurationError, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Header, JWTAuth, Principal
from wsrouter.auth.options import quotable

LACKING = 'Bearer error="insufficient_scope", scope="admin chat:write"'


class Counting(Header):
    """A header that counts how often it is looked at."""

    looks = 0

    def find(self, connection: HTTPConnection) -> str | None:
        self.looks += 1
        return super().find(connection)


def bearer(scope: Any = ...) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token(scope=scope)}")]


ADMIN = bearer("read admin chat:write")
OTHERS = [bearer(), bearer("admin"), bearer("ADMIN chat:write"), bearer("admin\xa0chat:write"), bearer(["admin"])]


class Rule(Message):
    pass


class Look(Message):
    pass


async def test_scopes_of_a_router() -> None:
    """As a guard of a WebSocket it admits who has all of them, and denies everybody else with 403."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"])
    router = WebSocketRouter(guards=[Security(auth, scopes=["admin", "chat:write"])])
    router.add_handler("/ws", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        assert (await handshake(server, "/ws", ADMIN)).status == 101
        for headers in OTHERS:
            answer = await handshake(server, "/ws", headers)
            assert (answer.status, answer.headers["www-authenticate"]) == (403, LACKING)
            assert json.loads(answer.body) == {"code": "forbidden", "detail": "This needs more rights than you have"}
        assert (await handshake(server, "/ws")).headers["www-authenticate"] == "Bearer"


async def test_scopes_of_an_http_route() -> None:
    """Those of every ``Security`` on the way are needed, also where the same object was asked before without."""
    source = Counting()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source], realm="chat")
    app = FastAPI(dependencies=[Depends(auth)])

    async def writer(user: Annotated[Principal, Security(auth, scopes=["chat:write"])]) -> Principal:
        return user

    @app.get("/rule")
    async def rule(user: Annotated[Principal, Security(writer, scopes=["admin"])]) -> str:
        return user.id

    async with serve(app) as server:
        assert (await request(server, "/rule", ADMIN)).status == 200
        assert source.looks == 1
        for headers in OTHERS:
            answer = await request(server, "/rule", headers)
            challenge = LACKING.replace("Bearer ", 'Bearer realm="chat", ')
            assert (answer.status, answer.headers["www-authenticate"]) == (403, challenge)


async def test_scopes_of_a_method() -> None:
    """Of somebody who was let in without them they are demanded where they are needed, and it looks once."""
    source = Counting()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source])

    class Desk(WebSocketHandler):
        @on
        async def look(self, message: Look, user: Annotated[Principal, Depends(auth)]) -> str:
            return user.id

        @on
        async def rule(self, message: Rule, user: Annotated[Principal, Security(auth, scopes=["admin"])]) -> str:
            return user.id

    router = WebSocketRouter(guards=[auth])
    router.add_handler("/ws", Desk)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        for scope, answered in (("admin", {"type": "$ok", "id": "1", "data": "ada"}), ("read", "forbidden")):
            source.looks = 0
            async with connect(server, "/ws", additional_headers=dict(bearer(scope))) as ws:
                await send(ws, "rule", {}, id="1")
                answer = await receive(ws)
                assert (answer["error"]["code"] if answer["type"] == "$error" else answer) == answered
                await send(ws, "look", {}, id="2")
                assert (await receive(ws))["data"] == "ada"
            assert source.looks == 1


async def test_asked_directly_it_demands_none() -> None:
    """``await auth(connection)`` gives whoever it is."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"])
    headers = [(name.lower().encode(), value.encode()) for name, value in bearer()]
    assert (await auth(HTTPConnection({"type": "http", "headers": headers}))).id == "ada"


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "a b", "", "ä", "a\r\nX-Evil: 1"])
@pytest.mark.logs_errors
async def test_what_is_no_scope_admits_nobody(scope: str) -> None:
    """It is the application's mistake, and stands in no header."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"])
    router = WebSocketRouter(guards=[Security(auth, scopes=[scope])])
    router.add_handler("/ws", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        answer = await handshake(server, "/ws", ADMIN)
        assert (answer.status, "www-authenticate" in answer.headers) == (500, False)


def test_the_mistake_names_its_cure() -> None:
    """With what was expected."""
    assert quotable(["a", "b", "a"]) == "a b"
    with pytest.raises(ConfigurationError, match=r"Security\(scopes=\.\.\.\).*list several as several texts"):
        quotable(["chat:read chat:write"])
