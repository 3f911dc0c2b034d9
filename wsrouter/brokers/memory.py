"""The broker of one process."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from time import monotonic
from typing import Final

from wsrouter.brokers.base import Broker, Entry, Link, Publication, Receiver, Slot, Target
from wsrouter.errors import ConfigurationError
from wsrouter.history import History, Position, Recovery, Streams

RETAINED: Final = 60.0
"""Seconds that a ``disconnect`` is kept for those who subscribe later."""


class MemoryBroker(Broker):
    """Delivers within this process, before `publish` returns, and keeps history in its memory. It never fails.

    Args:
        beside: another one, of another hub in this process: the two are nodes that share rooms, users, history,
            presence and slots, as two processes on one server do. For tests.
    """

    local = True

    def __init__(self, *, beside: "MemoryBroker | None" = None) -> None:
        self._server: _Server = _Server() if beside is None else beside._server
        self._receiver: Receiver | None = None
        self._alone: tuple[Receiver, ...] = ()
        self._node = ""
        self._started_at = 0.0

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        if self._receiver is not None and self._receiver is not receiver:
            raise ConfigurationError(
                f"{type(self).__name__} serves one hub: give the second one MemoryBroker(beside=...), or use one hub"
            )
        self._node, self._receiver, self._alone = node, receiver, (receiver,)
        self._started_at = monotonic()
        self._server.receivers[node] = receiver
        self._server.grace = grace

    async def aclose(self) -> None:
        if self._receiver is not None:
            self._server.leave(self._node)
            self._receiver = None

    def link(self) -> Link:
        return Link("up", since=0.0 if self._receiver is None else monotonic() - self._started_at)

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if self._receiver is None:
            return
        server = self._server
        if history is not None:
            publication = server.streams.append(publication.name, publication, history, monotonic())
            server.sweep_in_time()
        elif publication.target == "disconnect":
            server.retain(publication)
        for receiver in server.subscribers[publication.target].get(publication.name, ()):
            receiver.deliver(publication)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        if self._receiver is None:
            return
        server = self._server
        subscribers = server.subscribers[target]
        others = subscribers.get(name)
        if others is None:
            subscribers[name] = self._alone
        elif self._receiver not in others:
            subscribers[name] = (*others, self._receiver)
        if history is not None:
            server.streams.hold(name, history, monotonic())
            server.sweep_in_time()
        if target == "user":
            for publication in server.retained(name):
                self._receiver.deliver(publication)

    async def unsubscribe(self, target: Target, name: str) -> None:
        if self._receiver is not None:
            self._server.unsubscribe(target, name, self._receiver)

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        recovery = self._server.streams.recover(room, since, history, monotonic())
        self._server.sweep_in_time()
        return recovery

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        known = self._server.entries_of(room)
        refused = [each.ref for each in entries if _is_of_another(known.get(each.ref), self._node)]
        taken = [each for each in entries if each.ref not in refused]
        self._server.change(room, self._node, changed=taken)
        return refused

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        known = self._server.entries_of(room)
        gone = [ref for ref in refs if ref in known and not _is_of_another(known[ref], self._node)]
        self._server.change(room, self._node, gone=gone)

    async def entries(self, room: str) -> Sequence[Entry]:
        return tuple(self._server.entries_of(room).values())

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        holders = self._server.slots.setdefault(name, {})
        replaced = None
        if holder not in holders and len(holders) >= most:
            if not replace:
                return Slot(False)
            replaced = next(iter(holders))
            del holders[replaced]
        holders.setdefault(holder, self._node)
        return Slot(True, replaced)

    async def release(self, name: str, holder: str) -> None:
        self._server.free(name, holder)


class _Server:
    """What brokers share that are nodes of one process: what they would ask a server for."""

    def __init__(self) -> None:
        self.receivers: dict[str, Receiver] = {}
        """By node."""
        self.grace = 0.0
        users: dict[str, tuple[Receiver, ...]] = {}
        self.subscribers: Mapping[str, dict[str, tuple[Receiver, ...]]] = {
            "room": {},
            "user": users,
            "disconnect": users,
        }
        self.streams: Streams[Publication] = Streams()
        self.slots: dict[str, dict[str, str]] = {}
        """Node by holder, by name; who has held one for longest comes first."""
        self._entries: dict[str, dict[str, tuple[Entry, float]]] = {}
        """Entries by ref, each with the time of its last change, by room."""
        self._disconnects: deque[tuple[float, Publication]] = deque()
        """What is retained, oldest first; and of each user."""
        self._disconnects_of: dict[str, deque[tuple[float, Publication]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = inf
        self._loop: asyncio.AbstractEventLoop | None = None

    def leave(self, node: str) -> None:
        """Let go of a node and all that is its own; what is dropped stays."""
        receiver = self.receivers.pop(node)
        for target in "room", "user":
            for name in [name for name, all_of in self.subscribers[target].items() if receiver in all_of]:
                self.unsubscribe(target, name, receiver)
        for name, holders in [*self.slots.items()]:
            for holder in [holder for holder, of in holders.items() if of == node]:
                self.free(name, holder)
        for room in [*self._entries]:
            own = [entry for entry in self.entries_of(room).values() if entry.node == node and not entry.dropped]
            self.change(room, node, gone=[entry.ref for entry in own])
        if not self.receivers:
            self._stop_sweeping()

    def unsubscribe(self, target: Target, name: str, receiver: Receiver) -> None:
        subscribers = self.subscribers[target]
        others = tuple(each for each in subscribers.get(name, ()) if each is not receiver)
        if others:
            subscribers[name] = others
            return
        subscribers.pop(name, None)
        if target == "room":
            self.streams.release(name, monotonic())
            self.sweep_in_time()

    def retain(self, publication: Publication) -> None:
        """Keep a ``disconnect`` for a while."""
        kept = monotonic(), publication
        self._disconnects.append(kept)
        self._disconnects_of.setdefault(publication.name, deque()).append(kept)
        self._forget_disconnects()

    def retained(self, user: str) -> Iterator[Publication]:
        """Yield what is kept of a user, oldest first."""
        if self._disconnects:
            self._forget_disconnects()
            now = monotonic()
            for at, each in self._disconnects_of.get(user, ()):
                yield each.aged(now - at)

    def _forget_disconnects(self) -> None:
        while self._disconnects and self._disconnects[0][0] + RETAINED <= monotonic():
            _, oldest = self._disconnects.popleft()
            of_user = self._disconnects_of[oldest.name]
            of_user.popleft()
            if not of_user:
                del self._disconnects_of[oldest.name]

    def entries_of(self, room: str) -> Mapping[str, Entry]:
        """Return the entries of a room that are valid, by ref; those that are void are forgotten."""
        known, now = self._entries.get(room, {}), monotonic()
        for ref in [ref for ref, (entry, at) in known.items() if entry.dropped and at + self.grace <= now]:
            del known[ref]
        return {ref: entry for ref, (entry, _) in known.items()}

    def change(self, room: str, node: str, *, changed: Sequence[Entry] = (), gone: Sequence[str] = ()) -> None:
        """Change entries, and tell every node but the one that does it."""
        known, now = self._entries.setdefault(room, {}), monotonic()
        known.update({entry.ref: (entry, now) for entry in changed})
        for ref in gone:
            known.pop(ref, None)
        if not known:
            del self._entries[room]
        if changed or gone:
            for receiver in self.subscribers["room"].get(room, ()):
                if receiver is not self.receivers.get(node):
                    receiver.present(room, changed, gone)

    def free(self, name: str, holder: str) -> None:
        holders = self.slots.get(name, {})
        holders.pop(holder, None)
        if not holders:
            self.slots.pop(name, None)

    def sweep_in_time(self) -> None:
        """Have what is too old forgotten, by one timer for all rooms."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the timer of one that has ended never comes
            self._loop = loop
            self._stop_sweeping()
        due = self.streams.next_sweep
        if due is not None and due < self._sweep_at and self.receivers:
            self._stop_sweeping()
            self._sweep_at = due
            self._sweeper = loop.call_later(max(0.0, due - monotonic()), self._sweep)

    def _sweep(self) -> None:
        self._sweeper, self._sweep_at = None, inf
        self.streams.sweep(monotonic())
        self.sweep_in_time()

    def _stop_sweeping(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweeper, self._sweep_at = None, inf


def _is_of_another(entry: Entry | None, node: str) -> bool:
    """Whether an entry is held by another node, which does not expect it to be taken."""
    return entry is not None and entry.node != node and not entry.dropped
