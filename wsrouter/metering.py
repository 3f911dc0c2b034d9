"""What a connection may still send: the seam at which every frame is counted before it is read."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal, TypeAlias

from wsrouter.connection import Connection

Verdict: TypeAlias = Literal["answer", "drop", "close"]
"""What becomes of a frame that is too much: it is answered, dropped without an answer, or ends the connection."""


_ROUNDING: Final = 1e-6
"""What sums of floats may be off by."""


class Bucket:
    """A token bucket: it fills at a rate, up to what may come at once.

    A cost above the capacity is met by a full bucket, which then is in debt: the rate holds, and nothing is too large
    for ever.

    Args:
        rate: tokens per second.
        capacity: tokens that it holds when full, as it is at first.
        now: the time, in seconds of one clock.
    """

    __slots__ = ("_capacity", "_level", "_rate", "_seen")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self._rate = rate
        self._capacity = capacity
        self._level = capacity
        self._seen = now

    def wait(self, cost: float, now: float) -> float:
        """Return the seconds until a cost can be met, 0 if it can be now."""
        capacity = self._capacity
        level = self._level + (now - self._seen) * self._rate
        self._level = level = level if level < capacity else capacity
        self._seen = now
        missing = (cost if cost < capacity else capacity) - level
        return missing / self._rate if missing > _ROUNDING else 0.0

    def take(self, cost: float) -> None:
        """Meet a cost for which there is nothing to `wait`."""
        self._level -= cost

    def until_full(self, now: float) -> float:
        """Return the seconds until it is full."""
        return self.wait(self._capacity, now)


class Allowance(ABC):
    """What one connection, or one user on all of theirs, may still send under one limit.

    It is asked for every frame, and must not wait for anything.
    """

    __slots__ = ()

    @abstractmethod
    def wait(self, size: int, now: float) -> float:
        """Return the seconds until a frame of so many bytes is within the limit, 0 if it is now.

        Args:
            size: bytes of the frame.
            now: seconds of the monotonic clock.
        """

    @abstractmethod
    def take(self, size: int) -> None:
        """Count a frame that is within all limits."""

    @abstractmethod
    def refuse(self, size: int, now: float) -> Verdict:
        """Count a frame that is not within this limit, and decide what becomes of it."""

    @abstractmethod
    def release(self) -> None:
        """Let go of it: the connection has ended."""


class FrameLimit(ABC):
    """What is listed among message middleware, and limits frames before they are decoded.

    It counts every frame: messages, those that are not valid, and control frames.
    """

    @abstractmethod
    def allowance(self, connection: Connection) -> Allowance:
        """Return what a connection may still send; called at its first frame, when its user is known."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A frame that is too much."""

    verdict: Verdict
    after_ms: int
    """Milliseconds until the same frame would be within all limits."""


class Meter:
    """Counts the frames of one connection against all limits of its chain.

    Args:
        connection: the connection.
        limits: at least one.
    """

    __slots__ = ("_allowances", "_connection", "_limits")

    def __init__(self, connection: Connection, limits: Sequence[FrameLimit]) -> None:
        self._connection = connection
        self._limits = limits
        self._allowances: list[Allowance] | None = None

    def count(self, size: int) -> Excess | None:
        """Count a frame; ``None`` if it is within all limits. What one limit refuses uses up none of the others."""
        if self._allowances is None:
            self._allowances = [limit.allowance(self._connection) for limit in self._limits]
        now = monotonic()
        refused: dict[Allowance, float] | None = None
        for allowance in self._allowances:
            wait = allowance.wait(size, now)
            if wait > 0:
                refused = refused or {}
                refused[allowance] = wait
        if refused is None:
            for allowance in self._allowances:
                allowance.take(size)
            return None
        verdicts = {allowance.refuse(size, now) for allowance in refused}
        strictest: Verdict = "close" if "close" in verdicts else "drop" if "drop" in verdicts else "answer"
        return Excess(strictest, math.ceil(max(refused.values()) * 1000))

    def release(self) -> None:
        """Let go of all allowances: the connection has ended."""
        for allowance in self._allowances or ():
            allowance.release()
        self._allowances = None
