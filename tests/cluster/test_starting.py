"""A process starts whether Redis is there or not, and says how it is."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.cluster.cluster import PASSWORD
from tests.cluster.lag import measured
from tests.cluster.nodes import Node
from tests.cluster.settings import Settings
from tests.redis_server import RedisServer
from tests.support import eventually

pytestmark = pytest.mark.timeout(300)


async def is_ready(node: Node) -> bool:
    """Ask a node whether it is ready."""
    async with httpx.AsyncClient() as client:
        assert (await client.get(node.http("/health/live"), timeout=20)).status_code == 200
        return (await client.get(node.http("/health/ready"), timeout=20)).status_code == 200


async def test_a_process_starts_without_redis(tmp_path: Path) -> None:
    """It is alive and not ready, and ready soon after Redis is there; each change is logged once."""
    redis = RedisServer(str(tmp_path), options=("--requirepass", PASSWORD))
    node = Node(0, Settings(url=f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"), tmp_path)
    try:
        node.spawn()
        await eventually(node.is_up, 60)
        assert not await is_ready(node)
        for _ in range(2):
            async with measured() as lag:
                await asyncio.to_thread(redis.start)
                began = time.monotonic()
                while not await is_ready(node):
                    assert time.monotonic() - began < lag.allows(5)
                    await asyncio.sleep(0.05)
            redis.kill()
            await asyncio.sleep(1.5)  # it tries to come back, and says nothing more
            assert not await is_ready(node)
    finally:
        redis.kill()
        node.stop()
    log = node.log.read_text()
    assert log.count(" is down: ") == 4, log  # before each start, after the last kill, and when it leaves


async def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    """A process that Redis does not let in says so, once for each connection, and not with which password it tried."""
    redis = RedisServer(str(tmp_path), options=("--requirepass", PASSWORD))
    node = Node(0, Settings(url=f"redis://:another-secret@127.0.0.1:{redis.port}/0"), tmp_path)
    redis.start()
    try:
        node.spawn()
        await eventually(node.is_up, 60)
        assert not await is_ready(node)
        await asyncio.sleep(1)
    finally:
        redis.kill()
        node.stop()
    log = node.log.read_text()
    assert 1 <= log.count("can't be used: user and password are not right") <= 2, log
    assert "another-secret" not in log


async def test_a_node_that_could_not_start_is_told(tmp_path: Path) -> None:
    """Another process that listens on its port is not taken for it."""
    settings = Settings(url="redis://127.0.0.1:1/0")
    node, other = Node(0, settings, tmp_path), Node(1, settings, tmp_path)
    other.port = node.port
    try:
        node.spawn()
        await eventually(node.is_up, 60)
        other.spawn()
        await eventually(other.has_ended, 60)
        with pytest.raises(RuntimeError, match="address already in use"):
            other.stop()
    finally:
        node.stop()
