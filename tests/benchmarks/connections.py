"""Workloads in which every connection is on its own: echo, handshakes, memory."""

import asyncio
from typing import Final

from tests.benchmarks.clients import Client, connect, connect_all, masked
from tests.benchmarks.figures import HANDSHAKES, MEMORY, MESSAGES, Figures, Scale
from tests.benchmarks.servers import TICKS, Running

WARM_UP: Final = 0.2
"""Seconds of load before it counts: a server is slower at first."""
MESSAGE: Final = masked(b'{"type":"echo","data":{"id":1234567,"text":"aaaaaaaaaaaaaaa"}}')


class Echoing(Client):
    """Sends a message again as soon as the reply is there."""

    replies = 0

    def received(self, count: int) -> None:
        self.replies += count
        self.write(MESSAGE)


async def echo(server: Running, path: str, scale: Scale) -> Figures:
    """Echo over 100 connections, each with one message outstanding."""
    clients = await connect_all(server, lambda: Echoing(path), 100)
    for client in clients:
        client.write(MESSAGE)
    await asyncio.sleep(WARM_UP)
    before, cpu = sum(client.replies for client in clients), server.cpu()
    await asyncio.sleep(scale.seconds)
    messages, used = sum(client.replies for client in clients) - before, server.cpu() - cpu
    for client in clients:
        client.close()
    return {MESSAGES: messages / max(used, 1 / TICKS)}


async def handshakes(server: Running, path: str, scale: Scale, *, at_once: int) -> Figures:
    """Open connections, and let them be."""
    count = max(1, int(500 * scale.seconds))
    clients = await connect_all(server, lambda: Client(path), at_once, at_once)
    cpu = server.cpu()
    clients += await connect_all(server, lambda: Client(path), count, at_once)
    used = server.cpu() - cpu
    for client in clients:
        client.close()
    return {HANDSHAKES: count / max(used, 1 / TICKS)}


async def memory(server: Running, path: str, scale: Scale) -> Figures:
    """Keep connections that do nothing, twice as many as a room has members."""
    count = 2 * scale.members
    clients = [await connect(server, lambda: Client(path))]  # whatever is made only once
    before = server.memory()
    clients += await connect_all(server, lambda: Client(path), count)
    await asyncio.sleep(0.5)
    used = server.memory() - before
    for client in clients:
        client.close()
    return {MEMORY: used / count / 1024}
