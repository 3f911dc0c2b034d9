"""Brokers on every Redis that there is."""

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.brokers.redis.cluster import CLUSTERABLE, RedisCluster, serve_cluster
from tests.brokers.redis.nodes import HasUrl, NodeOf, Open, open_node
from tests.redis_server import RedisServer, executables, serve_redis

SERVERS = executables()


@pytest.fixture(scope="module", params=SERVERS.values(), ids=list(SERVERS))
def redis_server(request: pytest.FixtureRequest) -> Generator[RedisServer]:
    """A server that the tests of a module share."""
    with serve_redis(request.param) as server:
        yield server


@pytest.fixture(params=SERVERS.values(), ids=list(SERVERS))
def own_server(request: pytest.FixtureRequest) -> Generator[RedisServer]:
    """A server of the test's own, which it may kill."""
    with serve_redis(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=CLUSTERABLE.values(), ids=list(CLUSTERABLE))
def one_cluster(request: pytest.FixtureRequest) -> Generator[RedisCluster]:
    """A cluster of one server that the tests of a module share."""
    with serve_cluster(request.param, 1) as cluster:
        yield cluster


@pytest.fixture
async def opened() -> AsyncGenerator[Open]:
    """Opens nodes, and closes them at the end of the test."""
    async with AsyncExitStack() as stack:

        async def enter(server: HasUrl, **options: Any) -> NodeOf:
            return await stack.enter_async_context(open_node(server.url, **options))

        yield enter
