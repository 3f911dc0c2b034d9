"""What is said to the broker of many rooms in the background: again, until it was heard."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import uniform
from typing import Final

from wsrouter.errors import BrokerError
from wsrouter.tasks import current_task, wait_for_end

logger = logging.getLogger("wsrouter")

DELAY: Final = 0.005
"""Seconds in which what changes in a room is gathered."""
AT_ONCE: Final = 64
"""Rooms that are seen to at the same time."""
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
"""Seconds after a failure until the next attempt, doubled each time."""


class Announcer:
    """Sees to rooms that have something to say, or to ask, a few at a time.

    While the broker does not answer nothing is lost and nobody waits: it is tried again after a pause that grows.

    Args:
        see_to: does what there is to do for one room. It is not called for the same room twice at a time.
    """

    def __init__(self, see_to: Callable[[str], Awaitable[None]]) -> None:
        self._see_to = see_to
        self._waiting: dict[str, None] = {}
        self._busy: dict[str, bool] = {}
        """Rooms that are seen to, each with whether there is more by now."""
        self._workers: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0
        """Seconds of the last pause, zero if it went well."""
        self._paused = False

    def add(self, room: str) -> None:
        """Have a room seen to in a moment; again, nothing happens."""
        if room in self._busy:
            self._busy[room] = True
            return
        self._waiting[room] = None
        if self._timer is None and len(self._workers) < AT_ONCE:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._start)

    def resume(self) -> None:
        """Try again at once, since the broker is there."""
        if self._paused:
            self._stop_timer()
            self._start()

    async def aclose(self, timeout: float) -> None:
        """See to all that is left, unless the broker does not answer, and end.

        Args:
            timeout: seconds; then what is left is given up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            self._stop_timer()
            self._start()
            while self._workers and loop.time() < deadline:
                await asyncio.wait(self._workers, timeout=deadline - loop.time())
                if not self._paused:
                    self._start()
        finally:
            self._stop_timer()
            workers = [*self._workers]
            for worker in workers:
                worker.cancel()
            for worker in workers:
                await wait_for_end(worker)

    def _start(self) -> None:
        self._timer, self._paused = None, False
        loop = asyncio.get_running_loop()
        for _ in range(min(len(self._waiting), AT_ONCE - len(self._workers))):
            worker = loop.create_task(self._work(), name="wsrouter presence")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        try:
            while self._waiting and not self._paused:
                room = next(iter(self._waiting))
                del self._waiting[room]
                self._busy[room] = False
                try:
                    await self._see_to(room)
                except BrokerError as exc:
                    self._busy[room] = True
                    self._fail(exc)
                except Exception as exc:
                    logger.exception("presence of %r could not be told to other nodes", room)
                    self._busy[room] = True
                    self._fail(exc)
                else:
                    self._succeed()
                finally:
                    if self._busy.pop(room):
                        self._waiting[room] = None
        finally:
            self._workers.discard(current_task())  # in this step: `add` counts those that look for more

    def _fail(self, exc: Exception) -> None:
        if self._paused:
            return
        if not self._pause:
            logger.warning("presence is not told to other nodes for now: %s", exc)
        self._paused = True
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self._pause * uniform(0.5, 1.0), self._start)

    def _succeed(self) -> None:
        if self._pause and not self._paused:
            self._pause = 0.0
            logger.info("presence is told to other nodes again")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
