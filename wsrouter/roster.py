"""Who is in one room, and what nodes tell each other of it by the broker. Pure and synchronous."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from wsrouter.brokers.base import Entry
from wsrouter.gathering import Gathering
from wsrouter.holders import new_ref
from wsrouter.ledger import Batch
from wsrouter.listing import RosterOptions
from wsrouter.members import Heard, readable

STEP: Final = 100
"""Entries that are taken up at a time, in less than a millisecond."""


class Roster(Gathering):
    """Who is in one room, as far as this node knows.

    The broker is told of this node's devices (`outgoing`), and asked for those of all nodes when the first member
    comes, and when something may have been missed (`wanting`).

    Args:
        options: how it behaves.
        node: id of this node.

    Of every method, ``now`` is seconds of a clock that does not go back.
    """

    __slots__ = ("_again", "_departed", "_heard", "wanting")

    def __init__(self, options: RosterOptions, node: str = "") -> None:
        super().__init__(options, node)
        self.wanting = False
        """Whether the broker is to be asked who is there."""
        self._again = False
        """Whether it is to be told everything again, once it has answered."""
        self._heard: set[str] | None = None
        """While it is asked: refs that others have said something of since, so that its answer may be older."""
        self._departed: set[str] = set()
        """And nodes that were found gone."""

    def lose(self) -> None:
        """Note that words may have been lost, those of others and this node's own."""
        self.wanting = self._again = True

    def ask(self) -> None:
        """Note that the broker is asked who is there; `load` or `fail` has to be called."""
        self.wanting = False
        self._heard, self._departed = set(), set()

    def fail(self) -> None:
        """Note that it did not answer."""
        self._heard = None

    def hear(self, heard: Heard, now: float) -> None:
        if self._heard is not None:
            self._heard.add(heard[0].ref)
        super().hear(heard, now)

    def forget(self, ref: str, now: float) -> None:
        if self._heard is not None:
            self._heard.add(ref)
        super().forget(ref, now)

    def depart(self, node: str, now: float) -> None:
        if self._heard is not None:
            self._departed.add(node)
        super().depart(node, now)

    def load(self, entries: Sequence[Entry], clock: Callable[[], float], step: int = STEP) -> Iterator[None]:
        """Take up what the broker has of all nodes, some entries at a time.

        What it lacks of this node's it is told again; everything, after a loss: others may have taken this node for
        gone. What it lacks of other nodes' has left; unless it lacks this node's own too, so that it must have lost
        them: they have `RosterOptions.settling` to be told again, also if the broker is asked once more meanwhile.

        Args:
            entries: its answer. What was heard since it was asked is the last word.
            clock: returns the time.
            step: entries that are taken up at a time.
        """
        self.expire(clock())
        found = {entry.ref: entry for entry in entries}
        lacking = self._compare(found)
        since = set[str]() if self._heard is None else self._heard
        for first in range(0, len(entries), step):
            now = clock()
            for heard in readable(entries[first : first + step]):
                if heard[0].ref not in since and heard[0].node not in self._departed:
                    super().hear(heard, now)
            yield
        unknown = [ref for ref, entry in found.items() if entry.node == self._node and ref not in self.devices]
        self.withdraw(ref for ref in unknown if ref not in self.ledger)
        now = clock()
        for ref in [ref for ref in self.holders.nodes if ref not in found and ref not in since]:
            if lacking:
                self.holders.missing.setdefault(ref, now + self._options.settling)
            elif ref not in self.holders.missing:
                self._lose(ref, now)
        self._heard = None

    def close(self) -> None:
        """Forget other nodes' devices: no member is here, and what they say of them is not heard any more."""
        super().close()
        self.wanting = self._again = False
        self._heard = None

    def outgoing(self, most: int) -> Batch:
        """Return what the broker is to be told next; then `sent` or `unsent` has to be called.

        Args:
            most: refs that it may be about.
        """
        return self.ledger.take(most, self._entry)

    def sent(self, batch: Batch, refused: Sequence[str], now: float) -> None:
        """Note that the broker was told.

        Args:
            batch: of what.
            refused: refs that other nodes have taken first. A connection of this node gets a new one.
            now: the time.
        """
        self.ledger.settle(batch)
        if self.ledger.contested:
            self.wanting, self.ledger.contested = True, False
        for ref in refused:
            own, connection = self.holders.is_own(ref), self.holders.connection_of(ref)
            if connection is not None:
                new = new_ref()
                self._connect(connection, new)
                self._put(new, self.devices[ref], now)
                self.ledger.change(new)
            if own:
                self._give_up(ref, "")  # whose it is will be heard
                self.holders.missing[ref] = now + self._options.settling
            else:
                self.ledger.forget(ref)

    def unsent(self, *, unknown: bool) -> None:
        """Note that the broker was not told, or may not have been: it is to be told again.

        Args:
            unknown: it may have been told all the same.
        """
        self.ledger.fail(self.holders.is_own, unknown=unknown)

    @property
    def pending(self) -> bool:
        """Whether there is something to tell to the broker, or to ask it."""
        return self.wanting or self.ledger.waiting

    @property
    def idle(self) -> bool:
        """Whether nobody is here, everybody knows, and nothing is to be heard."""
        known = self.ledger.settled and self._heard is None and not self.wanting
        return self.empty and self.due is None and known

    def _entry(self, ref: str) -> Entry | None:
        """Return the entry of a device of this node; ``None`` if it is another's, or none."""
        if not self.holders.is_own(ref):
            return None
        device = self.devices[ref]
        return Entry(ref, self._node, device.user, device.json, dropped=ref in self.holders.dropped)

    def _compare(self, found: Mapping[str, Entry]) -> bool:
        """Have the broker told again what it lacks of this node's; whether that is so much that it must have lost it.

        What is unsettled does not count: it may be under way.
        """
        connected = [ref for ref in self.holders.connected if ref not in self.ledger]
        lacking = not connected or any(ref not in found for ref in connected)
        for ref in (*connected, *(ref for ref in self.holders.dropped if ref not in self.ledger)):
            entry = found.get(ref)
            if self._again or entry is None or (entry.node == self._node and entry != self._entry(ref)):
                self.ledger.change(ref)
        self._again = False
        return lacking
