"""The broker of one process."""

import asyncio
from collections.abc import Sequence
from math import inf
from time import monotonic

from wsrouter.brokers.base import Broker, Entry, Link, Publication, Receiver, Slot, Target
from wsrouter.history import History, Position, Recovery, Streams


class MemoryBroker(Broker):
    """Delivers within this process, before `publish` returns, and keeps history in its memory. It never fails."""

    local = True

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._started_at = 0.0
        self._entries: dict[str, dict[str, Entry]] = {}
        self._slots: dict[str, dict[str, None]] = {}
        self._streams: Streams[Publication] = Streams()
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = inf
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, node: str, receiver: Receiver) -> None:
        self._receiver = receiver
        self._started_at = monotonic()

    async def aclose(self) -> None:
        self._receiver = None
        self._entries.clear()
        self._slots.clear()
        self._stop_sweeping()

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if self._receiver is None:
            return
        if history is not None:
            publication = self._streams.append(publication.name, publication, history, monotonic())
            self._sweep_in_time()
        self._receiver.deliver(publication)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        """Keep the stream of a room. All else is nothing to do: every publication of this process is its own."""
        if history is not None:
            self._streams.hold(name, history, monotonic())
            self._sweep_in_time()

    async def unsubscribe(self, target: Target, name: str) -> None:
        if target == "room":
            self._streams.release(name, monotonic())
            self._sweep_in_time()

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        recovery = self._streams.recover(room, since, history, monotonic())
        self._sweep_in_time()
        return recovery

    def link(self) -> Link:
        return Link("up", since=monotonic() - self._started_at)

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        known = self._entries.setdefault(room, {})
        known.update({entry.ref: entry for entry in entries})
        return ()

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        known = self._entries.get(room, {})
        for ref in refs:
            known.pop(ref, None)
        if not known:
            self._entries.pop(room, None)

    async def entries(self, room: str) -> Sequence[Entry]:
        return tuple(self._entries.get(room, {}).values())

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        holders = self._slots.setdefault(name, {})
        replaced = None
        if holder not in holders and len(holders) >= most:
            if not replace or not holders:
                return Slot(False)
            replaced = next(iter(holders))
            del holders[replaced]
        holders[holder] = None
        return Slot(True, replaced)

    async def release(self, name: str, holder: str) -> None:
        holders = self._slots.get(name, {})
        holders.pop(holder, None)
        if not holders:
            self._slots.pop(name, None)

    def _sweep_in_time(self) -> None:
        """Have what is too old forgotten, by one timer for all rooms."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the timer of one that has ended never comes
            self._loop = loop
            self._stop_sweeping()
        due = self._streams.next_sweep
        if due is not None and due < self._sweep_at and self._receiver is not None:
            self._stop_sweeping()
            self._sweep_at = due
            self._sweeper = loop.call_later(max(0.0, due - monotonic()), self._sweep)

    def _sweep(self) -> None:
        self._sweeper, self._sweep_at = None, inf
        self._streams.sweep(monotonic())
        self._sweep_in_time()

    def _stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper, self._sweep_at = None, inf
