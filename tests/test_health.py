"""What a process tells of its link: to the application, and to probes over HTTP."""

import httpx
import pytest
from fastapi import FastAPI

from tests.nodes import ROOMS, Said, ShakyBroker, come_back, go_away, nodes
from tests.support import Server, eventually, serve
from wsrouter import Hub
from wsrouter.health import health_router


@pytest.fixture
def shaky() -> ShakyBroker:
    return ShakyBroker()


async def get(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=server.trust or True) as client:
        return await client.get(server.http(path))


async def test_probes(shaky: ShakyBroker) -> None:
    """A process is alive whatever the link does, and ready while it is up."""
    hub = Hub(shaky, rooms=ROOMS)
    app = FastAPI()
    app.include_router(health_router(hub))
    app.include_router(health_router(hub, prefix="/internal"))
    async with hub, serve(app) as server:
        for path in "/health", "/internal":
            assert (await get(server, f"{path}/live")).json() == {"state": "up"}
            ready = await get(server, f"{path}/ready")
            assert (ready.status_code, ready.headers["Cache-Control"]) == (200, "no-store")
            assert ready.json() == {"state": "up", "since": 0.0, "heartbeat_age": None, "lag": None}
        shaky.up = False
        ready = await get(server, "/health/ready")
        assert (ready.status_code, ready.json()["state"]) == (503, "down")
        assert (await get(server, "/health/live")).status_code == 200
        assert (await get(server, "/openapi.json")).json()["paths"] == {}


async def test_what_was_lost_is_counted() -> None:
    """`Hub.health` tells what was recovered, what was announced, and what is still being asked for."""
    async with nodes() as (a, b):
        first = b.hub.health()
        assert (first.state, first.gaps, first.recovered, first.announced) == ("up", 0, 0, 0)
        await b.enter("room=feed:1&room=feed:2&room=small:1&room=hall&user=ada")
        await b.enter("room=hall")
        go_away(b)
        b.broker.tell()
        for room, count in ("feed:1", 3), ("small:1", 4):
            for n in range(count):
                await a.hub.broadcast(room, Said(n=n))
        health = b.hub.health()
        assert (health.state, health.connections, health.rooms, health.recovering) == ("down", 2, 4, 3)
        assert health.announced == 2, "the hall, and ada"
        come_back(b)
        await eventually(lambda: b.hub.health().recovering == 0)
        health = b.hub.health()
        assert (health.state, health.recovered) == ("up", 2)
        assert health.announced == 5, "and again, and the small room, of which too much was missed"


async def test_a_hub_of_one_process_is_ready() -> None:
    """On memory it is, started or not."""
    hub = Hub()
    assert hub.health().state == "up"
    async with hub:
        assert hub.health().since < 60
