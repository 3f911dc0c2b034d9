"""What the broker has of this node's entries in one room, and what it has yet to be told. Pure and synchronous."""

from collections.abc import Callable
from typing import NamedTuple

from wsrouter.brokers.base import Entry


class Batch(NamedTuple):
    """What the broker is told in one go."""

    entries: list[Entry]
    """Entries of this node that are new, or have changed."""

    gone: list[str]
    """Refs of those that are no more."""


class Ledger:
    """The refs of one room that are, or were, this node's.

    A ref is *unsettled* from when something of it changes until the broker has answered. One call is under way at a
    time: `take` begins it, `settle` or `fail` ends it.
    """

    __slots__ = ("_known", "_told", "_waiting", "contested")

    def __init__(self) -> None:
        self._known: set[str] = set()
        """What the broker has, or may have."""
        self._waiting: dict[str, None] = {}
        self._told: dict[str, bool] = {}
        """What the broker is being told of, each with whether it was known before."""
        self.contested = False
        """Whether another node said something of a ref while it was unsettled."""

    def __contains__(self, ref: str) -> bool:
        """Whether a ref is unsettled."""
        return ref in self._waiting or ref in self._told

    def change(self, ref: str) -> None:
        """Note that an entry is new, or has changed."""
        self._waiting[ref] = None

    def leave(self, ref: str) -> None:
        """Note that an entry has gone. If the broker never had it, there is nothing to tell."""
        if ref in self._known:
            self._waiting[ref] = None
        else:
            self._waiting.pop(ref, None)

    def know(self, ref: str) -> None:
        """Note that the broker has an entry that is this node's from now on."""
        self._known.add(ref)

    def forget(self, ref: str) -> None:
        """Note that an entry is another node's, or of none: it is not for this one to tell of."""
        self._known.discard(ref)
        self._waiting.pop(ref, None)

    def take(self, most: int, entry: Callable[[str], Entry | None]) -> Batch:
        """Return what the broker is told now.

        Args:
            most: refs that it may be about.
            entry: finds the entry of a ref, ``None`` if it has gone.
        """
        batch = Batch([], [])
        for ref in [ref for ref, _ in zip(self._waiting, range(most), strict=False)]:
            del self._waiting[ref]
            self._told[ref] = ref in self._known
            self._known.add(ref)
            found = entry(ref)
            if found is None:
                batch.gone.append(ref)
            else:
                batch.entries.append(found)
        return batch

    def settle(self, batch: Batch) -> None:
        """Note that the broker was told; what has gone it has no longer."""
        self._told.clear()
        self._known.difference_update(batch.gone)

    def fail(self, is_there: Callable[[str], bool], *, unknown: bool) -> None:
        """Note that the broker was not told: it is to be told again.

        Args:
            is_there: whether a ref is one of this node's entries.
            unknown: it may have been told all the same.
        """
        told, self._told = self._told, {}
        if not unknown:
            self._known.difference_update(ref for ref, known in told.items() if not known)
        for ref in told:
            if is_there(ref):
                self.change(ref)
            else:
                self.leave(ref)

    @property
    def known(self) -> frozenset[str]:
        """What the broker has, or may have."""
        return frozenset(self._known)

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._waiting)

    @property
    def settled(self) -> bool:
        """Whether there is nothing to tell, and the broker has answered."""
        return not self._waiting and not self._told
