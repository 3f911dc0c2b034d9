"""What is for a user reaches every device, and nobody else, on whatever node it is."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.cluster.cluster import Cluster, Setting, start
from tests.cluster.lag import Lag, measured
from tests.cluster.nodes import Node

pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def device(node: Node, user: str, path: str = "/desk") -> AsyncGenerator[ClientConnection]:
    """Connect a device of a user to a node."""
    async with connect(node.url(f"{path}?name={user}"), proxy=None) as ws:
        yield ws


async def receive(ws: ClientConnection, within: float = 20.0) -> Any:
    async with asyncio.timeout(within):
        return json.loads(await ws.recv())


async def close_code(ws: ClientConnection, within: float = 20.0) -> int:
    """Return the code that a connection is closed with; what comes before is thrown away."""
    async with asyncio.timeout(within):
        await ws.wait_closed()
    close = ws.protocol.close_rcvd
    assert close is not None
    return close.code


async def call(ws: ClientConnection, type: str, data: Any) -> Any:
    """Send a call, and return its answer."""
    await ws.send(json.dumps({"type": type, "id": 1, "data": data}))
    while (frame := await receive(ws)).get("id") != 1:
        pass
    return frame


async def disconnect(node: Node, user: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(node.http(f"/disconnect/{user}"), timeout=20)
        answer.raise_for_status()


async def test_users_across_nodes(tmp_path: Path) -> None:
    """A message for a user comes once to every device on every node, and to disconnect them closes them all."""
    async with start(Setting(), tmp_path) as cluster:
        nodes = cluster.nodes
        async with (
            device(nodes[0], "ada") as first,
            device(nodes[1], "ada") as second,
            device(nodes[2], "bob") as other,
            device(nodes[2], "eve") as speaker,
        ):
            for user in "ada", "bob":
                await send_to(speaker, user)
            for ws in first, second, other:
                assert (await receive(ws))["type"] == "note"
            await disconnect(nodes[2], "ada")
            assert [await close_code(first), await close_code(second)] == [4403, 4403]
            async with device(nodes[1], "ada") as again:
                for user in "ada", "bob":
                    await send_to(speaker, user)
                for ws in again, other:
                    assert (await receive(ws))["type"] == "note"
        async with measured() as lag:
            await revoked_while_cut_off(cluster)
            await refused_while_away(cluster, lag)


async def send_to(ws: ClientConnection, user: str) -> None:
    data = {"target": f"user:{user}", "publisher": "eve", "number": 1}
    assert (await call(ws, "publish", data))["data"]["outcome"] == "acknowledged"


async def revoked_while_cut_off(cluster: Cluster) -> None:
    """A user that is disconnected while a node can't hear of it is closed there when it can again."""
    async with device(cluster.nodes[0], "eve") as ws:
        cluster.proxies[0].silence()
        await disconnect(cluster.nodes[1], "eve")
        await asyncio.sleep(1)
        cluster.proxies[0].cut()
        cluster.proxies[0].speak()
        assert await close_code(ws) == 4403


async def refused_while_away(cluster: Cluster, lag: Lag) -> None:
    """While Redis is away who publishes is told ``unavailable`` with ``retry``, within the deadline."""
    async with device(cluster.nodes[0], "ada") as ws:
        cluster.redis.kill()
        for room in "history:0", "plain:0", "history:0":
            began = time.monotonic()
            error = (await call(ws, "plainly", room))["error"]
            assert (error["code"], error["retry"]) == ("unavailable", True)
            assert time.monotonic() - began < lag.allows(2.5)
        for room in "history:1", "plain:1":
            began = time.monotonic()
            error = (await call(ws, "$join", {"room": room}))["error"]
            assert (error["code"], error["retry"]) == ("unavailable", True)
            assert time.monotonic() - began < lag.allows(2.5)
        began = time.monotonic()
        await asyncio.to_thread(cluster.redis.start)
        while "error" in await call(ws, "$join", {"room": "history:1"}):
            assert time.monotonic() - began < lag.allows(5)
            await asyncio.sleep(0.05)


async def test_limits_across_nodes(tmp_path: Path) -> None:
    """A limit that holds everywhere counts the connections on all nodes, and those of a killed node no longer.

    A Redis that has lost everything is told of them again.
    """
    async with start(Setting(ttl=3, heartbeat=0.5), tmp_path) as cluster, measured() as lag:
        nodes = cluster.nodes
        async with device(nodes[0], "ada", "/limited"), device(nodes[1], "ada", "/limited") as second:
            assert await status(nodes[2]) == 429
            async with device(nodes[2], "bob", "/limited"):
                pass
            await cluster.command("FLUSHALL")
            await until(nodes[2], 429, 5, lag)
            await second.close()
            await until(nodes[2], 101, 1, lag)
            async with device(nodes[1], "ada", "/limited"):
                assert await status(nodes[2]) == 429
                nodes[0].kill()
                assert await status(nodes[2]) == 429
                await until(nodes[2], 101, 5, lag)
        async with device(nodes[1], "ada", "/newest") as old, device(nodes[2], "ada", "/newest"):
            assert await close_code(old) == 4409


async def status(node: Node) -> int:
    """Return the status that a connection of ada's is denied with, 101 if it is not."""
    try:
        async with device(node, "ada", "/limited"):
            return 101
    except InvalidStatus as denial:
        return denial.response.status_code


async def until(node: Node, wanted: int, within: float, lag: Lag) -> None:
    """Connect again and again, until it ends in what is wanted."""
    began = time.monotonic()
    while (got := await status(node)) != wanted:
        assert time.monotonic() - began < lag.allows(within), f"still {got}"
        await asyncio.sleep(0.1)
