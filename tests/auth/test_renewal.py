"""A fresh token on an open connection: the same subject's only."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from tests.auth.tokens import ISSUER, SECRET, claims, token
from tests.support import Server, connect, serve
from wsrouter import Deny, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator, JWTAuth, Principal, Ticket
from wsrouter.auth.sources import Header
from wsrouter.identity import EXPIRED, remember
from wsrouter.messages import Message

tickets = Ticket()
auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[tickets, Header()], require=["exp"])


class Renew(Message):
    token: str


class Renewing(WebSocketHandler):
    """Renews as the protocol's ``$auth`` does: until whoever asked puts the fresh user in place, the old one rules."""

    @on
    async def renew(self, message: Renew) -> dict[str, Any]:
        known = await auth(self.connection.http)
        user: Principal = await auth.renew(self.connection.http, message.token)
        assert await auth(self.connection.http) is known is not user
        remember(self.connection.scope, auth, user)
        assert await auth(self.connection.http) is user
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


@pytest.mark.parametrize(("leeway", "grace"), [(0, 25), (60, 25), (60, 0), (1.5, 0.5)])
def test_a_connection_lives_for_leeway_and_grace_after_its_token(leeway: float, grace: float) -> None:
    """Both are added to `exp`: a token that is still accepted at a handshake does not end it at once."""
    lenient = JWTAuth(key=SECRET, algorithms=["HS256"], leeway=leeway, expiry_grace=grace)
    assert lenient.ends_at(Principal("ada", expires_at=1000)) == 1000 + leeway + grace
    assert lenient.ends_at(Principal("ada")) is None


class Ask(Message):
    expired: float
    """Seconds since the token has ended."""


@pytest.mark.parametrize(
    ("expired", "refused"), [(-30, None), (5, None), (85, None), (95, [401, EXPIRED]), (1_000_000, [401, EXPIRED])]
)
async def test_who_is_known_is_refused_once_the_connection_should_have_ended(expired: float, refused: Any) -> None:
    """Within leeway and grace who was found stays who it is; afterwards, asked again, that is an expired token."""
    lenient = JWTAuth(key=SECRET, algorithms=["HS256"], leeway=60, expiry_grace=30)

    class Asking(WebSocketHandler):
        @on
        async def ask(self, message: Ask) -> list[int | None] | None:
            remember(self.connection.scope, lenient, Principal("ada", expires_at=time.time() - message.expired))
            try:
                await lenient(self.connection.http)
            except Deny as denied:
                return [denied.status, denied.code]
            return None

    router = WebSocketRouter(guards=[lenient])
    router.add_handler("/ws", Asking)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server, "/ws", **bearer(token())) as ws:
        await ws.send(json.dumps({"type": "ask", "id": 1, "data": {"expired": expired}}))
        assert json.loads(await ws.recv()).get("data") == refused
