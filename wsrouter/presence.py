"""Who is in which room. Pure and synchronous."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from wsrouter.brokers.base import Entry
from wsrouter.deadlines import Deadlines
from wsrouter.frames import CloseInfo
from wsrouter.ledger import Batch
from wsrouter.listing import DEFAULTS, RosterOptions
from wsrouter.members import Heard, Member, Meta, Notice
from wsrouter.roster import Roster

_RETURNING: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, *range(4500, 4600)})
"""Codes of the server's, after which a client connects again; of the others it stays away."""


class Presence:
    """The rosters of all rooms of this node that have one.

    Nothing happens by itself: somebody has to call `take` by `due`, and to see to the rooms that are `pending`. See
    `Roster` for what the methods do.

    Args:
        options: how they behave.
        node: id of this node.
    """

    def __init__(self, options: RosterOptions = DEFAULTS, node: str = "") -> None:
        self.options = options
        self._node = node
        self._rosters: dict[str, Roster] = {}
        self._notices = Deadlines()
        self._expiries = Deadlines()
        self.pending: dict[str, None] = {}
        """Rooms of which there is something to tell to the broker, or to ask it; whoever sees to one removes it."""

    def add(self, room: str, connection: str, user: str | None, meta: Meta, now: float) -> None:
        """Add a connection to a room, or change what is known of it."""
        roster = self._roster(room)
        roster.add(connection, user, meta, now)
        self._watch(room, roster)

    def remove(self, room: str, connection: str, now: float, *, abrupt: bool) -> None:
        """Remove a connection from a room if it is there; see `is_abrupt`."""
        roster = self._rosters.get(room)
        if roster is not None:
            roster.remove(connection, now, abrupt=abrupt)
            self._watch(room, roster)

    def hear(self, room: str, changed: Sequence[Heard], gone: Sequence[str], now: float) -> None:
        """Take up what another node says of its devices."""
        roster = self._roster(room)
        for each in changed:
            roster.hear(each, now)
        for ref in gone:
            roster.forget(ref, now)
        self._watch(room, roster)

    def depart(self, node: str, now: float) -> None:
        """Remove the devices of a node that is gone from all rooms."""
        for room, roster in [*self._rosters.items()]:
            roster.depart(node, now)
            self._watch(room, roster)

    def lose(self, room: str) -> None:
        """Note that something may have been missed of what other nodes said: the broker's entries are to be loaded."""
        roster = self._roster(room)
        roster.lose()
        self._watch(room, roster)

    def wanting(self, room: str) -> bool:
        """Whether the broker is to be asked who is in a room."""
        return self._roster(room).wanting

    def ask(self, room: str) -> None:
        """Note that the broker is asked; `load`, `fail` or `close` has to be called."""
        roster = self._roster(room)
        roster.ask()
        self._watch(room, roster)

    def fail(self, room: str) -> None:
        """Note that it did not answer."""
        roster = self._roster(room)
        roster.fail()
        self._watch(room, roster)

    def load(self, room: str, entries: Sequence[Entry], clock: Callable[[], float]) -> Iterator[None]:
        """Take up what the broker has of a room, some entries at a time."""
        roster = self._roster(room)
        for _ in roster.load(entries, clock):
            self._watch(room, roster)
            yield
        self._watch(room, roster)

    def begin(self, room: str) -> None:
        """Note that no member is here who was told anything, though somebody comes now."""
        roster = self._roster(room)
        roster.begin()
        self._watch(room, roster)

    def close(self, room: str) -> None:
        """Forget other nodes' devices, since nothing is heard of them any more."""
        roster = self._rosters.get(room)
        if roster is not None:
            roster.close()
            self._watch(room, roster)

    def outgoing(self, room: str, most: int) -> Batch:
        """Return what the broker is to be told next of a room; then `sent` or `unsent` has to be called."""
        return self._roster(room).outgoing(most)

    def sent(self, room: str, batch: Batch, refused: Sequence[str], now: float) -> None:
        """Note that the broker was told."""
        roster = self._roster(room)
        roster.sent(batch, refused, now)
        self._watch(room, roster)

    def unsent(self, room: str, *, unknown: bool) -> None:
        """Note that the broker was not told, or may not have been."""
        roster = self._roster(room)
        roster.unsent(unknown=unknown)
        self._watch(room, roster)

    def state(self, room: str) -> Mapping[str, object]:
        """Return the data of the ``$presence`` frame for who joins a room now."""
        return self._roster(room).state()

    def members(self, room: str, now: float, entries: Sequence[Heard] = ()) -> list[Member]:
        """Return who is in a room now."""
        roster = self._roster(room)
        members = roster.members(now, entries)
        self._watch(room, roster)
        return members

    @property
    def due(self) -> float | None:
        """When `take` has something to do, ``None`` while there is nothing."""
        return min((at for at in (self._notices.next, self._expiries.next) if at is not None), default=None)

    def take(self, now: float) -> Iterator[tuple[str, Notice]]:
        """Yield rooms, each with the frame for all its members.

        It may be left before its end: `due` tells that there is more.
        """
        while (room := self._expiries.pop(now)) is not None:
            if (roster := self._rosters.get(room)) is not None:
                roster.expire(now)
                self._watch(room, roster)
        while (room := self._notices.pop(now)) is not None:
            if (roster := self._rosters.get(room)) is not None:
                notice = roster.take(now)
                self._watch(room, roster)
                if notice is not None:
                    yield room, notice

    def afresh(self, options: RosterOptions, node: str) -> "Presence":
        """Return one in which nobody is, and that has the broker told so."""
        successor = Presence(options, node)
        for room, roster in self._rosters.items():
            known = Roster(options, node)
            known.withdraw(roster.ledger.known)
            successor._watch(room, known)
        return successor

    def __len__(self) -> int:
        return len(self._rosters)

    def _roster(self, room: str) -> Roster:
        roster = self._rosters.get(room)
        return Roster(self.options, self._node) if roster is None else roster

    def _watch(self, room: str, roster: Roster) -> None:
        """Keep a roster and its deadlines, or let go of one that nobody needs any more."""
        if roster.idle:
            self._rosters.pop(room, None)
            return
        self._rosters[room] = roster
        if (at := roster.due) is not None:
            self._notices.add(room, at)
        if (at := roster.expires_at) is not None:
            self._expiries.add(room, at)
        if roster.pending:
            self.pending[room] = None


def is_abrupt(close: CloseInfo) -> bool:
    """Whether somebody who left like this may be about to come back.

    A browser that reloads a page says 1001; one that has no network any more says nothing. Only 1000, or no code
    at all, is a goodbye of the client's. After a close of the server's it depends on the code.
    """
    if close.by == "client":
        return close.code not in (1000, 1005)
    return close.code in _RETURNING
