"""The workload of a room in which one member never reads."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf, isinf
from time import perf_counter
from typing import Final

from tests.benchmarks.clients import PATIENCE, handshake, masked
from tests.benchmarks.figures import CLOSED, GONE, GROWTH, SHARE, SLOWER, Figures, Scale, p99
from tests.benchmarks.room import Room, open_room
from tests.benchmarks.servers import Running, ServerEnd

MESSAGE: Final = masked(b'{"type":"publish","data":{"id":1234567,"text":"' + b"a" * 60 * 1024 + b'"}}')
MEMBERS: Final = 20
TIMES: Final = 5
"""A stall takes so many times the seconds of other workloads: the kernel's buffers are to be filled first."""
WINDOW: Final = 4096
"""Bytes that the stalled member's kernel is asked to keep."""


class Watch:
    """What a stalled member does to a server.

    Args:
        server: which.
        stalled: its end of the connection.
    """

    def __init__(self, server: Running, stalled: ServerEnd) -> None:
        self.closed = inf
        """Seconds until the server has closed the connection."""
        self.gone = inf
        """Seconds until the kernel has nothing left of it."""
        self._server = server
        self._stalled = stalled
        self._begin = perf_counter()
        self._before = self._highest = server.memory()

    @property
    def growth(self) -> int:
        """Bytes of memory that were taken at most."""
        return self._highest - self._before

    def look(self) -> bool:
        """Look at both, and tell whether the connection is gone."""
        self._highest = max(self._highest, self._server.memory())
        if not self._stalled.is_open():
            after = perf_counter() - self._begin
            self.closed = min(self.closed, after)
            if isinf(self.gone) and not self._stalled.is_kept():
                self.gone = after
        return not isinf(self.gone)


async def stall(server: Running, path: str, scale: Scale, *, hz: int = 20) -> Figures:
    """Publish messages of 60 KiB to members that read; then the same with one more member, which does not.

    Args:
        hz: publications a second.
    """
    async with open_room(server, path, min(MEMBERS, scale.members)) as room:
        count = max(1, int(scale.seconds * TIMES * hz))
        await publish(room, hz, max(1, hz // 4))  # a server is slower at first
        await room.finish()
        room.delays.clear()
        await publish(room, hz, count)
        await room.finish()
        usual = p99(room.delays, count * room.size)
        room.delays.clear()
        async with deaf(server, path) as stalled:
            watch = Watch(server, stalled)
            await publish(room, hz, count, watch.look)
            await room.settle(scale.seconds * TIMES, watch.look)
    expected = count * room.size
    return {
        SHARE: len(room.delays) / expected * 100,
        SLOWER: p99(room.delays, expected) / usual,
        GROWTH: watch.growth / 2**20,
        CLOSED: watch.closed,
        GONE: watch.gone,
    }


async def publish(room: Room, hz: int, count: int, look: Callable[[], object] = lambda: None) -> None:
    """Publish at a pace, whether what was published before has arrived or not."""
    begin = perf_counter()
    for number in range(count):
        room.publish(MESSAGE)
        look()
        await asyncio.sleep(begin + (number + 1) / hz - perf_counter())


@asynccontextmanager
async def deaf(server: Running, path: str) -> AsyncGenerator[ServerEnd]:
    """Let a member join that reads nothing but the response to its handshake, and give the server's end of it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        client.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            await loop.sock_sendall(client, handshake(path))
            head = await loop.sock_recv(client, 1024)
        if b" 101 " not in head:
            raise ConnectionError(f"the server answered {head!r}")
        await asyncio.sleep(0.2)  # the response comes before on_connect
        yield server.end_of(client.getsockname()[1])
