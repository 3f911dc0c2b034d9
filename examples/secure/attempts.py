"""How often somebody may try to sign in."""

import math
import time

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter


class Attempts:
    """Counts attempts to sign in, before a password is looked at.

    One limit is for a name from one address, so that nobody can be locked out by others; one is for an address with
    whatever names. A botnet has many addresses: what holds against it is the slow hash and a good password.

    Args:
        storage: of the ``limits`` package; take its ``RedisStorage`` for several processes.
    """

    def __init__(self, storage: MemoryStorage, *, of_name: str = "5/minute", of_address: str = "60/minute") -> None:
        self._limiter = MovingWindowRateLimiter(storage)
        self._of_name = parse(of_name)
        self._of_address = parse(of_address)

    async def wait(self, name: str, address: str) -> int:
        """Note an attempt, and return the seconds until it may be made: 0 is now."""
        if not await self._limiter.hit(self._of_address, "address", address):
            return await self._seconds(self._of_address, "address", address)
        if not await self._limiter.hit(self._of_name, "name", name, address):
            return await self._seconds(self._of_name, "name", name, address)
        return 0

    async def forget(self, name: str, address: str) -> None:
        """Begin anew for a name, once its password was right."""
        await self._limiter.clear(self._of_name, "name", name, address)

    async def _seconds(self, limit: RateLimitItem, *key: str) -> int:
        window = await self._limiter.get_window_stats(limit, *key)
        return max(1, math.ceil(window.reset_time - time.time()))
