"""The devices in one room, on whatever node: who has each, and who comes back as which. Pure and synchronous."""

from collections.abc import Iterable, Sequence

from wsrouter.holders import Holders, new_ref
from wsrouter.ledger import Ledger
from wsrouter.listing import Listing, RosterOptions
from wsrouter.members import ANONYMOUS, Device, Heard, Member, Meta, Notice, device_of, listed


class Gathering(Listing):
    """The devices in one room. Each belongs to one node: that of its connection, or that from which it was dropped.

    Who of two nodes has a device is for the broker to say. So what another node says of one while this node's own
    word on it is under way is passed over, and noted (`Ledger.contested`).

    Args:
        options: how it behaves.
        node: id of this node.
    """

    __slots__ = ("_node", "holders", "ledger")

    def __init__(self, options: RosterOptions, node: str = "") -> None:
        super().__init__(options)
        self._node = node
        self.holders = Holders()
        """Who has each device."""
        self.ledger = Ledger()
        """What the broker has of it."""

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

    def close(self) -> None:
        """Forget other nodes' devices: no member is here, and what they say of them is not heard any more."""
        for ref in [*self.holders.nodes]:
            self._lose(ref, 0.0)
        self.ledger.contested = False
        self.begin()

    def withdraw(self, refs: Iterable[str]) -> None:
        """Have the broker told that entries that it has are no more."""
        for ref in refs:
            self.ledger.know(ref)
            self.ledger.leave(ref)

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
