"""Fan-out: what many connections are sent within one iteration of the event loop is written together."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Final

from wsrouter.codecs import Codec
from wsrouter.connection import ServerConnection
from wsrouter.outbox import Overflow
from wsrouter.rooms import Room
from wsrouter.runs import MAX_BYTES, MAX_FRAMES, Prepared, Run
from wsrouter.writer import Shared

SLICE_SECONDS: Final = 0.01
"""A large fan-out gives the loop back so often."""
LOOK_EVERY: Final = 4
"""After so many connections the clock is looked at."""
MAX_PLACES: Final = 32_768
"""So many connections that are given a run, or noted for later, are a slice as well (about 3 ms)."""
SLICE_WRITERS: Final = 256
"""So many connections whose writer does the rest, in the next turn of the loop, are a slice as well."""
FEW: Final = 4
"""What is for less than this part of those who wait for a run is put behind it for each of them alone."""


class Cork:
    """Holds back what is published until the event loop has gone around once, and then writes it.

    Publications of one room that follow each other are one `Run`, encoded, framed and joined once for all members.
    The first run of all waits for its recipients at once (`Shared.lone`), so that each is touched but once, when it is
    written. What comes then waits on the connections (`Writer.cork`). Whatever else is sent to a connection takes
    along what waits for it: what is sent to one connection keeps its order.

    Args:
        shared: what the connections have in common.
    """

    __slots__ = (
        "_bytes",
        "_dirty",
        "_flushing",
        "_frames",
        "_held",
        "_open",
        "_places",
        "_rest",
        "_scheduled",
        "_shared",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._dirty: deque[ServerConnection] = deque()
        self._open: list[Room[ServerConnection]] = []
        self._held: Room[ServerConnection] | None = None
        """The room whose members the lone run waits for, whoever that is."""
        self._rest: dict[ServerConnection, None] = {}
        """Those of its recipients that are left when it was written to some; the next of them is the last."""
        self._scheduled = False
        self._flushing = False
        self._frames = 0
        """What was published in this iteration of the event loop, to any room, and its bytes."""
        self._bytes = 0
        self._places = 0
        """How many connections were given a run, each as often as it was."""

    @property
    def behind(self) -> bool:
        """Whether so much waits that whoever publishes should give the loop back."""
        full = self._frames >= MAX_FRAMES or self._bytes >= MAX_BYTES or self._places >= MAX_PLACES
        return full or self._flushing

    def publish(
        self,
        room: Room[ServerConnection],
        prepared: Prepared,
        overflow: Overflow,
        *,
        compress: bool = False,
        excluded: Collection[ServerConnection] = (),
    ) -> int:
        """Send a publication to the members of a room as they are now, and return to how many.

        Args:
            room: who gets it.
            prepared: what they get.
            overflow: what happens to a member whose outbox is full.
            compress: whether members that negotiated compression get it compressed.
            excluded: members that do not get it.
        """
        run = room.run
        if run is not None and run.open and run.overflow == overflow and not excluded:
            run.add(prepared)
        else:
            without = {each for each in excluded if each in room.members}
            if len(without) == len(room.members):
                return 0
            run = Run(prepared.room, overflow, compress)
            if not (self._scheduled or compress):
                self._hold(run, room, without)
            elif without:
                self.send(run, [each for each in room.members if each not in without])
            else:
                self.send(run, room.members)
            run.add(prepared)
            if without:
                run.open = False
            else:
                room.run = run
                self._open.append(room)
        self._frames += 1
        self._bytes += prepared.size
        return run.holders

    def send(self, run: Run, connections: Collection[ServerConnection]) -> None:
        """Put a run behind what some connections are sent already. It may be sent to others before and after."""
        if not connections:
            return
        lone = self._shared.lone
        if lone is not None and len(connections) * FEW > len(lone.recipients):
            self._spread(lone)
            lone = None
        self._schedule()
        self._put(run, connections, take_along=lone is not None)
        run.holders = len(connections)
        self._places += run.holders

    def _hold(self, run: Run, room: Room[ServerConnection], without: set[ServerConnection]) -> None:
        """Let a run wait for all members of a room at once."""
        self._schedule()
        run.recipients = room.members
        run.served = without
        run.holders = len(room.members) - len(without)
        self._shared.lone = run
        self._held = room
        room.held = run

    def _spread(self, run: Run) -> None:
        """Let what waits for many at once wait on each of them."""
        self._let_go()
        self._shared.lone = None
        recipients, run.recipients = run.recipients, {}
        self._rest = {}
        self._places += len(recipients)
        served = run.served
        self._put(run, [each for each in recipients if each not in served] if served else recipients)

    def _let_go(self) -> None:
        """Be no longer concerned with who is a member of the room whose members wait."""
        if self._held is not None:
            self._held.held = None
            self._held = None

    def _put(self, run: Run, connections: Iterable[ServerConnection], *, take_along: bool = False) -> None:
        dirty = self._dirty
        for connection in connections:
            cork = connection.cork
            if not cork:
                dirty.append(connection)
            if take_along:
                connection.take_along()
            if cork:
                cork[-1].open = False
            cork.append(run)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        until = perf_counter() + SLICE_SECONDS
        for room in self._open:
            room.end_run()
        self._open.clear()
        self._frames = self._bytes = self._places = 0
        self._scheduled = False
        lone = self._shared.lone
        try:
            if self._dirty:
                self._flush_corks(until if lone is None else until - SLICE_SECONDS / 2)
            if lone is not None:
                self._write(lone, until)
        finally:  # whatever happened to one connection, the others get what is theirs
            self._flushing = bool(self._dirty) or self._shared.lone is not None
            if self._flushing:
                self._schedule()

    def _write(self, run: Run, until: float) -> None:
        """Write the lone run to its recipients for the time that is left, and let it wait for those that are left."""
        run.open = False
        self._shared.lone = None
        served, recipients = run.served, run.recipients
        begun = recipients is self._rest
        if not begun and len(recipients) > MAX_PLACES:
            self._keep(run, len(recipients))
            return
        codec: Codec | None = None
        data = b""
        looks, done, writers = LOOK_EVERY, 0, 0
        try:
            for connection in _popped(self._rest) if begun else recipients:
                done += 1
                straight = connection.straight
                if straight is not None and codec is None:
                    codec, data = connection.codec, _wire(run, connection.codec)
                if served and connection in served:
                    pass
                elif straight is not None and connection.codec is codec and data:
                    straight(data)
                else:
                    writers += connection.take(run)
                looks -= 1
                if not looks:
                    if perf_counter() > until or writers >= SLICE_WRITERS:
                        break
                    looks = LOOK_EVERY
        finally:
            self._keep(run, len(recipients) if begun else len(recipients) - done)

    def _keep(self, run: Run, left: int) -> None:
        """Let the lone run wait for those of its recipients that are left, the last of them."""
        if left and run.recipients is not self._rest:
            run.recipients = self._rest = dict.fromkeys(islice(reversed(run.recipients), left))
        self._let_go()
        if left:
            self._shared.lone = run
        else:
            run.recipients = {}

    def _flush_corks(self, until: float) -> None:
        dirty = self._dirty
        looks = LOOK_EVERY
        writers = 0
        while dirty and writers < SLICE_WRITERS:
            writers += dirty.popleft().flush()
            looks -= 1
            if not looks:
                if perf_counter() > until:
                    break
                looks = LOOK_EVERY


def _popped(connections: dict[ServerConnection, None]) -> Iterator[ServerConnection]:
    """Take out one connection after the other, the last first."""
    while connections:
        yield connections.popitem()[0]


def _wire(run: Run, codec: Codec) -> bytes:
    """Return a run as bytes of the wire, none if it can't be written: then each of its recipients tells."""
    try:
        return run.wire(codec, None)
    except Exception:
        return b""
