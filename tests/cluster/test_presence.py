"""Who is in a room is the same on every node, whatever becomes of a node."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.cluster.clients import Client
from tests.cluster.cluster import Cluster, Setting, running, start
from tests.cluster.lag import measured
from tests.cluster.nodes import Node
from tests.support import eventually

pytestmark = pytest.mark.timeout(300)

ROOM = "here:0"


async def presence(node: Node) -> set[str]:
    """Return who is in the room, as a node says."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(node.http(f"/presence/{ROOM}"), timeout=20)
        return set(answer.raise_for_status().json())


def all_see(clients: Sequence[Client], users: set[str]) -> bool:
    """Tell whether these are in the room, each with one device, as all clients see it."""
    views = [client.presence[ROOM].members for client in clients]
    return all(set(view) == users and all(len(devices) == 1 for devices in view.values()) for view in views)


def clients_of(cluster: Cluster, count: int) -> list[Client]:
    return [Client(f"user-{number}", cluster.nodes, number % 3, [ROOM]) for number in range(count)]


async def test_a_killed_node_leaves_nobody_behind(tmp_path: Path) -> None:
    """Who was on a node that is killed is in presence for no longer than the ttl, and who comes back stays."""
    ttl = 3.0
    async with start(Setting(ttl=ttl, heartbeat=0.5, presence_grace=1), tmp_path) as cluster:
        watchers = [Client(f"watcher-{node}", cluster.nodes, node, [ROOM]) for node in (1, 2)]
        gone = Client("gone", cluster.nodes[:1], 0, [ROOM])
        moves = Client("moves", cluster.nodes, 0, [ROOM])
        everybody = {"watcher-1", "watcher-2", "gone", "moves"}
        async with running([*watchers, gone, moves]), measured() as lag:
            await eventually(lambda: all_see([*watchers, gone, moves], everybody), 20)
            assert await presence(cluster.nodes[2]) == everybody
            killed = time.monotonic()
            cluster.nodes[0].kill()
            await eventually(lambda: all_see([*watchers, moves], everybody - {"gone"}), 20)
            assert time.monotonic() - killed < lag.allows(ttl + 1)
            for node in cluster.nodes[1:]:
                assert await presence(node) == everybody - {"gone"}
        users = [
            user for watcher in watchers for _, change, user, _ in watcher.presence[ROOM].changes if change == "leave"
        ]
        assert set(users) <= {"gone", "moves"}


async def test_a_rolling_restart_is_no_storm(tmp_path: Path) -> None:
    """All nodes are restarted one after the other; whoever comes back elsewhere was never seen to leave.

    Nor are two who drop their connection all the time.
    """
    grace = 4.0
    async with start(Setting(presence_grace=grace), tmp_path) as cluster:
        hops = [Client(f"hops-{node}", cluster.nodes, node, [ROOM], restless=1.0) for node in (0, 1)]
        clients = [*clients_of(cluster, 7), *hops]
        everybody = {client.user for client in clients}
        async with running(clients):
            await eventually(lambda: all_see(clients, everybody), 20)
            began = time.monotonic()
            for node in cluster.nodes:
                node.terminate()
                await eventually(node.has_ended, 20)
                node.spawn()
                await eventually(node.is_up, 60)
            for client in hops:
                client.settle()
            await eventually(lambda: all(client.is_member() for client in clients), 20)
            await asyncio.sleep(grace + 0.5)  # nobody leaves when the grace is over, either
            assert all_see(clients, everybody)
            changes = [change for client in clients for change in client.presence[ROOM].changes]
            assert [change for change in changes if change[0] > began] == []
            for node in cluster.nodes:
                assert await presence(node) == everybody
