"""The server of ``examples/ticker``: what each client is sent, and what becomes of one that does not read."""

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from examples.ticker.app import create_app
from examples.ticker.market import COMPANIES, KEPT, KEPT_EVERY, Market
from examples.ticker.messages import Board, Price
from tests.examples.browsing import Demo
from wsrouter.testing import WebSocketTestClient

ORIGIN = "http://ticker.test"
HEADERS = {"Origin": ORIGIN}


@pytest.fixture
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The example as its command starts it; it gives up who takes nothing for a second."""
    demo = Demo("examples.ticker", tmp_path_factory.mktemp("ticker"), "--patience", "1")
    demo.start()
    yield demo
    demo.end(signal.SIGTERM)
    log = demo.log()
    demo.close()
    assert log == ""


@pytest_asyncio.fixture
async def client() -> AsyncIterator[WebSocketTestClient]:
    async with WebSocketTestClient(create_app(origins=[ORIGIN]), timeout=5) as client:
        yield client


async def test_who_connects_sees_the_board_and_then_every_price(client: WebSocketTestClient) -> None:
    """All shares with their last minute; then their prices, each one serial further than the one before."""
    async with client.connect("/ws/prices", headers=HEADERS) as socket:
        board = await socket.receive(Board)
        assert {quote.symbol: quote.name for quote in board.quotes} == COMPANIES
        serials: dict[str, int] = {}
        for _ in range(5 * len(COMPANIES)):
            price = await socket.receive(Price)
            assert price.serial == serials.get(price.symbol, price.serial - 1) + 1
            assert 0 <= time.time() * 1000 - price.at < 5_000
            serials[price.symbol] = price.serial
        assert set(serials) == set(COMPANIES)
    async with client.connect("/ws/prices", headers=HEADERS) as socket:
        again = await socket.receive(Board)
        assert again.connection != board.connection
        assert all(quote.past for quote in again.quotes)


async def test_the_page_of_another_site_is_denied() -> None:
    """It is closed with 4403, and can't change the slow client."""
    app = create_app(origins=[ORIGIN])
    elsewhere = {"Origin": "https://elsewhere.example"}
    async with (
        WebSocketTestClient(app) as client,
        client.connect("/ws/prices", headers=elsewhere) as socket,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as http,
    ):
        assert (await socket.closed()).code == 4403
        assert (await http.put("/slow-client", json={"pace": "slow"}, headers=elsewhere)).status_code == 403
        assert (await http.put("/slow-client", json={"pace": "lazy"}, headers=HEADERS)).status_code == 422
        assert (await http.get("/status")).json()["slow"]["pace"] == "off"


@pytest.mark.timeout(60)
async def test_a_client_that_does_not_read_is_the_only_one_that_misses_prices(demo: Demo) -> None:
    """It keeps the newest of each share, catches up when it reads on, and is given up when it never does."""
    holes = 0
    serials: dict[str, int] = {}

    def look(frame: str | bytes) -> None:
        nonlocal holes
        price = json.loads(frame)["data"]
        holes += price["serial"] - serials.get(price["symbol"], price["serial"] - 1) - 1
        serials[price["symbol"]] = price["serial"]

    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{demo.port}") as http,
        connect(f"ws://127.0.0.1:{demo.port}/ws/prices") as neighbour,
        asyncio.TaskGroup() as tasks,
    ):
        board = json.loads(await neighbour.recv())["data"]

        async def read_all() -> None:
            async for frame in neighbour:
                look(frame)

        async def make(pace: str) -> None:
            answer = await http.put("/slow-client", json={"pace": pace})
            assert answer.json()["pace"] == pace

        async def until(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            async with asyncio.timeout(20):
                while True:
                    query = {"connection": board["connection"]}
                    status: dict[str, Any] = (await http.get("/status", params=query)).json()
                    if holds(status):
                        return status
                    await asyncio.sleep(0.02)

        reading = tasks.create_task(read_all())
        await make("fast")
        assert (await until(lambda status: status["slow"]["received"] > 500))["slow"]["missed"] == 0
        await make("stalled")
        status = await until(lambda status: status["superseded"] > 0)
        assert status["slow"]["pending_bytes"] > 64 * 1024
        assert status["slow"]["pending_bytes"] < 100 * 1024
        await make("fast")
        await until(lambda status: status["slow"]["missed"] > 0 and status["slow"]["pending_bytes"] == 0)

        await make("slow")
        await until(lambda status: status["slow"]["behind_ms"] > 500)
        await make("stalled")
        status = await until(lambda status: status["slow"]["given_up"])
        assert (status["given_up"], status["dropped"], status["slow"]["pending_bytes"]) == (1, 0, 0)
        await until(lambda status: status["connections"] == 1)
        await make("fast")
        status = await until(lambda status: status["slow"]["received"] > 500)
        assert (status["slow"]["given_up"], status["slow"]["missed"]) == (False, 0)
        await make("off")
        await until(lambda status: status["connections"] == 1)

        before = dict(serials)
        await until(lambda _: all(serials[symbol] > serial for symbol, serial in before.items()))
        assert holes == 0
        reading.cancel()


def test_the_slow_client_ends_with_the_application(demo: Demo) -> None:
    """Whatever it is at: the server stops, and nothing is logged."""
    with httpx.Client(base_url=f"http://127.0.0.1:{demo.port}") as http:
        http.put("/slow-client", json={"pace": "slow"})
        deadline = time.monotonic() + 10
        while http.get("/status").json()["slow"]["received"] == 0:
            assert time.monotonic() < deadline


def test_a_market_keeps_its_last_minute() -> None:
    """Some prices of each share, evenly, and not more than a minute of them; chance decides, and nothing else."""
    one, two = Market(random.Random(1)), Market(random.Random(1))
    for at in range(KEPT * KEPT_EVERY + 500):
        prices = one.move(at)
        assert prices == two.move(at)
        assert all(price.price > 0 for price in prices)
    for quote in one.quotes():
        times = [at for at, _ in quote.past]
        assert times == list(range(500, KEPT * KEPT_EVERY + 500, KEPT_EVERY))
        assert 0.5 < quote.past[-1][1] / quote.opening < 2
