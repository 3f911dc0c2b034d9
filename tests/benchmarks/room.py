"""One room as its clients see it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from tests.benchmarks.clients import Client, connect, connect_all
from tests.benchmarks.servers import Running

PUBLISH: Final = "/pub"
FINISH: Final = 10.0
"""Seconds that are waited for what was published, once nothing more is."""


class Member(Client):
    """Tells of each message by its number, the first one being 0."""

    def __init__(
        self, path: str, delivered: Callable[[int], object], failed: Callable[[ConnectionError], object], deflate: bool
    ) -> None:
        super().__init__(path, deflate=deflate, failed=failed)
        self._delivered = delivered
        self._next = 0

    def received(self, count: int) -> None:
        begin = self._next
        self._next += count
        for number in range(begin, self._next):
            self._delivered(number)


class Room:
    """A publisher, and members that tell what reaches them.

    Args:
        size: how many members.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.publisher: Client
        self.delays: list[float] = []
        """Seconds from a publication to a member, for each delivery."""
        self.lost: ConnectionError | None = None
        """Why a member, or the publisher, has lost its connection."""
        self._next: bytes | None = None
        self._sent: list[float] = []
        self._missing: list[int] = []
        self._outstanding = 0

    def publish(self, frame: bytes) -> None:
        """Publish a message."""
        self._sent.append(perf_counter())
        self._missing.append(self.size)
        self._outstanding += 1
        self.publisher.write(frame)

    def keep_publishing(self, frame: bytes, outstanding: int) -> None:
        """Publish, and again whenever a publication has reached all members, until `rest`."""
        self._next = frame
        for _ in range(outstanding):
            self.publish(frame)

    def rest(self) -> None:
        """Publish no more."""
        self._next = None

    def delivered(self, number: int) -> None:
        """Take note that a publication has reached one more member."""
        self.delays.append(perf_counter() - self._sent[number])
        self._missing[number] -= 1
        if not self._missing[number]:
            self._outstanding -= 1
            if self._next is not None:
                self.publish(self._next)

    def failed(self, reason: ConnectionError) -> None:
        """Take note that a connection is lost."""
        self.lost = self.lost or reason

    async def settle(self, seconds: float, done: Callable[[], bool] = lambda: True) -> bool:
        """Wait until every publication has reached everybody and something is done, and tell whether they did."""
        deadline = perf_counter() + seconds
        while not done() or self._outstanding:
            if perf_counter() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def finish(self) -> None:
        """Wait until every publication has reached everybody.

        Raises:
            RuntimeError: one has not within 10 s, or a connection is lost.
        """
        if not await self.settle(FINISH) or self.lost:
            raise RuntimeError(f"{sum(self._missing)} deliveries are missing") from self.lost


@asynccontextmanager
async def open_room(server: Running, path: str, size: int, *, deflate: bool = False) -> AsyncGenerator[Room]:
    """Let members join a room, and then a publisher connect."""
    room = Room(size)
    members = await connect_all(server, lambda: Member(path, room.delivered, room.failed, deflate), size)
    room.publisher = await connect(server, lambda: Client(PUBLISH, failed=room.failed))
    await asyncio.sleep(0.2)  # the response to a handshake comes before on_connect
    try:
        yield room
    finally:
        for client in (*members, room.publisher):
            client.close()
