"""A fresh token on an open connection: the same subject's only."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from tests.auth.tokens import ISSUER, SECRET, claims, token
from tests.support import Server, connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator, JWTAuth, Principal, Ticket
from wsrouter.auth.sources import Header
from wsrouter.messages import Message

tickets = Ticket()
auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[tickets, Header()], require=["exp"])


class Renew(Message):
    token: str


class Renewing(WebSocketHandler):
    """Renews as the protocol's ``$auth`` does."""

    @on
    async def renew(self, message: Renew) -> dict[str, Any]:
        user: Principal = await auth.renew(self.connection.http, message.token)
        assert await auth(self.connection.http) is user is self.user
        return {"id": user.id, "jti": user.claims.get("jti")}


@asynccontextmanager
async def serving() -> AsyncGenerator[Server]:
    router = WebSocketRouter(guards=[auth])
    router.add_handler("/ws", Renewing)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        yield server


async def renewed(ws: ClientConnection, text: str) -> Any:
    """Return what the handler says, or the error code."""
    await ws.send(json.dumps({"type": "renew", "id": 1, "data": {"token": text}}))
    reply = json.loads(await ws.recv())
    return reply["data"] if reply["type"] == "$ok" else reply["error"]


def bearer(text: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {text}"}}


async def test_a_fresh_token_of_the_same_subject_takes_over() -> None:
    """It is what every later question gets, and it may be renewed in turn."""
    async with serving() as server, connect(server, "/ws", **bearer(token(iss=ISSUER, jti="1"))) as ws:
        assert await renewed(ws, token(iss=ISSUER, jti="2")) == {"id": "ada", "jti": "2"}
        assert await renewed(ws, token(iss=ISSUER, jti="3")) == {"id": "ada", "jti": "3"}


@pytest.mark.parametrize(
    ("fresh", "code"),
    [
        ({"sub": "eve", "iss": ISSUER}, "forbidden"),
        ({"sub": "Ada", "iss": ISSUER}, "forbidden"),
        ({"iss": "https://other.example"}, "forbidden"),
        ({}, "forbidden"),
        ({"sub": "", "iss": ISSUER}, "forbidden"),
        ({"iss": ISSUER, "exp": 1}, "unauthenticated"),
    ],
)
async def test_another_subjects_token_does_not(fresh: dict[str, Any], code: str) -> None:
    """Issuer and sub have to be the same, and the token valid; then the connection is as it was."""
    async with serving() as server, connect(server, "/ws", **bearer(token(iss=ISSUER, jti="1"))) as ws:
        error = await renewed(ws, token(SECRET, "HS256", None, **fresh))
        assert error["code"] == code
        assert (await renewed(ws, token(iss=ISSUER, jti="2")))["jti"] == "2"


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "\ud800", token(SECRET[::-1]), token(pad="x" * 9000)])
async def test_what_is_no_token_does_not(text: str) -> None:
    """It is answered, and nothing of it is said back."""
    async with serving() as server, connect(server, "/ws", **bearer(token())) as ws:
        error = await renewed(ws, text)
        assert error["code"] in ("unauthenticated", "invalid")
        assert not text or text not in json.dumps(error)


async def test_two_tokens_for_nobody_are_not_the_same_subject() -> None:
    """Where ``sub`` is not required, one without it renews nothing."""
    async with serving() as server, connect(server, "/ws", **bearer(token(sub=...))) as ws:
        assert (await renewed(ws, token(sub=...)))["code"] == "forbidden"


async def test_a_tickets_user_is_renewed_with_a_token() -> None:
    """The principal of a ticket has issuer and sub of the token that it was issued for."""
    given = claims(iss=ISSUER)
    ticket = await tickets.issue(Principal("ada", claims=given), path="/ws")
    async with serving() as server, connect(server, f"/ws?ticket={ticket}") as ws:
        assert (await renewed(ws, token(sub="eve", iss=ISSUER)))["code"] == "forbidden"
        assert (await renewed(ws, token(iss=ISSUER)))["id"] == "ada"


async def test_an_authenticator_that_takes_no_tokens_says_so() -> None:
    """That is the default for those of one's own."""

    class Session(Authenticator):
        async def __call__(self) -> Principal:
            return Principal("ada")

    session = Session()

    class Other(WebSocketHandler):
        @on
        async def renew(self, message: Renew) -> None:
            await session.renew(self.connection.http, message.token)

    router = WebSocketRouter(guards=[session])
    router.add_handler("/ws", Other)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server, "/ws") as ws:
        assert (await renewed(ws, token()))["code"] == "invalid"
