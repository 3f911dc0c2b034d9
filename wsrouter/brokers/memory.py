"""The broker of one process."""

import asyncio
from math import inf
from time import monotonic

from wsrouter.brokers.base import Broker, Deliver, Publication
from wsrouter.history import History, Position, Recovery, Streams


class MemoryBroker(Broker):
    """Delivers within this process, before `publish` returns, and keeps history in its memory. It never fails."""

    local = True

    def __init__(self) -> None:
        self._deliver: Deliver | None = None
        self._streams: Streams[Publication] = Streams()
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = inf
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def aclose(self) -> None:
        self._deliver = None
        self._stop_sweeping()

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if self._deliver is None:
            return
        if history is not None:
            publication = self._streams.append(publication.name, publication, history, monotonic())
            self._sweep_in_time()
        self._deliver(publication)

    async def subscribe(self, target: str, name: str, history: History | None = None) -> None:
        """Keep the stream of a room. All else is nothing to do: every publication of this process is its own."""
        if history is not None:
            self._streams.hold(name, history, monotonic())
            self._sweep_in_time()

    async def unsubscribe(self, target: str, name: str) -> None:
        if target == "room":
            self._streams.release(name, monotonic())
            self._sweep_in_time()

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        recovery = self._streams.recover(room, since, history, monotonic())
        self._sweep_in_time()
        return recovery

    def _sweep_in_time(self) -> None:
        """Have what is too old forgotten, by one timer for all rooms."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the timer of one that has ended never comes
            self._loop = loop
            self._stop_sweeping()
        due = self._streams.next_sweep
        if due is not None and due < self._sweep_at and self._deliver is not None:
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
