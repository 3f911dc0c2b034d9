"""The bounded queue of what one connection still has to be sent. Pure and synchronous."""

from collections import deque
from typing import Generic, TypeVar

EventT = TypeVar("EventT")


class Outbox(Generic[EventT]):
    """Events in the order in which they go out, each with its size in bytes.

    The bound is checked by whoever puts something in: a publication looks at `full` first and never waits,
    a reply enters above the bound and its sender waits until `full` is false again.
    """

    __slots__ = ("_bytes", "_events", "_max_bytes", "_max_frames")

    def __init__(self, max_bytes: int, max_frames: int) -> None:
        self._events: deque[tuple[EventT, int]] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_frames = max_frames

    def push(self, event: EventT, size: int) -> None:
        self._events.append((event, size))
        self._bytes += size

    def pop(self) -> EventT:
        event, size = self._events.popleft()
        self._bytes -= size
        return event

    def clear(self) -> None:
        self._events.clear()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether the bound in bytes or in frames is reached."""
        return self._bytes >= self._max_bytes or len(self._events) >= self._max_frames

    @property
    def bytes(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._events)
