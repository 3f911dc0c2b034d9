"""`ConnectionLimit(everywhere=True)`: places that are counted on all nodes of a hub together."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from tests.envelopes import close_of, receive, send
from tests.nodes import Node, ShakyBroker, go_away, log_in, nodes
from tests.support import connect, eventually, serve, vanish
from wsrouter import ConfigurationError, Connection, Deny, Hub, Limits, WebSocketHandler, WebSocketRouter
from wsrouter.guards import ConnectionLimit


class Here(WebSocketHandler):
    """Says nothing."""


@asynccontextmanager
async def limited(count: int = 2, **options: Any) -> AsyncGenerator[list[Node[ShakyBroker]]]:
    """Serve nodes whose connections are limited on all together."""

    def guards() -> list[Any]:
        return [log_in, ConnectionLimit(everywhere=True, **options)]

    async with nodes(count, handlers={"/": Here}, guards=guards) as made:
        yield made


async def denied(node: Node[ShakyBroker], query: str = "user=ada") -> Response:
    with pytest.raises(InvalidStatus) as failure:
        await connect(node.server, f"/?{query}")
    return failure.value.response


def slots(node: Node[ShakyBroker]) -> int:
    """Return how many are held on all nodes."""
    return sum(map(len, node.broker._server.slots.values()))  # pyright: ignore[reportPrivateUsage]


async def test_a_user_has_so_many_places_on_all_nodes() -> None:
    """Who has them all gets no other one anywhere until one of theirs ends, wherever it is; others are not touched."""
    async with limited(per_user=2, retry_after=7) as (a, b):
        first = await a.enter("user=ada")
        await b.enter("user=ada")
        for node in a, b:
            response = await denied(node)
            assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
        await b.enter("user=bob")
        await first.close()
        await eventually(lambda: slots(a) == 2)
        await b.enter("user=ada")
        assert slots(a) == 3


async def test_the_oldest_is_told_to_go_wherever_it_is() -> None:
    """With `replace_oldest` the new connection is let in at once, and the oldest is closed with 4409 on its node; the
    other connections of the user stay."""
    async with limited(per_user=2, on_full="replace_oldest") as (a, b):
        oldest, second = await a.enter("user=ada"), await a.enter("user=ada")
        third = await b.enter("user=ada")
        assert await close_of(oldest) == (4409, "replaced by another connection")
        fourth = await b.enter("user=ada")
        assert await close_of(second) == (4409, "replaced by another connection")
        fifth = await b.enter("user=ada")
        assert await close_of(third) == (4409, "replaced by another connection")
        for ws in fourth, fifth:
            await send(ws, "what", id=1)
            assert (await receive(ws))["error"]["code"] == "unknown_type"
        assert slots(a) == 2


async def test_one_that_is_not_through_is_told_to_go_too() -> None:
    """A handshake that has a place, and waits for something else, is denied when a newer one takes the place."""
    waiting, go = asyncio.Event(), asyncio.Event()

    async def slowly(connection: Connection) -> None:
        if "slow" in connection.query_params:
            waiting.set()
            await go.wait()

    def guards() -> list[Any]:
        return [log_in, ConnectionLimit(per_user=1, everywhere=True, on_full="replace_oldest"), slowly]

    async with nodes(handlers={"/": Here}, guards=guards) as (a, b):
        slow = asyncio.create_task(denied(a, "user=ada&slow"))
        await waiting.wait()
        await b.enter("user=ada")
        go.set()
        assert (await slow).status_code == 409
        await eventually(lambda: slots(a) == 1)


@pytest.mark.parametrize("limit", ["per_ip", "total"])
async def test_addresses_and_all_together(limit: str) -> None:
    """The other limits count on all nodes as well."""
    async with limited(**{limit: 2}) as (a, b):
        await a.enter()
        await b.enter("user=ada")
        assert (await denied(b)).status_code == 429
        assert (await denied(a, "")).status_code == 429


async def test_each_way_out_gives_the_place_back() -> None:
    """A close, a client that vanishes, a guard that denies, a constructor that fails, a handshake that is given up."""
    hold = asyncio.Event()

    async def bouncer(connection: Connection) -> None:
        if "bad" in connection.query_params:
            raise Deny(403)
        if "slow" in connection.query_params:
            hold.set()
            await asyncio.Event().wait()

    def guards() -> list[Any]:
        return [log_in, ConnectionLimit(per_user=2, per_ip=2, total=2, everywhere=True), bouncer]

    async with nodes(handlers={"/": Here}, guards=guards) as (a, b):
        for _ in range(3):
            ws = await a.enter("user=ada")
            assert slots(a) == 3
            await ws.close()
            await eventually(lambda: slots(a) == 0)
            await vanish(await b.enter("user=ada"))
            await eventually(lambda: slots(a) == 0)
            assert (await denied(a, "user=ada&bad")).status_code == 403
            await eventually(lambda: slots(a) == 0)
            late = asyncio.create_task(b.enter("user=ada&slow"))
            await hold.wait()
            assert slots(a) == 3
            late.cancel()
            await eventually(lambda: slots(a) == 0)
            hold.clear()


async def test_a_client_that_goes_while_the_broker_is_asked() -> None:
    """Nobody knows then whether it got a place: it is given back all the same."""
    async with limited(per_user=1) as (a, b):
        a.broker.gates.append(asyncio.Event())
        late = asyncio.create_task(a.enter("user=ada"))
        await eventually(lambda: not a.broker.gates)
        assert slots(a) == 1
        late.cancel()
        await eventually(lambda: slots(a) == 0)
        await b.enter("user=ada")


async def test_a_broker_that_does_not_answer_was_told_of_every_place() -> None:
    """A connection that ends does not wait for it for longer than `Limits.close`, and logs no error."""

    def guards() -> list[Any]:
        return [log_in, ConnectionLimit(per_user=1, per_ip=9, total=9, everywhere=True)]

    async with nodes(handlers={"/": Here}, guards=guards, limits=Limits(close=0.2)) as (a, b):
        ws = await a.enter("user=ada")
        assert slots(a) == 3
        a.broker.releasing.clear()
        await ws.close()
        await eventually(lambda: slots(a) == 0)
        await b.enter("user=ada")


async def test_while_the_broker_is_away() -> None:
    """New connections are denied with 503, those that are there stay, and nothing is counted that is not there."""
    async with limited(per_ip=2) as (a, b):
        ws = await a.enter()
        go_away(a)
        response = await denied(a, "")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        await send(ws, "what", id=1)
        assert (await receive(ws))["type"] == "$error"
        a.broker.up = True
        await b.enter()
        assert (await denied(a, "")).status_code == 429


async def test_a_node_that_ends_takes_its_places_along() -> None:
    """What a process held is free when its broker is closed."""
    broker = ShakyBroker()
    async with Hub(ShakyBroker(beside=broker)):
        other = ShakyBroker(beside=broker)
        await other.start("other", Hub().node)
        assert (await other.acquire("a", "x", 1, replace=False)).held
        await other.aclose()
    async with Hub(broker) as hub:
        assert (await hub.node.broker.acquire("a", "y", 1, replace=False)).held


@pytest.mark.logs_errors
async def test_two_limits_need_two_names() -> None:
    """Two limits on one hub that would count together keep the application from starting; with names they count
    apart."""

    def application(first: ConnectionLimit, second: ConnectionLimit) -> FastAPI:
        router = WebSocketRouter(guards=[first], hub=Hub())
        inner = WebSocketRouter(guards=[second])
        inner.add_handler("/", Here)
        router.include_router(inner)
        app = FastAPI()
        app.include_router(router)
        return app

    one, two = (ConnectionLimit(total=most, everywhere=True) for most in (3, 2))
    with pytest.raises(ConfigurationError, match="give each a name="):
        async with serve(application(one, two)):
            pass
    named = ConnectionLimit(total=2, everywhere=True, name="inner")
    async with serve(application(one, named)) as server, connect(server), connect(server):
        with pytest.raises(InvalidStatus) as failure:
            await connect(server)
        assert failure.value.response.status_code == 429
        assert (one.stats().taken, named.stats().taken, named.stats().denied) == (2, 2, 1)


def test_what_does_not_go_together() -> None:
    """Another node can be told of a user's connection only; a name is for what is counted elsewhere too."""
    for per_ip, total in (1, None), (None, 1):
        with pytest.raises(ConfigurationError, match="give per_user= alone"):
            ConnectionLimit(per_user=1, per_ip=per_ip, total=total, everywhere=True, on_full="replace_oldest")
    with pytest.raises(ConfigurationError, match="needs everywhere=True"):
        ConnectionLimit(total=1, name="mine")
