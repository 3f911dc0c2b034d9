"""How fast a client may send."""

import asyncio
import math
import re
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal, NamedTuple, TypeAlias

from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError
from wsrouter.metering import Allowance, Bucket, FrameLimit, Verdict

__all__ = ["Rate", "RateLimit", "RateLimitStats"]

Rate: TypeAlias = str | tuple[int, float]
"""An amount and a time: ``"20/second"``, ``"64 KiB per second"``, ``"500 per 10 minutes"``, or amount and seconds
such as ``(20, 1.0)``."""

CLOSE_AT: Final = 20
"""A client that sends so many times as fast as it may is closed."""
ANSWERS: Final = 10.0
"""So many error frames per second go out, and at once, where no more messages are allowed."""

_RATE: Final = re.compile(
    r"(?P<amount>[0-9]{1,15})\s*(?P<unit>B|bytes?|KiB|kB|MiB|MB)?\s*(?:/|per)\s*"
    r"(?P<count>[0-9]{1,9})?\s*(?P<window>second|minute|hour|day)s?"
)
_UNITS: Final = {"B": 1, "byte": 1, "bytes": 1, "kB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}
_WINDOWS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class _Flow(NamedTuple):
    """What a bucket is made of."""

    rate: float
    """Per second."""
    capacity: float

    def bucket(self, now: float) -> Bucket:
        return Bucket(self.rate, self.capacity, now)

    def times(self, factor: float) -> "_Flow":
        return _Flow(self.rate * factor, self.capacity * factor)


@dataclass(frozen=True, slots=True)
class RateLimitStats:
    """Counts of one `RateLimit`."""

    connections: int
    """Connections that it counts now: those that have sent something."""
    users: int
    """Users whose allowance is kept: who are connected, or were until it would be full again."""
    refused: int
    """Frames that were too much so far."""
    closed: int
    """Connections that were closed so far because they sent at twenty times the rate."""


class RateLimit(FrameLimit):
    """Limit how fast a client may send: ``middleware=[RateLimit(messages="20/second")]``.

    It is listed like message middleware, on a router or a class, but sits before decoding: every frame counts,
    also those that are not valid, and control frames. Several limits of one handler all count; a frame that
    one of them refuses uses up none of the others. Of one object that a router and a class list, it counts once.

    A frame that is too much is not handled. It is answered at once with the error ``rate_limited`` and
    ``after_ms``, with its id if it has at most 4 KiB, ahead of replies to what waits. No more error frames go
    out than messages are allowed, or ten per second where that is more; what is too much beyond that is dropped
    without an answer, so a call has to have a deadline of its own. When twenty times the rate comes in,
    the connection is closed with 4529. A raw handler has no error frames: its connection is closed with 4529
    by the first frame that is too much.

    The allowance is a token bucket on the monotonic clock: full at first, and refilled evenly. A frame that has
    more bytes than the bucket holds is let through when it is full, and paid off after. It counts in this
    process, and belongs to one event loop.

    Args:
        messages: frames per time, such as ``"20/second"`` or ``(20, 1.0)``.
        bytes: bytes of their payloads per time, such as ``"64 KiB per second"``.
        per: ``"connection"``, or ``"user"`` for all connections of a user together; one without a user counts
            by itself. A user's allowance outlives the last connection until it would be full again, so that to
            connect anew does not renew it.
        burst: how much may come at once, in multiples of the amounts.

    Raises:
        ConfigurationError: neither rate, one that can't be read, or a burst of less than one message.
    """

    def __init__(
        self,
        *,
        messages: Rate | None = None,
        bytes: Rate | None = None,
        per: Literal["connection", "user"] = "connection",
        burst: float = 1.0,
    ) -> None:
        if messages is None and bytes is None:
            raise ConfigurationError("RateLimit(): give messages=, bytes= or both, such as messages='20/second'")
        if per not in ("connection", "user"):
            raise ConfigurationError(f"RateLimit(per={per!r}): use 'connection' or 'user'")
        if isinstance(burst, bool) or not burst > 0:
            raise ConfigurationError(f"RateLimit(burst={burst!r}): expected a number above zero")
        self._messages = None if messages is None else _flow("messages", messages, burst)
        self._bytes = None if bytes is None else _flow("bytes", bytes, burst)
        self._per_user = per == "user"
        self._tally = _Tally()

    def stats(self) -> RateLimitStats:
        """Counts of this process."""
        tally = self._tally
        return RateLimitStats(tally.connections, len(tally.users), tally.refused, tally.closed)

    def allowance(self, connection: Connection) -> Allowance:
        """Return what a connection may still send."""
        users = self._tally.users
        user = connection.user_id if self._per_user else None
        found = None if user is None else users.get(user)
        if found is None:
            found = _Allowance(self._messages, self._bytes, self._tally, user)
            if user is not None:
                users[user] = found
        found.share()
        return found


class _Tally:
    """What one limit counts."""

    def __init__(self) -> None:
        self.users: dict[str, _Allowance] = {}
        self.connections = 0
        self.refused = 0
        self.closed = 0


class _Allowance(Allowance):
    """The buckets of one connection, or of all of a user's."""

    __slots__ = (
        "_answers",
        "_bytes",
        "_excess_bytes",
        "_excess_messages",
        "_farewell",
        "_messages",
        "_shares",
        "_tally",
        "_user",
    )

    def __init__(self, messages: _Flow | None, bytes: _Flow | None, tally: _Tally, user: str | None) -> None:
        now = monotonic()
        # Who is refused at nineteen times the rate sends at twenty, since at once the rate it is let through.
        refused = CLOSE_AT - 1
        self._messages = messages.bucket(now) if messages else None
        self._bytes = bytes.bucket(now) if bytes else None
        self._excess_messages = messages.times(refused).bucket(now) if messages else None
        self._excess_bytes = bytes.times(refused).bucket(now) if bytes else None
        answers = _Flow(ANSWERS, ANSWERS)
        if messages is not None:
            answers = _Flow(max(messages.rate, ANSWERS), max(messages.capacity, ANSWERS))
        self._answers = answers.bucket(now)
        self._tally = tally
        self._user = user
        self._shares = 0
        self._farewell: asyncio.TimerHandle | None = None

    def wait(self, size: int, now: float) -> float:
        wait = 0.0 if self._messages is None else self._messages.wait(1, now)
        return wait if self._bytes is None else max(wait, self._bytes.wait(size, now))

    def take(self, size: int) -> None:
        if self._messages is not None:
            self._messages.take(1)
        if self._bytes is not None:
            self._bytes.take(size)

    def refuse(self, size: int, now: float) -> Verdict:
        self._tally.refused += 1
        for bucket, cost in ((self._excess_messages, 1), (self._excess_bytes, size)):
            if bucket is not None:
                if bucket.wait(cost, now) > 0:
                    self._tally.closed += 1
                    return "close"
                bucket.take(cost)
        if self._answers.wait(1, now) > 0:
            return "drop"
        self._answers.take(1)
        return "answer"

    def share(self) -> None:
        """Note one more connection."""
        self._shares += 1
        self._tally.connections += 1
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None

    def release(self) -> None:
        self._shares -= 1
        self._tally.connections -= 1
        if self._user is None or self._shares:
            return
        now = monotonic()
        buckets = (self._messages, self._bytes, self._excess_messages, self._excess_bytes, self._answers)
        seconds = max(bucket.until_full(now) for bucket in buckets if bucket is not None)
        self._farewell = asyncio.get_running_loop().call_later(seconds, self._tally.users.pop, self._user, None)


def _flow(name: str, rate: Rate, burst: float) -> _Flow:
    """Return what a rate means for a bucket.

    Raises:
        ConfigurationError: it can't be read, or is less than one message at once.
    """
    amount, seconds = _read(name, rate)
    if not amount > 0 or not 0 < seconds < math.inf or (name == "messages" and amount * burst < 1):
        raise ConfigurationError(f"RateLimit({name}={rate!r}): expected at least one at once, in a time above zero")
    return _Flow(amount / seconds, amount * burst)


def _read(name: str, rate: object) -> tuple[float, float]:
    """Return amount and seconds."""
    match rate:
        case (int(amount), int(seconds) | float(seconds)):
            return amount, seconds
        case str():
            found = _RATE.fullmatch(rate)
            if found is not None and (name == "bytes" or found["unit"] is None):
                unit = _UNITS[found["unit"] or "B"]
                return int(found["amount"]) * unit, int(found["count"] or 1) * _WINDOWS[found["window"]]
        case _:
            pass
    example = "64 KiB per second" if name == "bytes" else "20 per second"
    raise ConfigurationError(
        f"RateLimit({name}={rate!r}): expected an amount per second, minute, hour or day, such as {example!r} or"
        f" {example.replace('second', '10 seconds')!r}, or a tuple of amount and seconds"
    )
