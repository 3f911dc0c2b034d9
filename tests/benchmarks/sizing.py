"""What connections, rooms, users and members cost a process and its Redis.

    python -m tests.benchmarks.sizing [--connections 10000] [--rounds 3] [--minutes 2] [--only room]

Memory of a process is what it has more for so many connections, divided by them: in nothing, all in one room, in a
room each (of each sort), and of a user each; with `MemoryBroker` and with `RedisBroker`. What one thing takes is a
difference.

The rest is what Redis tells of itself (``INFO``, ``MEMORY USAGE``) when three nodes use it.
"""

import asyncio
import resource
import statistics
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.app import Note
from tests.benchmarks.clients import Client, connect, connect_all
from tests.benchmarks.servers import OURS, Running, serve
from tests.benchmarks.sizing_app import ROOMS
from tests.redis_server import RedisServer, serve_redis
from wsrouter import History, Hub
from wsrouter.brokers import Entry
from wsrouter.brokers.redis import RedisBroker

KINDS: Final = ("nothing", "shared", "room", "history", "presence", "user")
TEXT: Final = "a" * 46
"""Makes the data of a publication 67 bytes of JSON."""
PUBLICATIONS: Final = 2_000
NODES: Final = 3
MEMBERS: Final = 1_000
"""Of each node."""

app = typer.Typer(add_completion=False)


@app.command()
def measure(
    connections: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each on fresh servers.")] = 3,
    minutes: Annotated[float, typer.Option(min=0.01, help="To count the commands of nodes at rest.")] = 2.0,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(KINDS)}; may be given again.")] = None,
) -> None:
    """Measure what connections, rooms, users and members cost."""
    console = Console()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    table = Table("each connection is in", "MemoryBroker", "RedisBroker", "Redis", title="Memory of a connection")
    for kind in only or KINDS:
        alone = [of_process(kind, connections, None)[0] for _ in range(rounds)]
        with_redis: list[tuple[float, float]] = []
        for _ in range(rounds):
            with serve_redis() as redis:
                with_redis.append(of_process(kind, connections, redis))
        process, server = zip(*with_redis, strict=True)
        table.add_row(kind, *(f"{statistics.median(kib):.2f} KiB" for kib in (alone, process, server)))
    console.print(table)
    with serve_redis() as redis:
        console.print(f"Redis {redis.ask('INFO', 'server')['redis_version']}")
        for line in uvloop.run(of_redis(redis, minutes * 60)):
            console.print(line, highlight=False)


def of_process(kind: str, connections: int, redis: RedisServer | None) -> tuple[float, float]:
    """Return KiB of a process, and of Redis, for each connection of a kind."""
    environment = {} if redis is None else {"WSB_REDIS": redis.url}
    with serve("tests.benchmarks.sizing_app:app", OURS, environment) as node:
        return uvloop.run(of_connections(node, kind, connections, redis))


async def of_connections(node: Running, kind: str, count: int, redis: RedisServer | None) -> tuple[float, float]:
    """Return KiB of a process, and of Redis, for each of so many connections."""

    def memory() -> tuple[int, int]:
        return node.memory(), 0 if redis is None else redis.ask("INFO", "memory")["used_memory"]

    first = await connect(node, lambda: Client(f"/{kind}/{count}"))
    before = memory()
    numbers = iter(range(count))
    clients = await connect_all(node, lambda: Client(f"/{kind}/{next(numbers)}"), count)
    await asyncio.sleep(1)
    of_node, of_server = (after - then for after, then in zip(memory(), before, strict=True))
    for client in (first, *clients):
        client.close()
    return of_node / count / 1024, of_server / count / 1024


async def of_redis(redis: RedisServer, seconds: float) -> list[str]:
    """Return what three nodes cost Redis, as lines."""
    hubs = [Hub(RedisBroker(redis.url), rooms=ROOMS) for _ in range(NODES)]
    lines: list[str] = []
    for hub in hubs:
        await hub.__aenter__()
    try:
        lines.append(f"connections of {NODES} nodes: {redis.ask('INFO', 'clients')['connected_clients'] - 1}")
        publisher, subscriber, _ = hubs
        history = History(size=100)
        await subscriber.node.broker.subscribe("room", "room 1")
        await subscriber.node.broker.subscribe("room", "history 1", history)
        lines += [await of_publications(redis, publisher, room) for room in ("room 1", "history 1")]
        lines.append(f"a room with a history of {history.size}: {size(redis, 'stream', 'kept'):,} bytes")
        lines.append(f"at rest, per node and minute: {await at_rest(redis, seconds)}")
        for hub in hubs:
            node = hub.node
            devices = (Entry(f"{node.id}-{number}", node.id, f"user {number}") for number in range(MEMBERS))
            await node.broker.announce("presence 1", [*devices])
        lines.append(f"a member in presence: {size(redis, 'entries') / MEMBERS / NODES:,.0f} bytes")
        lines.append(f"the same with {MEMBERS:,} members each: {await at_rest(redis, seconds)}")
    finally:
        for hub in hubs:
            await hub.__aexit__(None, None, None)
    return lines


async def of_publications(redis: RedisServer, hub: Hub, room: str) -> str:
    """Return what a publication costs that one other node gets."""
    message = Note(id=1000, text=TEXT)
    before = totals(redis)
    for _ in range(PUBLICATIONS):
        await hub.broadcast(room, message)
    await asyncio.sleep(0.2)
    spent = {name: (value - before[name]) / PUBLICATIONS for name, value in totals(redis).items()}
    return (
        f"a publication to {room!r}: {spent['total_net_input_bytes']:.0f} bytes to Redis,"
        f" {spent['total_net_output_bytes']:.0f} from it, {spent['cpu'] * 1_000_000:.0f} µs of its CPU"
    )


def totals(redis: RedisServer) -> Mapping[str, float]:
    """Return what Redis has received, sent and used since it started."""
    stats, cpu = redis.ask("INFO", "stats"), redis.ask("INFO", "cpu")
    return {
        "total_net_input_bytes": stats["total_net_input_bytes"],
        "total_net_output_bytes": stats["total_net_output_bytes"],
        "cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    }


def size(redis: RedisServer, *kinds: str) -> int:
    """Return the bytes of all keys of some kinds."""
    keys = [key.decode() for key in redis.ask("KEYS", "*")]
    wanted = [key for key in keys if key.split(":")[1] in kinds]
    return sum(redis.ask("MEMORY", "USAGE", key, "SAMPLES", 0) for key in wanted)


async def at_rest(redis: RedisServer, seconds: float) -> str:
    """Return the commands of a node per minute while nothing is published, those within scripts in brackets."""
    await asyncio.sleep(1)
    before = calls(redis)
    await asyncio.sleep(seconds)
    counts = {
        name: (count - before.get(name, 0)) * 60 / seconds / NODES
        for name, count in calls(redis).items()
        if name not in ("client", "hello", "info", "keys", "memory") and count > before.get(name, 0)
    }
    return ", ".join(f"{name} {count:.1f}" for name, count in sorted(counts.items()))


def calls(redis: RedisServer) -> Mapping[str, int]:
    """Return how often each command was called."""
    stats: Mapping[str, Any] = redis.ask("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


if __name__ == "__main__":
    app()
