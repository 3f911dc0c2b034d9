"""How busy the machine is: by how much too late this process gets its turn."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

EVERY = 0.05
"""Seconds between two looks."""


@dataclass
class Lag:
    """What was measured."""

    longest: float = 0.0
    """Seconds that a turn came too late, at most."""

    def allows(self, seconds: float) -> float:
        """Return how long something may take that has so many seconds on a machine that is not busy."""
        return seconds + 5 * self.longest


@asynccontextmanager
async def measured() -> AsyncGenerator[Lag]:
    """Measure until the end of the block."""
    lag = Lag()
    task = asyncio.create_task(_measure(lag))
    try:
        yield lag
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _measure(lag: Lag) -> None:
    while True:
        began = time.monotonic()
        await asyncio.sleep(EVERY)
        lag.longest = max(lag.longest, time.monotonic() - began - EVERY)
