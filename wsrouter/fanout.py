"""Fan-out: what many connections are sent within one iteration of the event loop is written together."""

import asyncio
from collections import deque
from collections.abc import Collection
from time import perf_counter
from typing import Final

from wsrouter.connection import Connection
from wsrouter.outbox import Overflow
from wsrouter.rooms import Room
from wsrouter.runs import MAX_BYTES, MAX_FRAMES, Prepared, Run

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

    What is sent to one connection keeps its order: publications wait on the connection (`Connection.cork`), and
    whatever else is sent to it takes them along. Publications of one room that follow each other are one `Run`,
    encoded, framed and joined once for all members.
    """

    __slots__ = ("_bytes", "_dirty", "_flushing", "_frames", "_open", "_places")

    def __init__(self) -> None:
        self._dirty: deque[Connection] = deque()
        self._open: list[Room[Connection]] = []
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
            self.send(run, members)
            run.add(prepared)
            if excluded:
                run.open = False
            else:
                room.run = run
                self._open.append(room)
        self._frames += 1
        self._bytes += prepared.size
        return run.holders

    def send(self, run: Run, connections: Collection[Connection]) -> None:
        """Put a run behind what some connections are sent already. It may be sent to others before and after."""
        dirty = self._dirty
        if not dirty and connections:
            asyncio.get_running_loop().call_soon(self._flush)
        for connection in connections:
            cork = connection.cork
            if cork:
                cork[-1].open = False
            else:
                dirty.append(connection)
            cork.append(run)
        run.holders = len(connections)
        self._places += run.holders

    def _flush(self) -> None:
        for room in self._open:
            room.end_run()
        self._open.clear()
        self._frames = self._bytes = self._places = 0
        dirty = self._dirty
        until = perf_counter() + SLICE_SECONDS
        looks = LOOK_EVERY
        writers = 0
        try:
            while dirty and writers < SLICE_WRITERS:
                writers += dirty.popleft().flush()
                looks -= 1
                if not looks:
                    if perf_counter() > until:
                        break
                    looks = LOOK_EVERY
        finally:  # whatever happened to one connection, the others get what is theirs
            self._flushing = bool(dirty)
            if dirty:
                asyncio.get_running_loop().call_soon(self._flush)
