"""What was published to a room lately, and how a client that was away gets the rest. Pure and synchronous.

Every publication of a room gets the next `Position` of the room's `Stream`. Its epoch names the stream, its
offset counts from 1. A client that says where it stands gets exactly what it missed, or is told that it can't.
"""

import re
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, Self, TypeVar, cast

from wsrouter.deadlines import Deadlines
from wsrouter.errors import ConfigurationError

MAX_RECOVERED: Final = 300
"""Publications that one recovery returns at most."""

_POSITION: Final = re.compile(r"([A-Za-z0-9_-]{1,128}):(0|[1-9][0-9]{0,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class History:
    """How much of a room is kept, in the memory of the broker: ``RoomOptions(history=History())``.

    Raises:
        ConfigurationError: a number that is not above zero.
    """

    size: int = 100
    """Publications."""

    ttl: float = 300.0
    """Seconds that a publication is kept, and at least as long the room itself after its last member left."""

    def __post_init__(self) -> None:
        size, ttl = cast(object, self.size), cast(object, self.ttl)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"History(size={size!r}): expected 1 or more publications")
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0:
            raise ConfigurationError(f"History(ttl={ttl!r}): expected seconds above zero")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client has read a room with history.

    A client's position is the ``epoch`` of the last ``$joined`` with the ``offset`` of the last frame of that room
    that had one. It is written ``epoch:offset``; ``str()`` gives that. In a query it needs no escapes.
    """

    epoch: str
    """Which stream ``offset`` counts in: letters, digits, ``-`` and ``_``. It changes when the stream begins anew."""

    offset: int
    """Publications of the stream up to here."""

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position in a text; `NOWHERE` if it is none, from where nothing can be recovered."""
        match = _POSITION.fullmatch(text)
        return NOWHERE if match is None else cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


NOWHERE: Final = Position("", 0)
"""The position of who has none that is good: no stream has an empty epoch."""


class Placeable(Protocol):
    """What a stream can keep."""

    def at(self, position: Position, /) -> Self:
        """Return the same with its position."""
        ...


ItemT = TypeVar("ItemT", bound=Placeable)


@dataclass(frozen=True, slots=True)
class Recovery(Generic[ItemT]):
    """What a client gets that joins a room with history."""

    epoch: str
    """Epoch of the stream."""

    offset: int
    """Where the client stands before it gets ``publications``; theirs follow, one by one.

    If it recovered, that is where it said it was, so that a client that is lost again while it gets them still
    knows what it has. Else it is the end of the stream.
    """

    recovered: bool
    """Whether ``publications`` are all that was missed."""

    publications: tuple[ItemT, ...] = ()
    """What was published since, oldest first."""

    @property
    def end(self) -> int:
        """Offset of the newest publication: live ones follow from the next."""
        return self.offset + len(self.publications)


class Stream(Generic[ItemT]):
    """The publications of one room, and how long it has been idle.

    Args:
        history: how many are kept, and how long.
        epoch: its name, which no stream of this room had before.
        now: seconds, of a clock that does not go back.
    """

    __slots__ = ("_history", "_kept", "_offset", "epoch", "held", "used")

    def __init__(self, history: History, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.held = False
        """Whether the room has members."""
        self.used = now
        """When somebody last published, or was a member."""
        self._history = history
        self._offset = 0
        # Cut at the old end only, so there is no hole between the oldest and the newest, which has `_offset`.
        self._kept: deque[tuple[float, ItemT]] = deque(maxlen=history.size)

    def append(self, item: ItemT, now: float) -> ItemT:
        """Add a publication, and return it with its position."""
        placed = item.at(Position(self.epoch, self._offset + 1))
        self._offset += 1
        self._kept.append((now, placed))
        self.used = now
        self.trim(now)
        return placed

    def recover(self, since: Position | None, now: float, limit: int = MAX_RECOVERED) -> Recovery[ItemT]:
        """Return what is missed by a client that stands at ``since``: everything, or nothing.

        Nothing can be recovered from ``None``, from another stream, from a position ahead of this one, where part
        of what is missed is not kept any more, and where it is more than ``limit``.
        """
        self.trim(now)
        if since is not None and since.epoch == self.epoch:
            missed = self._offset - since.offset
            if 0 <= missed <= min(len(self._kept), limit):
                newest_first = islice(reversed(self._kept), missed)
                return Recovery(self.epoch, since.offset, True, tuple(item for _, item in newest_first)[::-1])
        return Recovery(self.epoch, self._offset, False)

    def trim(self, now: float) -> None:
        """Forget what is as old as the history's ``ttl``."""
        kept, ttl = self._kept, self._history.ttl
        while kept and kept[0][0] + ttl <= now:
            kept.popleft()

    @property
    def idle_at(self) -> float:
        """When nobody will have published for the history's ``ttl``, or been a member."""
        return self.used + self._history.ttl

    def __len__(self) -> int:
        return len(self._kept)


def new_epoch() -> str:
    """Return an epoch that no other stream has: 72 random bits, safe in URLs."""
    return secrets.token_urlsafe(9)


class Streams(Generic[ItemT]):
    """The streams of all rooms that have one.

    A stream stays while its room has members (`hold` and `release`), and for the history's ``ttl`` after the last
    publication and the last member. When it is gone the next one has another epoch, so nobody takes its offsets
    for the old ones. Nothing happens by itself: somebody has to call `sweep` by `next_sweep`.

    Args:
        epoch: gives the epoch of a new stream.
    """

    def __init__(self, epoch: Callable[[], str] = new_epoch) -> None:
        self._epoch = epoch
        self._streams: dict[str, Stream[ItemT]] = {}
        self._deadlines = Deadlines()

    def append(self, room: str, item: ItemT, history: History, now: float) -> ItemT:
        """Add a publication to the stream of its room, and return it with its position."""
        stream = self._of(room, history, now)
        placed = stream.append(item, now)
        self._deadlines.add(room, stream.idle_at)
        return placed

    def recover(
        self, room: str, since: Position | None, history: History, now: float, limit: int = MAX_RECOVERED
    ) -> Recovery[ItemT]:
        """Return what is missed by a client that stands at ``since``; see `Stream.recover`."""
        return self._of(room, history, now).recover(since, now, limit)

    def hold(self, room: str, history: History, now: float) -> None:
        """Note that a room has members."""
        self._of(room, history, now).held = True

    def release(self, room: str, now: float) -> None:
        """Note that its last member left; nothing happens if it had none."""
        stream = self._streams.get(room)
        if stream is not None and stream.held:
            stream.held, stream.used = False, now
            self._deadlines.add(room, stream.idle_at)

    @property
    def next_sweep(self) -> float | None:
        """When `sweep` has something to do, ``None`` while there is nothing."""
        return self._deadlines.next

    def sweep(self, now: float, most: int = 1_000) -> None:
        """Forget what is too old. What is kept of a room goes within twice its ``ttl``.

        Args:
            now: seconds, of the same clock.
            most: rooms that are looked at, so that the event loop is not held up; `next_sweep` tells if some are left.
        """
        for _ in range(most):
            room = self._deadlines.pop(now)
            if room is None:
                return
            stream = self._streams[room]
            stream.trim(now)
            if not stream.held and stream.idle_at <= now:
                del self._streams[room]
            elif len(stream) or not stream.held:
                self._deadlines.add(room, stream.idle_at)

    def _of(self, room: str, history: History, now: float) -> Stream[ItemT]:
        stream = self._streams.get(room)
        if stream is None:
            stream = self._streams[room] = Stream(history, self._epoch(), now)
            self._deadlines.add(room, stream.idle_at)
        return stream

    def __len__(self) -> int:
        return len(self._streams)
