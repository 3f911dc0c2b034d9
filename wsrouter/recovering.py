"""What the broker is asked when something is missing: by a room as a whole, and by who comes into it."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import uniform
from typing import Final

from wsrouter.brokers.base import Broker, Publication
from wsrouter.errors import BrokerError
from wsrouter.following import Caught, Follower
from wsrouter.history import History, Position, Recovery
from wsrouter.joining import Newcomer
from wsrouter.rules import RoomOptions
from wsrouter.tasks import current_task, wait_for_end

logger = logging.getLogger("wsrouter")

AT_ONCE: Final = 64
"""Rooms that the broker is asked about at the same time."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts while the broker does not answer; doubled each time, with jitter."""
LAG: Final = 0.5
"""Seconds that what was published before a join may take to come, before it is taken for lost."""
PATIENCE: Final = 2.0
"""Seconds that a newcomer waits for its room to be recovered then."""
ATTEMPTS: Final = 3
"""How often a newcomer asks, while the stream changes under it."""


class Recoveries:
    """Asks the broker what rooms and newcomers have missed.

    Args:
        broker: who knows.
        followers: where the members of each room stand.
        options: finds the options of a room.
        deliver: gives the members of a room what they missed, and what came meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        followers: Mapping[str, Follower],
        options: Callable[[str], RoomOptions],
        deliver: Callable[[str, Caught], None],
    ) -> None:
        self.recovered = 0
        """How often a room got all that it had missed."""
        self._broker = broker
        self._followers = followers
        self._options = options
        self._deliver = deliver
        self._rooms: dict[str, asyncio.Event | None] = {}
        """Those that are asked about, or wait for it; what tells somebody who waits that it is over."""
        self._waiting: deque[str] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._there = asyncio.Event()

    def __len__(self) -> int:
        return len(self._rooms)

    def ask(self, room: str) -> None:
        """Have a room recovered that is behind; nothing happens if it is being recovered."""
        if room not in self._rooms:
            self._rooms[room] = None
            self._waiting.append(room)
            if len(self._workers) < AT_ONCE:
                task = asyncio.get_running_loop().create_task(self._work(), name="wsrouter recovery")
                self._workers.add(task)
                task.add_done_callback(self._workers.discard)

    def retry(self) -> None:
        """Go on at once: the broker is there again."""
        self._there.set()
        self._there = asyncio.Event()

    async def aclose(self) -> None:
        """Ask for nothing any more."""
        workers = [*self._workers]
        for worker in workers:
            worker.cancel()
        for worker in workers:
            await wait_for_end(worker)
        for room in [*self._rooms]:
            self._over(room)
        self._waiting.clear()

    async def of_newcomer(self, newcomer: Newcomer, history: History, since: Position | None) -> Recovery[Publication]:
        """Return what a newcomer missed. Where that ends, `Newcomer.live` goes on as far as the members have got.

        Raises:
            BrokerError: it is not known.
        """
        room = newcomer.room
        follower = self._followers[room]
        for _ in range(ATTEMPTS):
            recovery = await self._broker.recover(room, history, since)
            if not follower.epoch:
                self._deliver(room, Caught(follower.start(recovery)))
                if follower.behind:
                    self.ask(room)
            end = Position(recovery.epoch, recovery.end)
            if not follower.reached(end):
                await self._reach(newcomer, follower, end)
            if newcomer.turned_back or newcomer.stand(end, follower.position):
                return recovery
        newcomer.stand(follower.position, follower.position)
        return Recovery(follower.epoch, follower.offset, recovered=False)

    async def _reach(self, newcomer: Newcomer, follower: Follower, end: Position) -> None:
        """Wait until the members stand where the broker's answer to a newcomer ends, or in another stream.

        Raises:
            BrokerError: they don't in time.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LAG):
                while follower.epoch == end.epoch and not follower.reached(end) and not newcomer.turned_back:
                    await newcomer.more()
                if follower.reached(end) or newcomer.turned_back:
                    return
        follower.lose()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._recovered(newcomer.room)
        except TimeoutError:
            raise BrokerError(f"The room {newcomer.room!r} could not be recovered in time") from None

    async def _recovered(self, room: str) -> None:
        """Have a room recovered, and wait until that is over."""
        self.ask(room)
        over = self._rooms[room]
        if over is None:
            over = self._rooms[room] = asyncio.Event()
        await over.wait()

    def _over(self, room: str) -> None:
        over = self._rooms.pop(room, None)
        if over is not None:
            over.set()

    async def _work(self) -> None:
        try:
            while self._waiting:
                room = self._waiting.popleft()
                try:
                    await self._recover(room)
                finally:
                    self._over(room)
        finally:
            self._workers.discard(current_task())  # in this step: `ask` counts those that look for more

    async def _recover(self, room: str) -> None:
        """Ask the broker about a room until it answers, and once more if that was not all."""
        pause = FIRST_PAUSE
        while (follower := self._followers.get(room)) is not None and follower.behind and follower.epoch:
            history = self._options(room).history
            assert history is not None, "only the streams of rooms with history are followed"
            recovery = await self._answer(room, history, follower)
            if recovery is None:
                pause = await self._pause(pause)
                continue
            pause = FIRST_PAUSE
            if self._followers.get(room) is follower:
                caught = follower.catch_up(recovery)
                self.recovered += caught.restart is None
                self._deliver(room, caught)
                await asyncio.sleep(0)  # there may be many, and each may be large

    async def _answer(self, room: str, history: History, follower: Follower) -> Recovery[Publication] | None:
        try:
            return await self._broker.recover(room, history, follower.begin())
        except BrokerError:
            follower.fail()
        except BaseException as exc:
            follower.fail()
            if not isinstance(exc, Exception):
                raise
            logger.exception("The broker failed to recover the room %r", room)
        return None

    async def _pause(self, seconds: float) -> float:
        """Wait for so long, or until the broker is there; return for how long the next time."""
        there = self._there
        with suppress(TimeoutError):
            async with asyncio.timeout(uniform(seconds / 2, seconds)):
                await there.wait()
                return FIRST_PAUSE
        return min(2 * seconds, LONGEST_PAUSE)
