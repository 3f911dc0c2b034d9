"""`RedisBroker` keeps the contract of a broker, on every Redis that there is."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import Final

import pytest
from redis.asyncio import RedisCluster as Client

from tests.brokers.redis.cluster import CLUSTERABLE, RedisCluster
from tests.brokers.redis.proxy import Proxy, serve_proxy
from tests.redis_server import RedisServer
from wsrouter.brokers import Broker
from wsrouter.brokers.base import Target
from wsrouter.brokers.redis import RedisBroker
from wsrouter.brokers.redis.names import Names
from wsrouter.testing.brokers import BrokerContract

TTL: Final = 1.5


class RedisContract(BrokerContract):
    """Every node has a proxy of its own before a real server."""

    server: RedisServer
    deadline = 2.0
    notice = 5.0
    ttl = TTL

    async def nodes(self, count: int) -> Sequence[Broker]:
        self.prefix = f"test-{token_hex(4)}:"
        self.opened = AsyncExitStack()
        self.proxies: dict[Broker, Proxy] = {}
        for _ in range(count):
            proxy = await self.opened.enter_async_context(serve_proxy(self.server.port))
            self.proxies[self.broker(proxy)] = proxy
        return list(self.proxies)

    def broker(self, proxy: Proxy) -> RedisBroker:
        """Return the broker of one node."""
        return RedisBroker(proxy.url, prefix=self.prefix, timeout=self.deadline, heartbeat=0.3, ttl=TTL)

    async def cleanup(self) -> None:
        await self.opened.aclose()

    async def cut(self, broker: Broker) -> None:
        self.proxies[broker].refuses = True
        self.proxies[broker].cut()

    async def silence(self, broker: Broker) -> None:
        self.proxies[broker].passes.clear()

    async def mend(self, broker: Broker) -> None:
        self.proxies[broker].refuses = False
        self.proxies[broker].passes.set()

    async def rewind(self) -> None:
        self.server.ask("FLUSHALL")

    async def forge(self, target: Target, name: str, payload: bytes) -> None:
        self.server.ask("PUBLISH", Names(self.prefix, 0).channel(target, name), payload)


class TestRedisBroker(RedisContract):
    """All of it, on one server."""

    @pytest.fixture(autouse=True)
    def use_server(self, redis_server: RedisServer) -> None:
        self.server = redis_server


@pytest.mark.skipif(not CLUSTERABLE, reason="sharded channels need Redis 7 on PATH")
class TestRedisBrokerOnACluster(RedisContract):
    """All of it, on a cluster of one server that has all slots."""

    @pytest.fixture(autouse=True)
    def use_cluster(self, one_cluster: RedisCluster) -> None:
        self.server = one_cluster.servers[0]

    def broker(self, proxy: Proxy) -> RedisBroker:
        # The cluster tells its own address, which is not that of the proxy.
        client = Client(host="127.0.0.1", port=proxy.port, address_remap=lambda _: ("127.0.0.1", proxy.port))
        return RedisBroker(client=client, prefix=self.prefix, timeout=self.deadline, heartbeat=0.3, ttl=TTL)

    async def forge(self, target: Target, name: str, payload: bytes) -> None:
        self.server.ask("SPUBLISH", Names(self.prefix, 0).channel(target, name), payload)


class Restarted(RedisContract):
    """The server is killed, and comes back with nothing."""

    async def rewind(self) -> None:
        self.server.kill()
        self.server.start()


class Restored(Restarted):
    """The server is killed, and comes back with what it saved."""

    async def rewind(self) -> None:
        self.server.ask("SAVE")
        await super().rewind()


@pytest.mark.parametrize("contract", [Restarted, Restored])
async def test_a_server_that_is_started_again_begins_another_epoch(
    contract: type[RedisContract], own_server: RedisServer
) -> None:
    """Nobody knows whether what it saved is all that it had, so no position of before is good."""
    running = contract()
    running.server = own_server
    await running.test_a_server_that_lost_its_memory_begins_another_epoch()
