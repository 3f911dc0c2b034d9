"""How fast one process publishes to many rooms of another one through one Redis, and what a room costs there.

    python -m tests.benchmarks.scale [--rooms 10000] [--tasks 16] [--rounds 5]

Every room has one member, on a node that publishes nothing. A second process publishes one message to each room, by
so many tasks, each of which waits until its message is published before the next. The rate counts until the last
member has its message. Target: 5,000 a second.

The memory of a room is what the node has more for connections that are in a room each than for as many that are in
none: the membership, the room, and its subscription.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from tests.benchmarks.clients import Client, connect, connect_all
from tests.benchmarks.servers import OURS, ROOT, Running, serve
from tests.redis_server import serve_redis

PATIENCE: Final = 60.0
"""Seconds for all messages to come."""

MOST_IDLE: Final = 2_000
"""Connections that are in no room."""

app = typer.Typer(add_completion=False)


class Listening(Client):
    """Gets one message."""

    def __init__(self, path: str, got: Callable[[], object], failed: Callable[[ConnectionError], object]) -> None:
        super().__init__(path, failed=failed)
        self._got = got

    def received(self, count: int) -> None:
        self._got()


@app.command()
def measure(
    rooms: Annotated[int, typer.Option(min=1, help="Rooms, and messages.")] = 10_000,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks that publish at the same time.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each on fresh servers.")] = 5,
) -> None:
    """Publish to many rooms on another node."""
    console = Console()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    rates: list[float] = []
    kept: list[float] = []
    for number in range(rounds):
        with serve_redis() as redis, serve("tests.benchmarks.app:app", OURS, {"WSB_REDIS": redis.url}) as node:
            rate, memory = uvloop.run(one_round(node, redis.url, rooms, tasks))
        rates.append(rate)
        kept.append(memory)
        console.print(f"{number + 1}/{rounds}: {rate:,.0f} messages a second, {memory:.2f} KiB a room")
    console.print(
        f"median of {rounds}: {statistics.median(rates):,.0f} messages a second ({min(rates):,.0f} to"
        f" {max(rates):,.0f}), {statistics.median(kept):.2f} KiB a room"
    )


async def one_round(node: Running, url: str, rooms: int, tasks: int) -> tuple[float, float]:
    """Return messages per second, and KiB that a room takes."""
    idle = await plain_memory(node, min(rooms, MOST_IDLE))
    before = node.memory()
    left = rooms
    all_have_it: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def got() -> None:
        nonlocal left
        left -= 1
        if not left:
            all_have_it.set_result(None)

    def failed(reason: ConnectionError) -> None:
        if not all_have_it.done():
            all_have_it.set_exception(reason)

    numbers = iter(range(rooms))
    members = await connect_all(node, lambda: Listening(f"/rooms/{next(numbers)}", got, failed), rooms)
    await asyncio.sleep(1)
    memory = (node.memory() - before) / rooms / 1024 - idle
    command = [sys.executable, "-m", "tests.benchmarks.publishing", url, str(rooms), str(tasks)]
    publisher = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert publisher.stdout is not None
    assert publisher.stdin is not None
    await publisher.stdout.readline()  # it is connected
    begin = perf_counter()
    publisher.stdin.write(b"\n")
    async with asyncio.timeout(PATIENCE):
        await all_have_it
    rate = rooms / (perf_counter() - begin)
    await publisher.wait()
    for member in members:
        member.close()
    return rate, memory


async def plain_memory(node: Running, count: int) -> float:
    """Return KiB of a connection that is in no room; they stay, so that no memory of theirs is used again."""
    await connect(node, lambda: Client("/echo"))
    before = node.memory()
    await connect_all(node, lambda: Client("/echo"), count)
    await asyncio.sleep(1)
    return (node.memory() - before) / count / 1024


if __name__ == "__main__":
    app()
