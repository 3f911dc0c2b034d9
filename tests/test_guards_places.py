"""`ConnectionLimit` over real sockets: who gets a place, who has to go, and what an address counts as."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from time import monotonic
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from tests.support import Server, connect, eventually, serve
from tests.wire import RawClient
from wsrouter import ConfigurationError, Connection, Deny, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Authenticator
from wsrouter.guards import ConnectionLimit, ConnectionLimitStats


class User:
    def __init__(self, id: str) -> None:
        self.id = id


async def sign_in(connection: Connection, x_user: Annotated[str, Header()] = "") -> None:
    """Take whom a header names for the user."""
    if x_user:
        connection.scope["user"] = User(x_user)


def application(*guards: Any, handler: type[WebSocketHandler] = WebSocketHandler) -> FastAPI:
    router = WebSocketRouter(guards=guards)
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


async def denied(server: Server, path: str = "/", **headers: str) -> Response:
    with pytest.raises(InvalidStatus) as failure:
        await connect(server, path, additional_headers=named(headers))
    return failure.value.response


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def enter(clients: AsyncExitStack, server: Server, path: str = "/", **headers: str) -> ClientConnection:
    return await clients.enter_async_context(connect(server, path, additional_headers=named(headers)))


async def close_of(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closing:
        await asyncio.wait_for(ws.recv(), 5)
    assert closing.value.rcvd is not None
    return closing.value.rcvd.code, closing.value.rcvd.reason


async def test_the_last_place_is_the_last() -> None:
    """When all places are taken a handshake is denied with 429 and Retry-After, until somebody leaves."""
    limit = ConnectionLimit(total=2, retry_after=7)
    async with serve(application(limit)) as server:
        async with connect(server), connect(server):
            response = await denied(server)
            assert response.status_code == 429
            assert response.headers["Retry-After"] == "7"
            assert response.body == b'{"code": "rate_limited", "detail": "There are too many connections"}'
            assert limit.stats() == ConnectionLimitStats(taken=2, users=0, addresses=0, denied=1, replaced=0)
        await eventually(lambda: limit.stats().taken == 0)
        async with connect(server):
            assert limit.stats().taken == 1


async def test_places_of_a_user() -> None:
    """per_user counts each user by themselves; those without one have as many as they like."""
    limit = ConnectionLimit(per_user=1)
    async with serve(application(sign_in, limit)) as server, AsyncExitStack() as clients:
        for name in ("ada", "bob", "", ""):
            await enter(clients, server, x_user=name)
        assert b"You have too many" in ((await denied(server, x_user="ada")).body or b"")
        assert limit.stats() == ConnectionLimitStats(taken=2, users=2, addresses=0, denied=1, replaced=0)
    assert limit.stats().users == 0


async def test_a_limit_before_the_authenticator_costs_least() -> None:
    """A limit that needs no user, listed first, denies before anybody looks at the credential."""
    looked = 0

    async def look() -> None:
        nonlocal looked
        looked += 1

    async with serve(application(ConnectionLimit(total=1, per_ip=5), look)) as server, connect(server):
        for _ in range(3):
            assert (await denied(server)).status_code == 429
    assert looked == 1


async def test_several_limits_hold_together() -> None:
    """Within one object and across two each limit counts; a place that one denies is not taken from the others."""
    first, second = ConnectionLimit(total=3, per_ip=3), ConnectionLimit(per_user=1)
    async with serve(application(first, sign_in, second)) as server, AsyncExitStack() as clients:
        await enter(clients, server, x_user="ada")
        for _ in range(3):
            assert (await denied(server, x_user="ada")).status_code == 429
        assert (first.stats().taken, second.stats().taken) == (1, 1)
        await enter(clients, server, x_user="bob")
        await enter(clients, server)
        assert b"from your address" in ((await denied(server)).body or b"")


async def test_one_object_counts_everywhere_together() -> None:
    """Two routers, and two applications of one process, that list the same object share its places."""
    limit = ConnectionLimit(total=2)
    app = FastAPI()
    for prefix in ("/one", "/two"):
        router = WebSocketRouter(prefix=prefix, guards=[limit])
        router.add_handler("", WebSocketHandler)
        app.include_router(router)
    async with serve(app) as first, serve(application(limit)) as second:
        async with connect(first, "/one"), connect(second):
            assert (await denied(first, "/two")).status_code == 429
            assert (await denied(second)).status_code == 429
        await eventually(lambda: limit.stats().taken == 0)


async def test_the_same_object_on_router_and_class_takes_one_place() -> None:
    """A limit that outer and inner router list counts a connection once."""
    limit = ConnectionLimit(total=2)

    class Limited(WebSocketHandler):
        guards = [limit]

    async with serve(application(limit, handler=Limited)) as server, connect(server):
        assert limit.stats().taken == 1


async def test_the_oldest_is_replaced() -> None:
    """With on_full="replace_oldest" the new connection gets in, and the oldest of the same user is closed with 4409."""
    limit = ConnectionLimit(per_user=2, on_full="replace_oldest")
    async with serve(application(sign_in, limit)) as server, AsyncExitStack() as clients:
        bob = await enter(clients, server, x_user="bob")
        ada = [await enter(clients, server, x_user="ada") for _ in range(4)]
        for replaced in ada[:2]:
            assert await close_of(replaced) == (4409, "replaced by another connection")
        for kept in (bob, *ada[2:]):
            await asyncio.wait_for(await kept.ping(), 5)
        assert limit.stats() == ConnectionLimitStats(taken=3, users=2, addresses=0, denied=0, replaced=2)
        await ada[2].close()
        await eventually(lambda: limit.stats().taken == 2)
        await enter(clients, server, x_user="ada")
        await asyncio.wait_for(await ada[3].ping(), 5)
    await eventually(lambda: limit.stats().taken == 0)


async def test_a_phone_that_lost_its_link_gets_back_in_at_once() -> None:
    """A dead socket, which neither reads nor answers, does not keep its user out while its session still ends, and
    its place is given back once."""

    class Stalling(WebSocketHandler):
        ending, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def on_disconnect(self) -> None:
            self.ending.set()
            await self.may_end.wait()
            self.ended.set()

    limit = ConnectionLimit(per_user=1, on_full="replace_oldest")
    app = application(sign_in, limit, handler=Stalling)
    async with serve(app) as server, RawClient(server) as dead:
        assert await dead.handshake(headers=[("X-User", "ada")]) == 101
        began = monotonic()
        async with connect(server, additional_headers={"x-user": "ada"}) as ws:
            assert monotonic() - began < 1
            await asyncio.wait_for(await ws.ping(), 5)
            await asyncio.wait_for(Stalling.ending.wait(), 5)
            assert not Stalling.ended.is_set()
            assert limit.stats().taken == 1
            Stalling.may_end.set()
            await asyncio.wait_for(Stalling.ended.wait(), 5)
            await asyncio.wait_for(await ws.ping(), 5)
            assert limit.stats().taken == 1
        await eventually(lambda: limit.stats().taken == 0)


async def test_one_that_is_not_accepted_yet_can_be_replaced() -> None:
    """A connection that still waits in a later guard is denied with 409 in favour of the new one."""
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        if not waiting.is_set():
            waiting.set()
            await go_on.wait()

    limit = ConnectionLimit(per_user=1, on_full="replace_oldest")
    async with serve(application(sign_in, limit, slow)) as server:
        first = asyncio.create_task(denied(server, x_user="ada"))
        await asyncio.wait_for(waiting.wait(), 5)
        async with connect(server, additional_headers={"x-user": "ada"}) as ws:
            go_on.set()
            assert (await first).status_code == 409
            await asyncio.wait_for(await ws.ping(), 5)
            assert limit.stats().taken == 1


async def test_all_limits_of_one_object_replace() -> None:
    """Whoever is in the way is replaced, of the user, of the address or of all; one that leaves makes room in each."""
    limit = ConnectionLimit(total=2, per_user=1, on_full="replace_oldest")
    async with serve(application(sign_in, limit)) as server, AsyncExitStack() as clients:
        ada = await enter(clients, server, x_user="ada")
        bob = await enter(clients, server, x_user="bob")
        second_bob = await enter(clients, server, x_user="bob")
        assert (await close_of(bob))[0] == 4409
        await asyncio.wait_for(await ada.ping(), 5)
        cleo = await enter(clients, server, x_user="cleo")
        assert (await close_of(ada))[0] == 4409
        for kept in (second_bob, cleo):
            await asyncio.wait_for(await kept.ping(), 5)
        assert limit.stats() == ConnectionLimitStats(taken=2, users=2, addresses=0, denied=0, replaced=2)


async def test_a_later_guard_that_denies_gives_the_place_back() -> None:
    """A place is given back when a guard after it denies, fails or raises in its clean-up."""

    async def deny(how: str) -> AsyncGenerator[None]:
        if how == "deny":
            raise Deny
        yield

    limit = ConnectionLimit(total=1, per_ip=1)
    async with serve(application(limit, deny)) as server:
        for _ in range(3):
            assert (await denied(server, "/?how=deny")).status_code == 403
        async with connect(server, "/?how=no"):
            assert limit.stats().taken == 1
        await eventually(lambda: limit.stats().taken == 0)


FORGED = ["203.0.113.9", "203.0.113.9, 198.51.100.1", "127.0.0.1", "::1", "unknown", "' OR 1=1", "\t", "1.2.3.4:5", "é"]


@pytest.mark.parametrize(
    "options",
    [{"proxy_headers": False}, {"proxy_headers": True, "forwarded_allow_ips": "192.0.2.1"}],
    ids=["off", "on, from elsewhere"],
)
async def test_a_forged_forwarded_for_changes_nothing(options: dict[str, Any]) -> None:
    """Where the server does not believe the peer, no header gives a client a second address."""
    limit = ConnectionLimit(per_ip=1)
    async with serve(application(limit), **options) as server, connect(server):
        for value in FORGED:
            async with RawClient(server) as client:
                headers = [("X-Forwarded-For", value.encode()), ("Forwarded", b"for=203.0.113.9")]
                assert await client.handshake(headers=[*headers, ("X-Real-IP", "203.0.113.9")]) == 429
        assert limit.stats() == ConnectionLimitStats(taken=1, users=0, addresses=1, denied=len(FORGED), replaced=0)


async def test_behind_a_proxy_only_the_proxy_is_believed() -> None:
    """What a client writes before the address that the proxy adds changes nothing; the proxy's word counts."""
    limit = ConnectionLimit(per_ip=1)
    options: dict[str, Any] = {"proxy_headers": True, "forwarded_allow_ips": "127.0.0.1"}
    async with serve(application(limit), **options) as server, AsyncExitStack() as clients:
        await enter(clients, server, X_Forwarded_For="198.51.100.1")
        for forged in FORGED:
            async with RawClient(server) as client:
                value = f"{forged}, 198.51.100.1".encode()
                assert await client.handshake(headers=[("X-Forwarded-For", value)]) == 429
        async with RawClient(server) as client:  # two headers, of which the proxy wrote the second
            both = [("X-Forwarded-For", "203.0.113.1"), ("X-Forwarded-For", "198.51.100.1")]
            assert await client.handshake(headers=both) == 429
        await enter(clients, server, X_Forwarded_For="198.51.100.2")
        assert limit.stats().addresses == 2


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:DB8::1", "2001:0db8::abcd", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "::ffff:c000:201", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("fe80::1%eth0", "fe81::1%eth0", False),
        ("unknown", "_hidden", True),
        ("unknown", "192.0.2.1", False),
        ("192.0.2.300", "192.0.2.1.", True),
    ],
)
async def test_what_an_address_counts_as(first: str, second: str, same: bool) -> None:
    """IPv4 as itself, also within IPv6; IPv6 by /64, whatever its zone; all that is no address as one."""
    limit = ConnectionLimit(per_ip=1)
    options: dict[str, Any] = {"proxy_headers": True, "forwarded_allow_ips": "127.0.0.1"}
    async with serve(application(limit), **options) as server, AsyncExitStack() as clients:
        await enter(clients, server, X_Forwarded_For=first)
        if same:
            assert (await denied(server, X_Forwarded_For=second)).status_code == 429
        else:
            await enter(clients, server, X_Forwarded_For=second)
        assert limit.stats().addresses == 2 - same
    assert limit.stats().addresses == 0


class WithoutAddress:
    """ASGI middleware that leaves no address in the scope, as uvicorn on a Unix socket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "client": None}, receive, send)


async def test_without_an_address_there_is_no_limit_by_it(caplog: pytest.LogCaptureFixture) -> None:
    """On a Unix socket per_ip limits nobody, which is logged once with the cure; total does."""
    limit = ConnectionLimit(per_ip=1, total=3)
    caplog.set_level(logging.WARNING, "wsrouter")
    app = WithoutAddress(application(limit))
    async with serve(app) as server, connect(server), connect(server), connect(server):
        assert (await denied(server)).status_code == 429
        assert limit.stats().addresses == 0
    warnings = [record.message for record in caplog.records if record.name == "wsrouter"]
    assert [warning.count("--forwarded-allow-ips") for warning in warnings] == [1]


async def test_without_a_user_there_is_no_limit_by_it(caplog: pytest.LogCaptureFixture) -> None:
    """Those who are nobody have as many places as they like, which is logged once with the cure."""
    limit = ConnectionLimit(per_user=1, total=3)
    caplog.set_level(logging.WARNING, "wsrouter")
    async with serve(application(sign_in, limit)) as server, connect(server), connect(server):
        assert limit.stats() == ConnectionLimitStats(taken=2, users=0, addresses=0, denied=0, replaced=0)
    [warning] = [record.getMessage() for record in caplog.records if record.name == "wsrouter"]
    assert warning.startswith("ConnectionLimit(per_user=1): a connection has no user")
    assert "list the limit in guards after an Authenticator" in warning


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"total": 0},
        {"per_user": -1},
        {"per_ip": 1.5},
        {"total": True},
        {"total": 1, "on_full": "replace"},
        {"total": 1, "retry_after": -1},
        {"total": 1, "retry_after": 1.5},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """A mistake is reported when the guard is made, with the argument."""
    with pytest.raises(ConfigurationError, match=r"ConnectionLimit\("):
        ConnectionLimit(**options)


class NamedByHeader(Authenticator):
    async def __call__(self, x_user: Annotated[str, Header()] = "") -> User:
        return User(x_user)


@pytest.mark.logs_errors
async def test_a_limit_per_user_before_the_authenticator_is_refused_at_start() -> None:
    """It would limit nobody; a limit that needs no user may stand there."""
    with pytest.raises(ConfigurationError, match="ConnectionLimit goes by the user, and is listed before"):
        async with serve(application(ConnectionLimit(total=5, per_user=1), NamedByHeader())):
            pass
    limit = ConnectionLimit(per_user=1)
    app = application(ConnectionLimit(total=5), NamedByHeader(), limit)
    async with serve(app) as server, connect(server, additional_headers={"x-user": "ada"}):
        assert (await denied(server, x_user="ada")).status_code == 429
        assert limit.stats().users == 1


def test_it_says_whether_it_needs_the_user() -> None:
    """The start-up check goes by an attribute: a limit per user has to stand after the authenticator."""
    assert ConnectionLimit(per_user=1).needs_user
    assert ConnectionLimit(total=1, per_user=1).needs_user
    assert not ConnectionLimit(total=1, per_ip=1).needs_user


def test_it_says_that_it_is_not_run_again() -> None:
    """A place is held as long as the connection: a fresh token neither takes a second one nor gives it back."""
    assert ConnectionLimit(per_user=1).reads_user is False
