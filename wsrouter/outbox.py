"""The bounded queue of what one connection still has to be sent, and what happens when it is full. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

ItemT = TypeVar("ItemT")

Overflow: TypeAlias = Literal["disconnect", "drop_new", "drop_old", "latest"]
"""What becomes of a room's publications for a member whose outbox is full."""


@dataclass(slots=True)
class Gap:
    """Stands in the queue where publications of a room were dropped."""

    room: str
    dropped: int | None
    """How many, ``None`` where nobody knows."""

    def add(self, dropped: int | None) -> None:
        """Count more of them."""
        self.dropped = None if dropped is None or self.dropped is None else self.dropped + dropped


class _Entry(NamedTuple, Generic[ItemT]):
    item: ItemT
    size: int
    room: str | None
    key: Hashable


class Outbox(Generic[ItemT]):
    """Items in the order in which they go out, each with its size in bytes.

    Replies enter above the bound, and whoever sends them waits until `full` is false again. Publications never
    wait: when the outbox is full their room's policy decides, and only about frames of that room.

    Args:
        max_bytes: bytes at which it is full.
        max_frames: frames at which it is full; `Gap` has always room.
    """

    __slots__ = ("_bytes", "_entries", "_frames", "_keys", "_max_bytes", "_max_frames", "_next", "_rooms")

    def __init__(self, max_bytes: int, max_frames: int) -> None:
        self._entries: OrderedDict[int, _Entry[ItemT] | Gap] = OrderedDict()
        self._bytes = 0
        self._frames = 0
        self._next = 0
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._rooms: dict[str, OrderedDict[int, None]] = {}
        """Places of what may be dropped, and of the gaps, by room."""
        self._keys: dict[tuple[str, Hashable], int] = {}
        """Places of what may be superseded, by room and key."""

    def push(self, item: ItemT, size: int) -> None:
        """Put in a reply, full or not."""
        self._add(_Entry(item, size, None, None))

    def offer(self, item: ItemT, size: int, room: str, overflow: Overflow, key: Hashable = None) -> "Offered":
        """Put in a publication, as the policy of its room allows.

        Args:
            item: what is to go out.
            size: its bytes.
            room: name of the room.
            overflow: policy of the room.
            key: with ``latest``: what it is the newest value of.

        Returns:
            what was dropped or superseded for it; falsy if the connection has to be closed, and nothing was changed.
        """
        if overflow == "disconnect":
            if self.full:
                return _REFUSED
            self._add(_Entry(item, size, None, None))
            return _TAKEN
        superseded = overflow == "latest" and self._supersede(room, key)
        dropped = 0
        if overflow != "drop_new":
            while self.full and self._drop_oldest(room):
                dropped += 1
        if self.full:
            self._drop_new(room)
            dropped += 1
        else:
            place = self._add(_Entry(item, size, room, key if overflow == "latest" else None))
            self._rooms.setdefault(room, OrderedDict())[place] = None
            if overflow == "latest" and key is not None:
                self._keys[room, key] = place
        return Offered(dropped, int(superseded)) if dropped or superseded else _TAKEN

    def lose(self, room: str) -> None:
        """Note that publications of a room may be missing here, nobody knows how many."""
        last = self._entries[next(reversed(self._entries))] if self._entries else None
        if isinstance(last, Gap) and last.room == room:
            last.add(None)
        else:
            self._add_gap(Gap(room, None))

    def pop(self) -> ItemT | Gap:
        """Take out what is next."""
        place, entry = self._entries.popitem(last=False)
        if isinstance(entry, Gap):
            self._forget(entry.room, place)
            return entry
        self._bytes -= entry.size
        self._frames -= 1
        if entry.room is not None:
            self._forget(entry.room, place)
            if entry.key is not None:
                del self._keys[entry.room, entry.key]
        return entry.item

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._rooms.clear()
        self._keys.clear()
        self._bytes = self._frames = 0

    @property
    def full(self) -> bool:
        """Whether the bound in bytes or in frames is reached."""
        return self._bytes >= self._max_bytes or self._frames >= self._max_frames

    @property
    def bytes(self) -> int:
        """Bytes that wait."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _add(self, entry: _Entry[ItemT]) -> int:
        place = self._next
        self._next = place + 1
        self._entries[place] = entry
        self._bytes += entry.size
        self._frames += 1
        return place

    def _supersede(self, room: str, key: Hashable) -> bool:
        place = None if key is None else self._keys.pop((room, key), None)
        if place is None:
            return False
        self._remove(place, room)
        self._forget(room, place)
        return True

    def _drop_oldest(self, room: str) -> bool:
        """Drop the oldest publication of a room; the gap stands in its place. False if there is none."""
        before: Gap | None = None
        for place in self._rooms.get(room, ()):
            entry = self._entries[place]
            if isinstance(entry, Gap):
                before = entry
                continue
            if before is not None:
                before.add(1)
                self._remove(place, room)
                self._forget(room, place)
            else:
                self._remove(place, room, Gap(room, 1))
            return True
        return False

    def _drop_new(self, room: str) -> None:
        places = self._rooms.get(room)
        last = self._entries[next(reversed(places))] if places else None
        if isinstance(last, Gap):
            last.add(1)
        else:
            self._add_gap(Gap(room, 1))

    def _add_gap(self, gap: Gap) -> None:
        self._rooms.setdefault(gap.room, OrderedDict())[self._next] = None
        self._entries[self._next] = gap
        self._next += 1

    def _remove(self, place: int, room: str, gap: Gap | None = None) -> None:
        entry = self._entries[place]
        assert isinstance(entry, _Entry), "a gap is not dropped"
        self._bytes -= entry.size
        self._frames -= 1
        if entry.key is not None:
            self._keys.pop((room, entry.key), None)
        if gap is None:
            del self._entries[place]
        else:
            self._entries[place] = gap

    def _forget(self, room: str, place: int) -> None:
        places = self._rooms[room]
        del places[place]
        if not places:
            del self._rooms[room]


class Offered(NamedTuple):
    """What became of publications of one room, so that a new one could enter."""

    dropped: int = 0
    """How many were dropped, the new one included; a `Gap` says so."""
    superseded: int = 0
    """How many were replaced by it."""
    taken: bool = True

    def __bool__(self) -> bool:
        return self.taken


_TAKEN = Offered()
_REFUSED = Offered(taken=False)
