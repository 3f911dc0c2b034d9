"""Who is in which room. Pure and synchronous."""

from collections.abc import Iterator, Mapping
from typing import Final

from wsrouter.deadlines import Deadlines
from wsrouter.frames import CloseInfo
from wsrouter.members import Member, Meta, Notice
from wsrouter.roster import DEFAULTS, Roster, RosterOptions

_RETURNING: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, *range(4500, 4600)})
"""Codes of the server's, after which a client connects again; of the others it stays away."""


class Presence:
    """The rosters of all rooms of this node that have one.

    Nothing happens by itself: somebody has to call `take` by `due`. See `Roster` for what the methods do.

    Args:
        options: how they behave.
    """

    def __init__(self, options: RosterOptions = DEFAULTS) -> None:
        self._options = options
        self._rosters: dict[str, Roster] = {}
        self._notices = Deadlines()
        self._expiries = Deadlines()

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

    def hear(self, room: str, ref: str, user: str, meta: Meta, now: float) -> None:
        """Take up an entry of another node, or note that it is still there."""
        roster = self._roster(room)
        roster.hear(ref, user, meta, now)
        self._watch(room, roster)

    def forget(self, room: str, ref: str, now: float) -> None:
        """Remove an entry of another node, if it is there."""
        roster = self._rosters.get(room)
        if roster is not None:
            roster.forget(ref, now)
            self._watch(room, roster)

    def state(self, room: str) -> Mapping[str, object]:
        """Return the data of the ``$presence`` frame for who joins a room now."""
        return self._roster(room).state()

    def members(self, room: str, now: float) -> list[Member]:
        """Return who is in a room now."""
        roster = self._roster(room)
        members = roster.members(now)
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

    def __len__(self) -> int:
        return len(self._rosters)

    def _roster(self, room: str) -> Roster:
        roster = self._rosters.get(room)
        return Roster(self._options) if roster is None else roster

    def _watch(self, room: str, roster: Roster) -> None:
        """Keep a roster and its deadlines, or let go of one that is empty when that was told."""
        if roster.empty and roster.due is None:
            self._rosters.pop(room, None)
            return
        self._rosters[room] = roster
        if (at := roster.due) is not None:
            self._notices.add(room, at)
        if (at := roster.expires_at) is not None:
            self._expiries.add(room, at)


def is_abrupt(close: CloseInfo) -> bool:
    """Whether somebody who left like this may be about to come back.

    A browser that reloads a page says 1001; one that has no network any more says nothing. Only 1000, or no code
    at all, is a goodbye of the client's. After a close of the server's it depends on the code.
    """
    if close.by == "client":
        return close.code not in (1000, 1005)
    return close.code in _RETURNING
