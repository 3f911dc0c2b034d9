"""A process that publishes one message to each of many rooms, for `tests.benchmarks.scale`: ``URL ROOMS TASKS``.

It says when it is connected, and begins when it is sent a line.
"""

import asyncio
import os
import sys

import uvloop

from tests.benchmarks.app import Note
from tests.benchmarks.servers import cores
from wsrouter import Hub
from wsrouter.brokers.redis import RedisBroker


async def publish_all(url: str, rooms: int, tasks: int) -> None:
    """Publish a message to every room."""
    async with Hub(RedisBroker(url)) as hub:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        numbers = iter(range(rooms))

        async def task() -> None:
            for number in numbers:
                await hub.broadcast(f"room {number}", Note(id=number, text="a" * 15))

        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(task())


if __name__ == "__main__":
    os.sched_setaffinity(0, {cores()[1]})
    uvloop.run(publish_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
