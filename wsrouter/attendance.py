"""Who is in the rooms that tell: what members are sent, and when."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Final

from wsrouter.brokers.base import Entry
from wsrouter.codecs import dump
from wsrouter.connection import Connection
from wsrouter.fanout import Cork
from wsrouter.members import Member, Meta
from wsrouter.presence import Presence, is_abrupt
from wsrouter.rooms import Rooms
from wsrouter.roster import DEFAULTS, RosterOptions
from wsrouter.runs import Prepared, Run

SLICE_SECONDS: Final = 0.005
"""Frames are made for so long before the event loop gets its turn."""


class Attendance:
    """Tells the members of rooms with presence of each other.

    Its frames close a member whose outbox is full, whatever the room's policy: a diff fits only the state before it.

    Args:
        rooms: the members of this process.
        cork: what sends to them.
        options: how presence behaves in time.
    """

    def __init__(self, rooms: Rooms[Connection], cork: Cork, options: RosterOptions = DEFAULTS) -> None:
        self._rooms = rooms
        self._cork = cork
        self.options = options
        self._presence = Presence(options)
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self._state: tuple[Mapping[str, object] | None, Run] = (None, Run(None, "disconnect"))
        """What was sent to the last newcomer: while many come, it is the same for all."""

    def enter(self, connection: Connection, room: str, meta: Meta) -> None:
        """Take up a new member, and send it who is here.

        Raises:
            ValueError: ``meta`` is no JSON, or too large.
        """
        state = self._presence.state(room)
        self.change(connection, room, meta)
        if state is not self._state[0] or self._state[1].room != room:
            self._state = state, Run(room, "disconnect")
            self._state[1].add(Prepared("$presence", dump(state), room))
        self._cork.send(self._state[1], [connection])

    def change(self, connection: Connection, room: str, meta: Meta) -> None:
        """Change what others see of a member.

        Raises:
            ValueError: ``meta`` is no JSON, or too large.
        """
        self._presence.add(room, connection.id, connection.user_id, meta, monotonic())
        self._schedule()

    def exit(self, connection: Connection, room: str, *, left: bool) -> None:
        """Let go of a member.

        Args:
            connection: the member.
            room: name of the room.
            left: it left the room; else its connection ended, and it may be about to come back.
        """
        abrupt = not left and (connection.closed is None or is_abrupt(connection.closed))
        self._presence.remove(room, connection.id, monotonic(), abrupt=abrupt)
        self._schedule()

    def members(self, room: str) -> list[Member]:
        """Return who is in a room."""
        return self._presence.members(room, monotonic())

    async def load(self, room: str) -> None:
        """Learn who is in a room on other nodes; called when it is subscribed to, before the first member enters."""

    def reload(self, rooms: Collection[str]) -> None:
        """Learn it anew for rooms of which notices may have been lost; rooms without presence are passed over."""

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        """Take entries of other nodes in a room: the new and changed ones, and refs that left."""

    def departed(self, node: str) -> None:
        """Forget all entries of a node."""

    def aclose(self) -> None:
        """End telling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = inf

    def _schedule(self) -> None:
        due = self._presence.due
        if due is None or due >= self._due:
            return
        self.aclose()
        self._due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - monotonic()), self._tell)

    def _tell(self) -> None:
        self._timer, self._due = None, inf
        until = monotonic() + SLICE_SECONDS
        for name, notice in self._presence.take(monotonic()):
            room = self._rooms.get(name)
            if room is not None:
                self._cork.publish(room, Prepared(notice.type, dump(notice.data), name), "disconnect")
            if monotonic() > until:
                break
        self._schedule()
