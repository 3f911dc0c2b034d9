"""What is kept for a short time and taken once: the store of tickets."""

import time
from abc import ABC, abstractmethod

from wsrouter.errors import BrokerError, ConfigurationError

__all__ = ["MemoryStore", "OneTimeStore"]


class OneTimeStore(ABC):
    """Keeps values, each until it is taken or its time is over; whoever takes one first is the only one.

    Keys and values are the caller's: a store does not look into them.
    """

    @abstractmethod
    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep a value.

        Args:
            key: under which it can be taken.
            value: what is kept.
            ttl: seconds until it is gone.

        Raises:
            ValueError: there is a value under that key, or ``ttl`` is not above zero.
            BrokerError: the store is full or did not answer.
        """

    @abstractmethod
    async def take(self, key: str) -> bytes | None:
        """Return a value and forget it, in one step; ``None`` if it was taken, is gone, or never was.

        Raises:
            BrokerError: the store did not answer; where ``outcome_unknown`` is true the value may be gone.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release what is held: connections, say. It can be used again, and calling it again does nothing.

        What is kept may stay until it is taken or its time is over: others may share the store.
        """


class MemoryStore(OneTimeStore):
    """A store in the memory of this process: for one process, and for tests.

    Args:
        max_entries: values that are kept at once. A full store refuses new ones; it does not drop others for them.
        max_bytes: size of all keys and values together, keys by their characters.

    Raises:
        ConfigurationError: ``max_entries`` or ``max_bytes`` is below 1.
    """

    def __init__(self, *, max_entries: int = 65_536, max_bytes: int = 64 * 1024 * 1024) -> None:
        for name, most in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if most < 1:
                raise ConfigurationError(f"MemoryStore({name}={most!r}): expected 1 or more")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, tuple[float, bytes]] = {}
        self._sweep_at = 0.0

    @property
    def entries(self) -> int:
        """Number of values that it keeps; some may be over their time."""
        return len(self._entries)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        if not ttl > 0:
            raise ValueError(f"put(ttl={ttl!r}): expected seconds above zero")
        now, size = time.monotonic(), len(key) + len(value)
        known = self._entries.get(key)
        if known is not None and known[0] > now:
            raise ValueError("put(): there is a value under that key")
        self._forget(key)
        self._purge(now, size)
        if len(self._entries) >= self._max_entries:
            raise BrokerError(f"The store is full: it keeps {self._max_entries} values")
        if self._bytes + size > self._max_bytes:
            raise BrokerError(f"The store is full: it keeps {self._max_bytes} bytes")
        self._entries[key] = (now + ttl, value)
        self._bytes += size
        self._sweep_at = min(self._sweep_at, now + ttl)

    async def take(self, key: str) -> bytes | None:
        deadline, value = self._forget(key)
        return value if deadline > time.monotonic() else None

    async def aclose(self) -> None:
        """Do nothing: what is kept goes by itself."""

    def _forget(self, key: str) -> tuple[float, bytes | None]:
        entry = self._entries.pop(key, None)
        if entry is None:
            return 0.0, None
        self._bytes -= len(key) + len(entry[1])
        return entry

    def _purge(self, now: float, size: int) -> None:
        """Forget what is over its time: the oldest at once, all others when there is no more room."""
        entries = self._entries
        while entries and entries[first := next(iter(entries))][0] <= now:
            self._forget(first)
        full = len(entries) >= self._max_entries or self._bytes + size > self._max_bytes
        if full and self._sweep_at <= now:
            for key in [key for key, entry in entries.items() if entry[0] <= now]:
                self._forget(key)
            self._sweep_at = min((deadline for deadline, _ in entries.values()), default=now)
