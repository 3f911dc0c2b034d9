"""Two hubs on a real Redis that is killed, frozen and started again: no client misses anything without a word."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.brokers.redis.conftest import SERVERS
from tests.envelopes import close_of, receive
from tests.nodes import Node, Said, log_in, nodes_on
from tests.redis_server import RedisServer, serve_redis
from tests.support import eventually
from wsrouter import BrokerError, Hub
from wsrouter.brokers.redis import RedisBroker
from wsrouter.guards import ConnectionLimit

FEED = "feed:tea"


@pytest.fixture(params=SERVERS.values(), ids=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Generator[RedisServer]:
    with serve_redis(request.param) as server:
        yield server


@asynccontextmanager
async def two(server: RedisServer, **options: Any) -> AsyncGenerator[list[Node[RedisBroker]]]:
    prefix = token_hex(4)
    brokers = [RedisBroker(server.url, prefix=prefix, timeout=0.5, heartbeat=0.5, ttl=5.0) for _ in range(2)]
    async with nodes_on(brokers, **options) as made:
        await eventually(lambda: all(node.hub.health().state == "up" for node in made))
        yield made


class Reader:
    """A client of a room with history and of one without, that takes notes and loses nothing."""

    def __init__(self, ws: ClientConnection) -> None:
        self.said: list[int] = []
        self.restarts: list[int] = []
        """After how many publications it was told that it did not recover."""
        self.plain: list[int | None] = []
        """What came in the room without history, ``None`` for a gap."""
        self.position = ("", 0)
        self._task = asyncio.create_task(self._read(ws))

    async def _read(self, ws: ClientConnection) -> None:
        while True:
            frame = await receive_whenever(ws)
            if frame.get("room") == "hall":
                self.plain.append(None if frame["type"] == "$gap" else frame["data"]["n"])
            elif frame["type"] == "$joined":
                if self.position[0]:
                    self.restarts.append(len(self.said))
                self.position = frame["data"]["epoch"], frame["data"]["offset"]
            elif frame["type"] == "said":
                assert frame["offset"] == self.position[1] + 1, "no hole, and nothing twice"
                self.position = self.position[0], frame["offset"]
                self.said.append(frame["data"]["n"])

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


async def receive_whenever(ws: ClientConnection) -> Any:
    while True:
        with suppress(TimeoutError):
            return await receive(ws)


async def publish(node: Node[RedisBroker], room: str, n: int) -> bool:
    """Publish, and return whether it was acknowledged."""
    try:
        await node.hub.broadcast(room, Said(n=n))
    except BrokerError:
        return False
    return True


async def test_what_is_there_without_faults(server: RedisServer) -> None:
    """Members of both nodes get what either publishes, users are reached, and a place is one on both."""
    guards = [log_in, ConnectionLimit(per_user=1, everywhere=True, on_full="replace_oldest")]
    async with two(server, guards=lambda: guards) as (a, b):
        one, other = await a.enter(f"user=ada&room={FEED}"), await b.enter(f"user=bob&room={FEED}")
        first = [await receive(ws) for ws in (one, other)]
        assert first[0]["data"] == first[1]["data"]
        for n, node in enumerate((a, b, a)):
            await node.hub.broadcast(FEED, Said(n=n))
        for ws in one, other:
            assert [(await receive(ws))["offset"] for _ in range(3)] == [1, 2, 3]
        await b.hub.send_to_user("ada", Said(n=3))
        assert (await receive(one))["data"] == {"n": 3}
        await b.enter("user=ada")
        assert await close_of(one) == (4409, "replaced by another connection")
        await a.hub.disconnect_user("bob")
        assert (await close_of(other))[0] == 4403


async def test_a_hub_without_connections_is_not_for_other_event_loops(server: RedisServer) -> None:
    """What connects processes lives in the loop that started it: a thread is told so, and does not wait for ever."""
    async with Hub(RedisBroker(server.url)) as hub:
        with pytest.raises(RuntimeError, match=r"another event loop: .* anyio\.from_thread\.run"):
            await asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(hub.broadcast(FEED, Said(n=1)), 5)))
        await hub.broadcast(FEED, Said(n=1))


@pytest.mark.parametrize("how", ["killed", "frozen", "flushed"])
async def test_a_server_that_fails(server: RedisServer, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """While both nodes publish the server goes away for two seconds, or forgets everything. Every acknowledged
    publication comes, or clients are told; handlers are not held up; and all is well again soon."""
    caplog.set_level(logging.CRITICAL, "wsrouter")
    async with two(server) as made:
        readers = [Reader(await node.enter(f"room={FEED}&room=hall")) for node in made for _ in range(3)]
        acknowledged: list[int] = []
        longest, number, going_on = 0.0, 0, True

        async def keep_publishing(node: Node[RedisBroker]) -> None:
            nonlocal longest, number
            while going_on:
                number += 1
                n = number
                began = monotonic()
                if await publish(node, FEED, n):
                    acknowledged.append(n)
                await publish(node, "hall", n)
                longest = max(longest, monotonic() - began)
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as publishing:
            for node in made:
                publishing.create_task(keep_publishing(node))
            await asyncio.sleep(0.5)
            if how == "killed":
                server.kill()
                await asyncio.sleep(2)
                server.start()
            elif how == "frozen":
                server.freeze()
                await asyncio.sleep(2)
                server.thaw()
            else:
                server.ask("FLUSHALL")
            back = monotonic()
            await eventually(lambda: all(node.hub.health().state == "up" for node in made), timeout=5)
            before = len(acknowledged)
            await eventually(lambda: len(acknowledged) > before, timeout=5)
            began_well = number
            await eventually(lambda: all(each.said[-1] > began_well for each in readers), timeout=5)
            going_on = False
        last = number = number + 1
        assert await publish(made[0], FEED, last)
        assert await publish(made[0], "hall", last)
        await eventually(lambda: all(each.said[-1] == last and each.plain[-1] == last for each in readers), timeout=5)
        assert monotonic() - back < 10
        assert longest < 2.5
        for reader in readers:
            await reader.aclose()
            assert len(set(reader.said)) == len(reader.said)
            if not reader.restarts:
                assert {*acknowledged} <= {*reader.said}
            elif how == "frozen":
                raise AssertionError("what is kept is recovered")
        if how != "flushed":
            assert all(None in reader.plain for reader in readers)
