"""What goes wrong."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol, TypeAlias

from tests.cluster.cluster import PASSWORD, Cluster
from tests.cluster.proxy import Direction
from tests.redis_server import RedisServer
from tests.support import eventually

Happen: TypeAlias = Callable[[Cluster], Awaitable[None]]


class Freezable(Protocol):
    """A process."""

    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


def redis_killed(seconds: float) -> Happen:
    """Redis is killed with everything in its memory, and started again."""

    async def happen(cluster: Cluster) -> None:
        cluster.redis.kill()
        await asyncio.sleep(seconds)
        await asyncio.to_thread(cluster.redis.start)

    return happen


def redis_frozen(seconds: float) -> Happen:
    """Redis takes what is sent to it and answers nothing (SIGSTOP)."""

    async def happen(cluster: Cluster) -> None:
        cluster.redis.freeze()
        await asyncio.sleep(seconds)
        cluster.redis.thaw()

    return happen


def proxies_silent(seconds: float, *nodes: int) -> Happen:
    """Nothing comes through between Redis and some nodes, though nothing is closed."""

    async def happen(cluster: Cluster) -> None:
        proxies = [cluster.proxies[node] for node in nodes] or cluster.proxies
        for proxy in proxies:
            proxy.silence()
        await asyncio.sleep(seconds)
        for proxy in proxies:
            proxy.speak()

    return happen


def replies_silent(seconds: float) -> Happen:
    """Redis does what a node asks, and its answers are held back."""

    async def happen(cluster: Cluster) -> None:
        cluster.proxies[0].silence("replies")
        await asyncio.sleep(seconds)
        cluster.proxies[0].speak()

    return happen


def subscriber_stalled(seconds: float) -> Happen:
    """What is published does not come to one node, which can publish all the while."""

    async def happen(cluster: Cluster) -> None:
        cluster.proxies[0].stall_subscribers()
        await asyncio.sleep(seconds)
        cluster.proxies[0].speak()

    return happen


async def connections_cut(cluster: Cluster) -> None:
    """Every connection to Redis is reset, three times within a second."""
    for _ in range(3):
        for proxy in cluster.proxies:
            proxy.cut()
        await asyncio.sleep(0.3)


async def buffer_overflown(cluster: Cluster) -> None:
    """A node reads so slowly that Redis throws its subscriber out."""
    proxy, publisher = cluster.proxies[0], cluster.publishers[1]
    proxy.stall_subscribers()
    (port,) = proxy.subscribers()
    while f"addr=127.0.0.1:{port} " in await cluster.command("CLIENT LIST"):
        for _ in range(5):  # the kernels hold some MiB
            await publisher.send("plain:0", "x" * 30_000)
        await asyncio.sleep(0.02)
    proxy.speak()


async def old_snapshot(cluster: Cluster) -> None:
    """Redis saves, goes on, is killed, and comes back with what it had saved."""
    await cluster.command("BGSAVE")
    await asyncio.sleep(1)  # by then it is saved: there is little
    cluster.redis.kill()
    await asyncio.to_thread(cluster.redis.start)


async def flushed(cluster: Cluster) -> None:
    """Everything that Redis keeps is deleted, and no connection is lost."""
    await cluster.command("FLUSHALL")


async def failed_over(cluster: Cluster) -> None:
    """Redis is killed, and a replica of it takes its place."""
    options = ("--replicaof", "127.0.0.1", str(cluster.redis.port), "--masterauth", PASSWORD, "--requirepass", PASSWORD)
    directory = cluster.directory / "replica"
    directory.mkdir()
    replica = RedisServer(str(directory), options=options)
    try:
        await asyncio.to_thread(replica.start)
        for _ in range(100):
            if "master_link_status:up" in await cluster.command("INFO replication", replica):
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        cluster.redis.kill()
        await cluster.command("REPLICAOF NO ONE", replica)
        for proxy in cluster.proxies:
            proxy.target = replica.port
        cluster.servers.append(replica)
    except BaseException:
        replica.kill()
        raise


async def memory_full(cluster: Cluster) -> None:
    """Redis refuses to keep anything more, for three seconds."""
    await cluster.command("CONFIG SET maxmemory 1")
    await asyncio.sleep(3)
    await cluster.command("CONFIG SET maxmemory 0")


async def node_killed(cluster: Cluster) -> None:
    """A process is killed, and stays away."""
    cluster.nodes[0].kill()


def node_frozen(seconds: float) -> Happen:
    """A process does nothing for a while (SIGSTOP)."""

    async def happen(cluster: Cluster) -> None:
        began = time.monotonic()
        cluster.nodes[0].freeze()
        await asyncio.sleep(seconds)
        cluster.nodes[0].thaw()
        cluster.excused.append((0, began, time.monotonic() + 0.5))

    return happen


def starved(seconds: float, of: Callable[[Cluster], Freezable]) -> Happen:
    """A process gets a tenth of a second of each second, as on a machine that is overloaded."""

    async def happen(cluster: Cluster) -> None:
        process, began = of(cluster), time.monotonic()
        while time.monotonic() < began + seconds:
            process.freeze()
            await asyncio.sleep(0.9)
            process.thaw()
            await asyncio.sleep(0.1)

    return happen


async def rolling_restart(cluster: Cluster) -> None:
    """Every process is told to end (SIGTERM) and started again, one after the other."""
    for node in cluster.nodes:
        node.terminate()
        await eventually(node.has_ended, 15, what=f"node {node.number} has ended")
        node.spawn()
        await eventually(node.is_up, 60, what=f"node {node.number} is up")


def chaos(seconds: float) -> Happen:
    """One thing after the other goes wrong, at random; the seed is printed."""

    async def cut(cluster: Cluster, random: Random) -> None:
        random.choice(cluster.proxies).cut()

    async def silent(cluster: Cluster, random: Random) -> None:
        proxy = random.choice(cluster.proxies)
        directions: list[list[Direction]] = [[], ["requests"], ["replies"]]
        proxy.silence(*random.choice(directions))
        await asyncio.sleep(random.uniform(0.2, 6))
        proxy.speak()

    async def killed(cluster: Cluster, random: Random) -> None:
        await redis_killed(random.uniform(0, 2))(cluster)

    async def frozen(cluster: Cluster, random: Random) -> None:
        await redis_frozen(random.uniform(0.5, 4))(cluster)

    async def rewound(cluster: Cluster, random: Random) -> None:
        await old_snapshot(cluster)

    async def emptied(cluster: Cluster, random: Random) -> None:
        await flushed(cluster)

    async def restarted(cluster: Cluster, random: Random) -> None:
        node = random.choice(cluster.nodes)
        node.kill()
        node.spawn()
        await eventually(node.is_up, 60, what=f"node {node.number} is up")

    async def stopped(cluster: Cluster, random: Random) -> None:
        await node_frozen(random.uniform(0.5, 5))(cluster)

    async def happen(cluster: Cluster) -> None:
        seed = time.time_ns() % 1_000_000
        random, ends = Random(seed), time.monotonic() + seconds
        cluster.tell(f"seed {seed}")
        while time.monotonic() < ends:
            happens = random.choice([cut, silent, killed, frozen, rewound, emptied, restarted, stopped])
            cluster.tell(happens.__name__)
            await happens(cluster, random)
            await asyncio.sleep(random.uniform(0, 2))

    return happen
