"""Fan-out: what many connections are sent within one iteration of the event loop is written together."""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from time import perf_counter
from typing import Final

from wsrouter.connection import Connection
from wsrouter.outbox import Overflow
from wsrouter.rooms import Room
from wsrouter.runs import MAX_BYTES, MAX_FRAMES, Prepared, Run
from wsrouter.writer import Shared

SLICE_SECONDS: Final = 0.01
"""A large fan-out gives the loop back so often."""
LOOK_EVERY: Final = 4
"""After so many connections the clock is looked at."""
MAX_PLACES: Final = 32_768
"""So many connections that were given a run, in one iteration of the event loop, are a slice as well (about 3 ms)."""
SLICE_WRITERS: Final = 256
"""So many connections whose writer does the rest, in the next turn of the loop, are a slice as well."""


class Cork:
    """Holds back what is published until the event loop has gone around once, and then writes it.

    Publications of one room that follow each other are one `Run`, encoded, framed and joined once for all members.
    While there is one run and nothing else, it waits for all its recipients at once (`Shared.lone`), so that each is
    touched but once, when it is written. When more comes, runs wait on the connections (`Connection.cork`). Whatever
    else is sent to a connection takes along what waits for it: what is sent to one connection keeps its order.

    Args:
        shared: what the connections have in common.
    """

    __slots__ = ("_bytes", "_dirty", "_flushing", "_frames", "_open", "_places", "_scheduled", "_shared")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._dirty: deque[Connection] = deque()
        self._open: list[Room[Connection]] = []
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
        room: Room[Connection],
        prepared: Prepared,
        overflow: Overflow,
        *,
        compress: bool = False,
        excluded: Collection[Connection] = (),
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
            run = Run(prepared.room, overflow, compress)
            members = [each for each in room.members if each not in excluded] if excluded else room.members
            if not members:
                return 0
            if excluded:
                self.send(run, members)
                run.add(prepared)
                run.open = False
            else:
                if self._scheduled or compress:
                    self.send(run, members)
                else:
                    self._hold(run, room)
                run.add(prepared)
                room.run = run
                self._open.append(room)
        self._frames += 1
        self._bytes += prepared.size
        return run.holders

    def send(self, run: Run, connections: Collection[Connection]) -> None:
        """Put a run behind what some connections are sent already. It may be sent to others before and after."""
        if not connections:
            return
        if self._shared.lone is not None:
            self._spread(self._shared.lone)
        self._schedule()
        self._put(run, connections)
        run.holders = len(connections)
        self._places += run.holders

    def _hold(self, run: Run, room: Room[Connection]) -> None:
        self._schedule()
        run.recipients = room.members
        run.holders = len(room.members)
        self._places += run.holders
        self._shared.lone = run

    def _spread(self, run: Run) -> None:
        """Let what waits for many at once wait on each of them."""
        self._shared.lone = None
        recipients, run.recipients = run.recipients, {}
        served = run.served
        self._put(run, [each for each in recipients if each not in served] if served else recipients)

    def _put(self, run: Run, connections: Collection[Connection]) -> None:
        dirty = self._dirty
        for connection in connections:
            cork = connection.cork
            if cork:
                cork[-1].open = False
            else:
                dirty.append(connection)
            cork.append(run)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        lone, self._shared.lone = self._shared.lone, None
        recipients: Sequence[Connection] = ()
        if lone is not None:
            recipients = tuple(lone.recipients)
            lone.recipients = {}
        for room in self._open:
            room.end_run()
        self._open.clear()
        self._frames = self._bytes = self._places = 0
        self._scheduled = False
        try:
            if lone is not None:
                self._write(lone, recipients)
            else:
                self._flush_corks()
        finally:  # whatever happened to one connection, the others get what is theirs
            self._flushing = bool(self._dirty) or self._shared.lone is not None
            if self._flushing:
                self._schedule()

    def _write(self, run: Run, recipients: Sequence[Connection]) -> None:
        """Write a run to its recipients, for the time of a slice, and hold it for those that are left."""
        codec = recipients[0].codec
        try:
            data = run.wire(codec, None)
        except Exception:  # each of them tells
            self._put(run, recipients)
            return
        until = perf_counter() + SLICE_SECONDS
        served = run.served
        writers = done = 0
        try:
            while done < len(recipients) and perf_counter() < until and writers < SLICE_WRITERS:
                for connection in recipients[done : done + LOOK_EVERY]:
                    done += 1
                    straight = connection.straight
                    if served and connection in served:
                        continue
                    if straight is not None and connection.codec is codec:
                        straight(data)
                    else:
                        connection.cork.append(run)
                        writers += connection.flush()
        finally:
            if done < len(recipients):
                run.recipients = dict.fromkeys(recipients[done:])
                self._shared.lone = run

    def _flush_corks(self) -> None:
        dirty = self._dirty
        until = perf_counter() + SLICE_SECONDS
        looks = LOOK_EVERY
        writers = 0
        while dirty and writers < SLICE_WRITERS:
            writers += dirty.popleft().flush()
            looks -= 1
            if not looks:
                if perf_counter() > until:
                    break
                looks = LOOK_EVERY
