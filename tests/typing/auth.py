"""Authentication: what an authenticator gives, where it looks, and tickets."""

from collections.abc import Mapping
from typing import Annotated, Any, assert_type

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from wsrouter import WebSocketHandler, WebSocketRouter
from wsrouter.auth import (
    Authenticator,
    BadCredential,
    Cookie,
    Header,
    JWKSet,
    JWTAuth,
    Principal,
    Query,
    Source,
    Subprotocol,
    Ticket,
)
from wsrouter.brokers.redis import RedisStore
from wsrouter.guards import AllowOrigins
from wsrouter.stores import MemoryStore, OneTimeStore


class FromHeader(Source):
    """A place of one's own."""

    def find(self, connection: HTTPConnection) -> str | None:
        if connection.headers.get("x-token") == "":
            raise BadCredential("an empty header")
        return connection.headers.get("x-token")


def shared(url: str | None) -> OneTimeStore:
    return (
        MemoryStore(max_entries=1000, max_bytes=2**20) if url is None else RedisStore(url, prefix="app:", timeout=1.0)
    )


tickets = Ticket(shared(None), ttl=20, parameter="ticket", per_user=5)
auth = JWTAuth(
    key={"2025": "a secret of at least thirty-two bytes", "2026": b"another one of at least thirty-two"},
    algorithms=["HS256"],
    audience=["chat", "admin"],
    issuer="https://issuer.example",
    leeway=5,
    require=["exp", "sub", "iat"],
    expiry_grace=10,
    sources=[Header(), Cookie("__Host-session"), Subprotocol(), Query("token"), tickets, FromHeader()],
    types={"at+jwt"},
    max_lifetime=3600,
    realm="chat",
)


def remote() -> JWTAuth:
    keys = JWKSet("https://issuer.example/jwks.json", lifetime=600, cooldown=20, stale=1800, timeout=3)
    return JWTAuth(jwks_url=keys, algorithms=("RS256", "ES256"))


router = WebSocketRouter(guards=[AllowOrigins("https://app.example"), auth])


@router.handler("/ws")
class Greeting(WebSocketHandler):
    def __init__(self, user: Annotated[Principal, Depends(auth)]) -> None:
        self.name = user.id


app = FastAPI()
app.include_router(router)


@app.post("/tickets")
async def ticket(user: Annotated[Principal, Depends(auth)]) -> str:
    return await tickets.issue(user, path="/ws", origin="https://app.example")


async def used(connection: HTTPConnection) -> None:
    """Principals keep their types, and every authenticator has the hooks of its life."""
    user = await auth(connection)
    assert_type(user, Principal)
    assert_type(await auth.verify("token"), Principal)
    assert_type(await auth.renew(connection, "token"), Principal)
    assert_type(await tickets.issue(user, path="/ws"), str)
    assert_type(user.id, str)
    assert_type(user.scopes, frozenset[str])
    assert_type(user.claims, Mapping[str, Any])
    assert_type(user.expires_at, float | None)
    every: Authenticator = auth
    assert_type(every.ambient, bool)
    assert_type(every.started(), None)
    assert_type(await every.aclose(), None)


async def stored(store: OneTimeStore) -> None:
    """A store keeps bytes."""
    await store.put("key", b"value", 30)
    assert_type(await store.take("key"), bytes | None)
