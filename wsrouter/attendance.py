"""Who is in the rooms that tell: what members are sent, and when; what other nodes are told, and what they tell."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Final

from wsrouter.announcing import Announcer
from wsrouter.brokers.base import Broker, Entry
from wsrouter.codecs import dump
from wsrouter.connection import Connection, ServerConnection
from wsrouter.errors import BrokerError
from wsrouter.fanout import Cork
from wsrouter.listing import RosterOptions
from wsrouter.members import Member, Meta, readable
from wsrouter.presence import Presence, is_abrupt
from wsrouter.rooms import Rooms
from wsrouter.runs import Prepared, Run

SLICE_SECONDS: Final = 0.005
"""Frames are made for so long before the event loop gets its turn."""
MAX_TOLD: Final = 256
"""Devices that the broker is told of in one call."""
FLUSH_SECONDS: Final = 5.0
"""What is left to tell is told within that when the node ends."""


class Hearing:
    """A room that is subscribed to, so that what other nodes say of it is heard."""

    __slots__ = ("loaded", "loading")

    def __init__(self) -> None:
        self.loading = asyncio.Lock()
        self.loaded = False
        """Whether it is known who is there on other nodes."""


class Attendance:
    """Tells the members of rooms with presence of each other, on all nodes.

    Its frames close a member whose outbox is full, whatever the room's policy: a diff fits only the state before it.

    Args:
        rooms: the members of this process.
        cork: what sends to them.
        broker: what connects this node to others.
        node: id of this node.
        options: how presence behaves in time.
    """

    def __init__(
        self, rooms: Rooms[ServerConnection], cork: Cork, broker: Broker, node: str, options: RosterOptions
    ) -> None:
        self._rooms = rooms
        self._cork = cork
        self._broker = broker
        self._node = node
        self._presence = Presence(options, node)
        self._announcer = Announcer(self._see_to)
        self._hearings: dict[str, Hearing] = {}
        self._lost: set[str] = set()
        """Rooms of which something may have been missed, until they are seen to."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self._state: tuple[Mapping[str, object] | None, Run] = (None, Run(None, "disconnect"))
        """What was sent to the last newcomer: while many come, it is the same for all."""

    async def load(self, room: str) -> None:
        """Learn who is in a room on other nodes; called when it is subscribed to, before the first member enters.

        Raises:
            BrokerError: it is not known.
        """
        self.close(room)
        hearing = self._hearings[room] = Hearing()
        async with hearing.loading:
            await self._load(room, hearing)

    def close(self, room: str) -> None:
        """Forget who is there on other nodes, if that was known; called when a room is subscribed to no longer."""
        if self._hearings.pop(room, None) is not None:
            self._presence.close(room)

    def enter(self, connection: ServerConnection, room: str, meta: Meta) -> None:
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

    def exit(self, connection: ServerConnection, room: str, *, left: bool) -> None:
        """Let go of a member.

        Args:
            connection: the member.
            room: name of the room.
            left: it left the room; else its connection ended, and it may be about to come back.
        """
        abrupt = not left and (connection.closed is None or is_abrupt(connection.closed))
        self._presence.remove(room, connection.id, monotonic(), abrupt=abrupt)
        self._schedule()

    async def members(self, room: str) -> list[Member]:
        """Return who is in a room, on all nodes.

        Raises:
            BrokerError: no member is here, and the broker does not answer.
        """
        hearing = self._hearings.get(room)
        others: Sequence[Entry] = ()
        if hearing is None or not hearing.loaded:
            others = await self._broker.entries(room)
        return self._presence.members(room, monotonic(), readable(others))

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        """Take up what another node says of its devices in a room."""
        if room in self._hearings:
            self._presence.hear(room, readable(changed), gone, monotonic())
            self._schedule()

    def departed(self, node: str) -> None:
        """Remove the devices of a node that is gone."""
        self._presence.depart(node, monotonic())
        self._schedule()

    def reload(self, rooms: Iterable[str]) -> None:
        """Learn anew who is in rooms of which something may have been missed, since the broker is there again.

        Rooms without presence are passed over.
        """
        for room in rooms:
            if room in self._hearings:
                self._lost.add(room)
                self._announcer.add(room)
        self._announcer.resume()

    def resume(self) -> None:
        """Try again at once what the broker was not told, or was asked in vain: it answers again."""
        self._announcer.resume()

    async def aclose(self) -> None:
        """Tell the broker all that is left to tell, within a deadline, and end."""
        self._stop_timer()
        try:
            await self._announcer.aclose(FLUSH_SECONDS)
        finally:
            self._presence = Presence(self._presence.options, self._node)
            self._hearings.clear()
            self._lost.clear()

    def renewed(self, cork: Cork, node: str, options: RosterOptions | None = None) -> "Attendance":
        """End, and return one for the running event loop, in which nobody is yet.

        Args:
            cork: what sends to members.
            node: id of this node from now on.
            options: how presence behaves in time; by default as before.
        """
        self._stop_timer()
        options = options or self._presence.options
        successor = Attendance(self._rooms, cork, self._broker, node, options)
        successor._presence = self._presence.afresh(options, node)
        return successor

    async def _load(self, room: str, hearing: Hearing) -> None:
        """Ask the broker who is in a room, and take up its answer unless the room is closed meanwhile."""
        self._presence.ask(room)
        try:
            entries = await self._broker.entries(room)
            if self._hearings.get(room) is not hearing:
                return
            until = monotonic() + SLICE_SECONDS
            for _ in self._presence.load(room, entries, monotonic):
                if monotonic() > until:
                    await asyncio.sleep(0)
                    if self._hearings.get(room) is not hearing:
                        return
                    until = monotonic() + SLICE_SECONDS
        except BaseException:
            if self._hearings.get(room) is hearing:
                self._presence.fail(room)
                if hearing.loaded:
                    self._presence.lose(room)
            raise
        if not hearing.loaded:
            hearing.loaded = True
            self._presence.begin(room)
        self._schedule()

    async def _see_to(self, room: str) -> None:
        """Ask and tell the broker what there is to ask and to tell of a room."""
        hearing = self._hearings.get(room)
        if room in self._lost:
            self._lost.discard(room)
            if hearing is not None:
                self._presence.lose(room)
        if hearing is not None and self._presence.wanting(room):
            async with hearing.loading:
                await self._load(room, hearing)
        batch = self._presence.outgoing(room, MAX_TOLD)
        refused: Sequence[str] = ()
        try:
            if batch.entries:
                refused = await self._broker.announce(room, batch.entries)
            if batch.gone:
                await self._broker.withdraw(room, batch.gone)
        except BaseException as exc:
            self._presence.unsent(room, unknown=not isinstance(exc, BrokerError) or exc.outcome_unknown)
            raise
        self._presence.sent(room, batch, refused, monotonic())
        self._schedule()

    def _schedule(self) -> None:
        """See to it that what has changed is told in time, to members and to the broker."""
        for room in self._presence.pending:
            self._announcer.add(room)
        self._presence.pending.clear()
        due = self._presence.due
        if due is None or due >= self._due:
            return
        self._stop_timer()
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

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = inf
