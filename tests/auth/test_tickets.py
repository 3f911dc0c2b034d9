"""Tickets: bound to path and origin, spent once, and what happens when their store is away."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from tests.auth.handshakes import Answer, handshake, request
from tests.auth.tokens import ISSUER, SECRET, token
from tests.redis_server import serve_redis
from tests.support import Server, connect, eventually, serve
from wsrouter import Deny, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Header, JWTAuth, Principal, Ticket
from wsrouter.auth.tickets import MAX_COUNTED, Issued
from wsrouter.brokers.redis import RedisStore
from wsrouter.messages import Message
from wsrouter.stores import MemoryStore

ORIGIN = "https://app.example"
INVALID = 'Bearer error="invalid_token"'
ADA = Principal(
    "ada",
    frozenset({"chat:read", "chat:write"}),
    {"sub": "ada", "iss": ISSUER, "nested": {"list": [1, 2.5, None, "é"]}, "exp": 4102444800},
    4102444800,
)


class Who(Message):
    pass


class Tell(WebSocketHandler):
    """Tells who it is."""

    def __init__(self, room: str) -> None:
        self.room = room

    @on
    async def who(self, message: Who) -> dict[str, Any]:
        user: Principal = self.user
        return {
            "id": user.id,
            "scopes": sorted(user.scopes),
            "claims": dict(user.claims),
            "expires_at": user.expires_at,
        }


def application(tickets: Ticket) -> FastAPI:
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[tickets, Header()])
    router = WebSocketRouter(prefix="/ws", guards=[auth])
    router.add_handler("/chat/{room}", Tell)
    app = FastAPI()
    app.include_router(router)

    @app.post("/tickets/{room}")
    async def issue(room: str, user: Annotated[Principal, Depends(auth)]) -> str:
        return await tickets.issue(user, path=f"/ws/chat/{room}", origin=ORIGIN)

    return app


@asynccontextmanager
async def serving(tickets: Ticket) -> AsyncGenerator[Server]:
    async with serve(application(tickets)) as server:
        yield server


async def opened(server: Server, ticket: str, path: str = "/ws/chat/1", *origins: str) -> Answer:
    return await handshake(server, f"{path}?ticket={ticket}", [("Origin", origin) for origin in origins])


async def test_the_principal_comes_out_as_it_was() -> None:
    """Scopes, claims of any shape and the time of expiry survive the store."""
    tickets = Ticket()
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path="/ws/chat/1")
        async with connect(server, f"/ws/chat/1?ticket={ticket}") as ws:
            await ws.send('{"type":"who","id":1}')
            assert json.loads(await ws.recv())["data"] == {
                "id": "ada",
                "scopes": ["chat:read", "chat:write"],
                "claims": ADA.claims,
                "expires_at": 4102444800,
            }


async def test_a_ticket_opens_one_connection() -> None:
    """Of ten handshakes at once one is let in, and so it is across two servers that share a Redis."""
    with serve_redis() as redis:
        stores = [RedisStore(redis.url), RedisStore(redis.url)]
        first, second = (Ticket(store) for store in stores)
        async with serving(first) as one, serving(second) as other:
            ticket = await first.issue(ADA, path="/ws/chat/1")
            answers = await asyncio.gather(*(opened(server, ticket) for server in (one, other) for _ in range(5)))
            assert sorted(answer.status for answer in answers) == [101, *[401] * 9]
        for store in stores:
            await store.aclose()


@pytest.mark.parametrize(
    ("bound", "path", "status"),
    [
        ("/ws/chat/1", "/ws/chat/1", 101),
        ("/ws/chat/1", "/ws/chat/2", 401),
        ("/ws/chat/1", "/ws/chat/1/", 404),
        ("/ws/chat/1", "/ws/chat/%31", 101),
        ("/ws/chat/my room", "/ws/chat/my%20room", 101),
        ("/ws/chat/my%20room", "/ws/chat/my%20room", 401),
        ("/ws/chat/1", "/ws/chat/1%20", 401),
        ("/", "/ws/chat/1", 401),
        ("/ws/chat", "/ws/chat/1", 401),
    ],
)
async def test_a_ticket_is_for_one_path(bound: str, path: str, status: int) -> None:
    """Paths are compared whole, as they read when they are decoded."""
    tickets = Ticket()
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path=bound)
        answer = await opened(server, ticket, path)
        assert answer.status == (403 if status == 404 else status)


@pytest.mark.parametrize(
    ("bound", "origins", "status"),
    [
        (ORIGIN, [ORIGIN], 101),
        (ORIGIN, ["https://app.example:443"], 101),
        (ORIGIN, ["HTTPS://App.Example"], 101),
        ("https://APP.example:443", [ORIGIN], 101),
        ("capacitor://localhost", ["capacitor://localhost"], 101),
        ("https://[2001:DB8::1]", ["https://[2001:db8:0::1]:443"], 101),
        (ORIGIN, [], 401),
        (ORIGIN, ["http://app.example"], 401),
        (ORIGIN, ["https://app.example:444"], 401),
        (ORIGIN, ["https://app.example."], 401),
        (ORIGIN, ["https://app.example/"], 401),
        (ORIGIN, ["https://evil.example"], 401),
        (ORIGIN, ["https://app.example.evil.example"], 401),
        (ORIGIN, ["https://app.example@evil.example"], 401),
        (ORIGIN, ["null"], 401),
        (ORIGIN, [""], 401),
        (ORIGIN, [ORIGIN, ORIGIN], 401),
        (ORIGIN, [f"{ORIGIN}, {ORIGIN}"], 401),
        (None, [], 101),
        (None, [ORIGIN], 401),
        (None, ["null"], 401),
        (None, [""], 401),
    ],
)
async def test_a_ticket_is_for_one_origin(bound: str | None, origins: list[str], status: int) -> None:
    """Origins are compared after normalising; one issued for none is for requests without an Origin."""
    tickets = Ticket()
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path="/ws/chat/1", origin=bound)
        answer = await opened(server, ticket, "/ws/chat/1", *origins)
        # websockets refuses two origins by itself, with 400.
        assert answer.status == status or (len(origins) > 1 and answer.status == 400)
        if answer.status == 401:
            assert answer.headers["www-authenticate"] == INVALID


async def test_a_failed_attempt_spends_the_ticket() -> None:
    """Who tries a ticket at the wrong place learns nothing, and nobody can use it afterwards."""
    tickets = Ticket()
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path="/ws/chat/1", origin=ORIGIN)
        assert (await opened(server, ticket, "/ws/chat/2", ORIGIN)).status == 401
        assert (await opened(server, ticket, "/ws/chat/1", ORIGIN)).status == 401


async def test_a_bad_ticket_is_not_made_good_by_a_header() -> None:
    """The first source with a credential decides: the good token in the header behind it is not looked at."""
    async with serving(Ticket()) as server:
        headers = [("Authorization", f"Bearer {token()}")]
        answer = await handshake(server, "/ws/chat/1?ticket=" + "A" * 43, headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, INVALID)
        assert (await handshake(server, "/ws/chat/1", headers)).status == 101


async def test_a_ticket_lives_for_seconds() -> None:
    """After ttl it is as if it had never been."""
    tickets = Ticket(ttl=0.05)
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path="/ws/chat/1")
        until = time.monotonic() + 0.08
        await eventually(lambda: time.monotonic() > until)
        assert (await opened(server, ticket)).status == 401


async def test_a_ticket_does_not_outlive_its_token() -> None:
    """If the token that it was issued for has expired meanwhile, the denial is that of an expired token."""
    tickets = Ticket()
    async with serving(tickets) as server:
        ticket = await tickets.issue(Principal("ada", expires_at=time.time() - 1), path="/ws/chat/1")
        answer = await opened(server, ticket)
        assert answer.headers["www-authenticate"] == f'{INVALID}, error_description="The token has expired"'


async def test_the_store_holds_no_ticket() -> None:
    """Keys are hashes: who reads the store can't redeem what is in it."""
    seen: list[tuple[str, bytes]] = []

    class Seen(MemoryStore):
        async def put(self, key: str, value: bytes, ttl: float) -> None:
            seen.append((key, value))
            await super().put(key, value, ttl)

    ticket = await Ticket(Seen()).issue(ADA, path="/ws/chat/1")
    [(key, value)] = seen
    assert ticket not in key
    assert ticket.encode() not in value
    assert json.loads(value)["v"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": "1"},
        {"v": ...},
        {"origin": ...},
        {"id": 7},
        {"path": None},
        {"scopes": "chat:write"},
        {"scopes": [1]},
        {"claims": []},
        {"expires_at": "4102444800"},
        {"expires_at": True},
    ],
)
async def test_what_the_store_returns_is_checked(change: dict[str, Any]) -> None:
    """A value of another version, or of another shape, lets nobody in."""

    class Changing(MemoryStore):
        async def put(self, key: str, value: bytes, ttl: float) -> None:
            data = {name: each for name, each in {**json.loads(value), **change}.items() if each is not ...}
            await super().put(key, json.dumps(data).encode(), ttl)

    tickets = Ticket(Changing())
    async with serving(tickets) as server:
        ticket = await tickets.issue(ADA, path="/ws/chat/1")
        answer = await opened(server, ticket)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, INVALID)


@pytest.mark.parametrize("value", [b"", b"\xff", b"null", b"[]", b"{", b"[" * 10_000])
async def test_what_is_no_ticket_in_the_store_lets_nobody_in(value: bytes) -> None:
    """Whatever somebody else has put under that key."""

    class Other(MemoryStore):
        async def take(self, key: str) -> bytes | None:
            return value

    async with serving(Ticket(Other())) as server:
        assert (await opened(server, "A" * 43)).status == 401


async def test_a_store_that_is_down_is_503() -> None:
    """At redeem and at issue, with Retry-After; other sources of the same authenticator still work."""
    with serve_redis() as redis:
        store = RedisStore(redis.url, timeout=1)
        tickets = Ticket(store)
        async with serving(tickets) as server:
            headers = [("Authorization", f"Bearer {token()}")]
            issued = await request(server, "/tickets/1", [*headers, ("Content-Length", "0")], "POST")
            assert issued.status == 200
            ticket = json.loads(issued.body)
            redis.kill()
            answer = await opened(server, ticket, "/ws/chat/1", ORIGIN)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            refused = await request(server, "/tickets/1", [*headers, ("Content-Length", "0")], "POST")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert json.loads(refused.body) == {"detail": "No tickets at the moment"}
            assert (await handshake(server, "/ws/chat/1", headers)).status == 101
        await store.aclose()


async def test_a_full_store_is_503() -> None:
    """Who asks for more tickets than there is room for is told to come back."""
    tickets = Ticket(MemoryStore(max_entries=1))
    await tickets.issue(ADA, path="/ws/chat/1")
    with pytest.raises(Deny) as denied:
        await tickets.issue(ADA, path="/ws/chat/1")
    assert denied.value.status == 503


async def test_one_user_gets_so_many_tickets() -> None:
    """Within ttl, spent or not; then 429 with Retry-After, for this user only, until the first is over."""
    tickets = Ticket(per_user=3, ttl=0.3)
    async with serving(tickets) as server:
        post = [("Authorization", f"Bearer {token()}"), ("Content-Length", "0")]
        first = await request(server, "/tickets/1", post, "POST")
        assert (await opened(server, json.loads(first.body), "/ws/chat/1", ORIGIN)).status == 101
        answers = await asyncio.gather(*(request(server, "/tickets/1", post, "POST") for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 200, 429, 429, 429]
        [refused, *_] = [answer for answer in answers if answer.status == 429]
        assert (refused.headers["retry-after"], refused.body) == ("1", b'{"detail":"You have too many tickets"}')
        bob = [("Authorization", f"Bearer {token(sub='bob')}"), ("Content-Length", "0")]
        assert (await request(server, "/tickets/1", bob, "POST")).status == 200
        until = time.monotonic() + 0.35
        await eventually(lambda: time.monotonic() > until)
        for _ in range(3):
            assert (await request(server, "/tickets/1", post, "POST")).status == 200
        assert (await request(server, "/tickets/1", post, "POST")).status == 429


async def test_an_application_that_ends_leaves_the_tickets_of_another() -> None:
    """Two that share a `Ticket`: one stops, and the other's tickets are still good."""
    tickets = Ticket()
    async with serving(tickets) as other:
        ticket = await tickets.issue(ADA, path="/ws/chat/1")
        async with serving(tickets):
            pass
        assert (await opened(other, ticket)).status == 101


async def test_what_is_counted_of_users_is_bounded() -> None:
    """Users whose tickets are over are forgotten, and of very many tickets the oldest are."""
    issued = Issued(30, 2)
    for number in range(MAX_COUNTED + 10):
        assert issued.count(f"user-{number}") == 0
    assert issued.counted == (MAX_COUNTED, MAX_COUNTED)
    brief = Issued(0.01, 2)
    for number in range(100):
        assert brief.count(f"user-{number}") == 0
    until = time.monotonic() + 0.02
    await eventually(lambda: time.monotonic() > until)
    assert brief.count("ada") == 0
    assert brief.counted == (1, 1)


@pytest.mark.parametrize(
    ("principal", "path", "origin", "error"),
    [
        (ADA, "ws/chat/1", None, ValueError),
        (ADA, "", None, ValueError),
        (ADA, "/ws", "app.example", ValueError),
        (ADA, "/ws", "null", ValueError),
        (ADA, "/ws", "https://app.example/page", ValueError),
        (ADA, "/ws", "wss://app.example", ValueError),
        (ADA, "/ws", "https://app.example.", ValueError),
        (ADA, "/ws", "https://me@app.example", ValueError),
        (ADA, "/ws", "https://app.example:0443", ValueError),
        ("ada", "/ws", None, TypeError),
        (Principal("ada", claims={"at": object()}), "/ws", None, TypeError),
        (Principal("ada", claims={"at": float("nan")}), "/ws", None, ValueError),
    ],
)
async def test_a_ticket_that_could_never_be_used_is_refused(
    principal: Any, path: str, origin: str | None, error: type[Exception]
) -> None:
    """When it is issued, to those who wrote the route."""
    with pytest.raises(error):
        await Ticket().issue(principal, path=path, origin=origin)
