"""Who is in one room, on which node, and what nodes tell each other of it. Pure and synchronous."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wsrouter.brokers.base import Entry
from wsrouter.holders import Holders, new_ref
from wsrouter.ledger import Batch, Ledger
from wsrouter.listing import Listing, ListingOptions
from wsrouter.members import ANONYMOUS, Device, Heard, Member, Meta, Notice, device_of, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterOptions(ListingOptions):
    """How presence behaves in time, and in big rooms. Times are seconds."""

    grace: float = 15.0
    """How long a device that was dropped stays, unless its user comes back before."""

    patience: float = 1.0
    """How much longer other nodes wait, so that only the device's own has to say that the grace is over."""

    settling: float = 5.0
    """How long an entry of another node stays that the broker has lost: that node has to notice, and tell again."""


DEFAULTS: Final = RosterOptions()


class Roster(Listing):
    """Who is in one room.

    A device belongs to one node: that of its connection, or that from which it was dropped. Who of two nodes has it is
    for the broker to say. So what another node says of a device while this node's own word on it is under way is
    passed over; once the broker has answered, its entries are to be loaded if there was any (`wanting`).

    Args:
        options: how it behaves.
        node: id of this node.

    Of every method, ``now`` is seconds of a clock that does not go back.
    """

    __slots__ = ("_node", "_options", "holders", "ledger", "wanting")

    def __init__(self, options: RosterOptions, node: str = "") -> None:
        super().__init__(options)
        self._options = options
        self._node = node
        self.holders = Holders()
        """Who has each device."""
        self.ledger = Ledger()
        """What the broker has of it."""
        self.wanting = False
        """Whether the broker's entries are to be loaded."""

    def add(self, connection: str, user: str | None, meta: Meta, now: float) -> None:
        """Add a connection, or change what is known of it.

        It takes the place of a device of the same user that was dropped, on any node, and still has time; of several
        of one of which the same is known, and of the one that was dropped first.

        Args:
            connection: its id.
            user: id of its user, ``None`` for nobody.
            meta: what others see of it.

        Raises:
            ValueError: the user or ``meta`` can't be written as JSON, or ``meta`` has more than 1 KiB.
        """
        device = device_of(user, meta)
        self.expire(now)
        ref = self.holders.ref_of(connection)
        if ref is None:
            ref = self._returning(device) or new_ref()
            self._connect(connection, ref)
        elif self.devices[ref] == device:
            return
        self._put(ref, device, now)
        self.ledger.change(ref)

    def remove(self, connection: str, now: float, *, abrupt: bool) -> None:
        """Remove a connection if it is there.

        Args:
            connection: its id.
            abrupt: it was dropped, so it stays for `RosterOptions.grace`, in which its user may come back. Nobody
                can tell who has no id and comes back: they are removed at once.
        """
        ref = self.holders.disconnect(connection)
        if ref is None:
            return
        if abrupt and self.devices[ref].user != ANONYMOUS and self._options.grace > 0:
            self.holders.dropped[ref] = now + self._options.grace
            self.ledger.change(ref)
        else:
            self._discard(ref, now)
            self.ledger.leave(ref)

    def hear(self, heard: Heard, now: float) -> None:
        """Take up what another node says of a device."""
        self.expire(now)
        entry, device = heard
        ref = entry.ref
        holders = self.holders
        if entry.node == self._node:
            return
        if ref in self.ledger:
            self.ledger.contested = True
            return
        if holders.connection_of(ref) is not None:
            self.ledger.change(ref)  # the broker says whose it is
            return
        self._give_up(ref, entry.node)
        if not entry.dropped:
            holders.left.pop(ref, None)
        elif (newcomer := self._newcomer(device)) is not None:
            self._put(ref, self.devices[newcomer], now)
            self._replace(newcomer, ref, now)
            return
        else:
            holders.left.setdefault(ref, now + self._options.grace + self._options.patience)
        self._put(ref, device, now)

    def forget(self, ref: str, now: float) -> None:
        """Take up that another node says of a device that it has left."""
        if ref not in self.devices:
            return
        if ref in self.ledger:
            self.ledger.contested = True
        elif self.holders.connection_of(ref) is not None:
            self.ledger.change(ref)
        else:
            self.ledger.forget(ref)
            self._lose(ref, now)

    def depart(self, node: str, now: float) -> None:
        """Remove all devices of a node that is gone."""
        for ref in [ref for ref, of in self.holders.nodes.items() if of == node]:
            self._lose(ref, now)

    def load(self, entries: Sequence[Heard], now: float) -> None:
        """Take up what the broker has of all nodes.

        What it lacks of this node's it is told again. What it lacks of other nodes' has left; unless it lacks this
        node's own too, so that it must have lost them: they have `RosterOptions.settling` to be told again, also if the
        broker is asked once more meanwhile.
        """
        self.expire(now)
        found = {entry.ref: entry for entry, _ in entries}
        lacking = self._compare(found)
        for heard in entries:
            self.hear(heard, now)
        unknown = [ref for ref, entry in found.items() if entry.node == self._node and ref not in self.devices]
        self.withdraw(ref for ref in unknown if ref not in self.ledger)
        for ref in [ref for ref in self.holders.nodes if ref not in found]:
            if lacking:
                self.holders.missing.setdefault(ref, now + self._options.settling)
            elif ref not in self.holders.missing:
                self._lose(ref, now)

    def close(self) -> None:
        """Forget other nodes' devices: no member is here, and what they say of them is not heard any more."""
        for ref in [*self.holders.nodes]:
            self._lose(ref, 0.0)
        self.wanting = self.ledger.contested = False
        self.begin()

    def withdraw(self, refs: Iterable[str]) -> None:
        """Have the broker told that entries that it has are no more."""
        for ref in refs:
            self.ledger.know(ref)
            self.ledger.leave(ref)

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

    def expire(self, now: float) -> None:
        """Remove those whose time is over."""
        holders = self.holders
        for ref in holders.overdue(holders.dropped, now):
            self._discard(ref, now)
            self.ledger.leave(ref)
        for ref in holders.overdue(holders.left, now):
            self._discard(ref, now)
            self.withdraw([ref])
        for ref in holders.overdue(holders.missing, now):
            self._discard(ref, now)

    def take(self, now: float) -> Notice | None:
        """Return the frame for all members, if it is time and there is something to tell; see `Listing.take`."""
        self.expire(now)
        return super().take(now)

    def members(self, now: float, entries: Sequence[Heard] = ()) -> list[Member]:
        """Return who is here now, those that were dropped and may come back included.

        Args:
            now: the time.
            entries: what the broker has, where nothing of other nodes is heard.
        """
        self.expire(now)
        others = {entry.ref: device for entry, device in entries if entry.node != self._node}
        return listed({**self.devices, **others}.items())

    @property
    def expires_at(self) -> float | None:
        """When `expire` has something to do, ``None`` while there is nothing."""
        return self.holders.next_deadline

    @property
    def pending(self) -> bool:
        """Whether there is something to tell to the broker, or to ask it."""
        return self.wanting or self.ledger.waiting

    @property
    def idle(self) -> bool:
        """Whether nobody is here, and everybody knows."""
        return self.empty and self.due is None and self.ledger.settled and not self.wanting

    def _entry(self, ref: str) -> Entry | None:
        """Return the entry of a device of this node; ``None`` if it is another's, or none."""
        if not self.holders.is_own(ref):
            return None
        device = self.devices[ref]
        return Entry(ref, self._node, device.user, device.json, dropped=ref in self.holders.dropped)

    def _returning(self, device: Device) -> str | None:
        """Return the ref of the dropped device that comes back as this one."""
        holders, patience = self.holders, self._options.patience
        dropped = [ref for ref in self._users.get(device.user, ()) if holders.is_dropped(ref)]
        return min(dropped, key=lambda ref: (self.devices[ref] != device, holders.until(ref, patience)), default=None)

    def _newcomer(self, device: Device) -> str | None:
        """Return the ref of who came back here as a device of which only now is heard that it was dropped.

        Nobody was told of it yet, so that nobody sees it change its ref.
        """
        refs = self._users.get(device.user, ())
        untold = [ref for ref in refs if self.holders.connection_of(ref) is not None and self._is_untold(ref)]
        return min(untold, key=lambda ref: self.devices[ref] != device, default=None)

    def _replace(self, ref: str, new: str, now: float) -> None:
        """Give another device to the connection that has one, in place of it."""
        connection = self.holders.connection_of(ref)
        assert connection is not None
        self._connect(connection, new)
        self.ledger.change(new)
        self._discard(ref, now)
        self.ledger.leave(ref)

    def _connect(self, connection: str, ref: str) -> None:
        if self.holders.connect(connection, ref):
            self.ledger.know(ref)

    def _give_up(self, ref: str, node: str) -> None:
        """Let a device be another node's."""
        self.holders.give(ref, node)
        self.ledger.forget(ref)

    def _lose(self, ref: str, now: float) -> None:
        """Remove a device that is, or was, another node's."""
        self.holders.remove(ref)
        self._discard(ref, now)

    def _compare(self, found: Mapping[str, Entry]) -> bool:
        """Have the broker told again what it lacks of this node's; whether that is so much that it must have lost it.

        What is unsettled does not count: it may be under way.
        """
        connected = [ref for ref in self.holders.connected if ref not in self.ledger]
        lacking = not connected or any(ref not in found for ref in connected)
        for ref in (*connected, *(ref for ref in self.holders.dropped if ref not in self.ledger)):
            entry = found.get(ref)
            if entry is None or (entry.node == self._node and entry != self._entry(ref)):
                self.ledger.change(ref)
        return lacking
