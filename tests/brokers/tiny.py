"""A broker in a few lines: nodes in one process, and a server that is an object, behind links that can break.

It keeps the whole contract. Each deliberate fault in `faults.py` overrides one of its methods.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal, TypeAlias, TypeVar

from wsrouter import BrokerError, ConfigurationError, History, Position
from wsrouter.brokers import Broker, Entry, Link, Publication, Receiver, Recovery, Slot
from wsrouter.brokers.base import Target
from wsrouter.history import Streams

T = TypeVar("T")
Name: TypeAlias = tuple[Target, str]

logger = logging.getLogger("tests.tiny")


@dataclass(frozen=True)
class Post:
    publication: Publication


@dataclass(frozen=True)
class Change:
    room: str
    changed: tuple[Entry, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True)
class Hole:
    names: frozenset[Name]


class Exchange:
    """The server. What each method does, it does in one step."""

    ttl = 0.8

    def __init__(self) -> None:
        self.online: dict[str, TinyBroker] = {}
        self.seen: dict[str, float] = {}
        self.orders: list[tuple[float, Publication]] = []
        self.holders: dict[str, set[str]] = {}
        self.slots: dict[str, dict[str, str]] = {}
        self.rewind()

    def rewind(self) -> None:
        """Forget what was published, and who was there."""
        self.streams: Streams[Publication] = Streams()
        self.entries: dict[str, dict[str, Entry]] = {}

    def send(self, sender: str, item: object) -> None:
        for node in tuple(self.online.values()):
            node.hear(sender, item)

    def beat(self, node: str) -> set[str]:
        """Return the nodes that are gone; what was theirs is void."""
        now = monotonic()
        self.seen[node] = now
        self.streams.sweep(now)
        gone = {each for each, seen in self.seen.items() if seen < now - self.ttl}
        for name in self.slots:
            self.slots[name] = {holder: node for holder, node in self.slots[name].items() if node not in gone}
        for room, known in self.entries.items():
            self.entries[room] = {ref: entry for ref, entry in known.items() if entry.node not in gone}
        return gone

    def leave(self, node: str) -> None:
        self.online.pop(node, None)
        self.seen.pop(node, None)
        for room, known in self.entries.items():
            self.withdraw(node, room, [ref for ref, entry in known.items() if entry.node == node and not entry.dropped])
        for name, holders in self.slots.items():
            for holder in [holder for holder, owner in holders.items() if owner == node]:
                self.release(node, name, holder)
        for room in self.holders:
            self.drop(node, room)

    def hold(self, node: str, room: str, history: History) -> None:
        self.holders.setdefault(room, set()).add(node)
        self.streams.hold(room, history, monotonic())

    def drop(self, node: str, room: str) -> None:
        self.holders.get(room, set()).discard(node)
        if not self.holders.get(room):
            self.streams.release(room, monotonic())

    def publish(self, node: str, publication: Publication, history: History | None) -> None:
        if history is not None:
            publication = self.append(publication, history)
        if publication.target == "disconnect":
            self.orders.append((monotonic(), publication))
        self.send(node, Post(publication))

    def append(self, publication: Publication, history: History) -> Publication:
        return self.streams.append(publication.name, publication, history, monotonic())

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return self.streams.recover(room, since, history, monotonic())

    def ordered(self, user: str) -> list[Publication]:
        now = monotonic()
        return [replace(order, age=now - at) for at, order in self.orders if order.name == user and at > now - 60.0]

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        known = self.entries.setdefault(room, {})
        refused = [entry.ref for entry in entries if self.refuses(node, known.get(entry.ref))]
        taken = {entry.ref: entry for entry in entries if entry.ref not in refused}
        known.update(taken)
        self.send(node, Change(room, tuple(taken.values()), ()))
        return refused

    def refuses(self, node: str, known: Entry | None) -> bool:
        return known is not None and known.node != node and not known.dropped

    def withdraw(self, node: str, room: str, refs: Sequence[str]) -> None:
        known = self.entries.setdefault(room, {})
        gone = [ref for ref in refs if ref in known and self.may_withdraw(node, known[ref])]
        self.entries[room] = {ref: entry for ref, entry in known.items() if ref not in gone}
        self.send(node, Change(room, (), tuple(gone)))

    def may_withdraw(self, node: str, entry: Entry) -> bool:
        return entry.node == node or entry.dropped

    def acquire(self, node: str, name: str, holder: str, most: int, replace: bool) -> Slot:
        holders = self.slots.setdefault(name, {})
        replaced = None
        if holder not in holders and len(holders) >= most:
            if not replace:
                return Slot(False)
            replaced = self.outgoing(list(holders))
            del holders[replaced]
        holders.setdefault(holder, node)
        return Slot(True, replaced)

    def outgoing(self, holders: list[str]) -> str:
        return holders[0]

    def release(self, node: str, name: str, holder: str) -> None:
        holders = self.slots.get(name, {})
        if holders.get(holder) == node:
            del holders[holder]


class TinyBroker(Broker):
    """One node.

    Args:
        exchange: the server.
        timeout: seconds that it waits for an answer.
        beat: seconds between two heartbeats.
    """

    def __init__(self, exchange: Exchange, *, timeout: float = 0.2, beat: float = 0.02) -> None:
        self.exchange = exchange
        self.timeout = timeout
        self.beat = beat
        self.wire: Literal["up", "cut", "silent"] = "up"
        self.receiver: Receiver | None = None
        self.node = ""
        self.names: dict[Name, History | None] = {}
        self.state: Literal["up", "down"] = "down"
        self.since = monotonic()
        self.gaps = 0
        self.gone: set[str] = set()
        self.unsaid: set[Name] = set()
        """Names of publications that others did not get."""
        self.owed: list[tuple[str, str]] = []
        """Slots to be given back."""
        self.unanswered: list[Callable[[], object]] = []
        """What the server gets when the link is no longer silent."""
        self.held_back: list[tuple[str, object]] = []
        """What the server sent meanwhile."""
        self.watching: asyncio.Task[None] | None = None

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        if self.receiver is not None:
            raise ConfigurationError("TinyBroker.start(): it has a receiver already")
        self.node, self.receiver = node, receiver
        self.connect()
        self.watching = asyncio.create_task(self.watch())

    async def aclose(self) -> None:
        if await self.stop():
            with suppress(BrokerError):
                await self.ask(lambda: self.exchange.leave(self.node))
            self.disconnect()
            self.receiver = None
            self.names.clear()

    async def stop(self) -> bool:
        """End the task, and return whether there was one."""
        watching, self.watching = self.watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        return watching is not None

    def link(self) -> Link:
        return Link(self.state, monotonic() - self.since, gaps=self.gaps)

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if history is None:
            self.take(publication)
        node = self.node
        try:
            await self.ask(lambda: self.exchange.publish(node, publication, history))
        except BrokerError:
            if history is None and publication.target != "disconnect":
                self.unsaid.add((publication.target, publication.name))
            raise

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        for order in await self.ask(lambda: self.enter(target, name, history)):
            self.tell(order)

    async def unsubscribe(self, target: Target, name: str) -> None:
        history = self.names.pop((target, name), None)
        if history is not None:
            with suppress(BrokerError):
                await self.ask(lambda: self.exchange.drop(self.node, name))

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return await self.ask(lambda: self.exchange.recover(room, history, since))

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        return await self.ask(lambda: self.exchange.announce(self.node, room, entries))

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        await self.ask(lambda: self.exchange.withdraw(self.node, room, refs))

    async def entries(self, room: str) -> Sequence[Entry]:
        return await self.ask(lambda: tuple(self.exchange.entries.get(room, {}).values()))

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        try:
            return await self.ask(lambda: self.exchange.acquire(self.node, name, holder, most, replace))
        except BrokerError:
            self.owe(name, holder)
            raise

    async def release(self, name: str, holder: str) -> None:
        try:
            await self.ask(lambda: self.exchange.release(self.node, name, holder))
        except BrokerError:
            self.owe(name, holder)

    def owe(self, name: str, holder: str) -> None:
        self.owed.append((name, holder))

    def enter(self, target: Target, name: str, history: History | None) -> list[Publication]:
        self.names[target, name] = history
        if history is not None:
            self.exchange.hold(self.node, name, history)
        return self.exchange.ordered(name) if target == "user" else []

    async def ask(self, work: Callable[[], T]) -> T:
        """Have the server do something, and return what it answers."""
        if self.state == "down" or self.wire == "cut":
            raise BrokerError("there is no connection")
        if self.wire == "silent":
            self.unanswered.append(work)
            await asyncio.sleep(self.timeout)
            self.disconnect()
            raise BrokerError("there is no answer", outcome_unknown=True)
        answer = work()
        await asyncio.sleep(0)
        return answer

    async def watch(self) -> None:
        """Beat, and come back when the link was lost."""
        while True:
            await asyncio.sleep(self.beat)
            if self.exchange.online.get(self.node) is not self:
                self.disconnect()
                self.connect()
            with suppress(BrokerError):
                gone = await self.ask(lambda: self.exchange.beat(self.node))
                for node in gone - self.gone:
                    self.depart(node)
                self.gone = gone

    def connect(self) -> None:
        """Connect, and make good what was missed, if the server can be reached."""
        if self.wire != "up":
            return
        self.exchange.online[self.node] = self
        self.exchange.beat(self.node)
        for (target, name), history in self.names.items():
            self.enter(target, name, history)
        self.state, self.since = "up", monotonic()
        if self.names:
            self.gaps += 1
            self.tell_lost()
        for name, holder in self.owed:
            self.exchange.release(self.node, name, holder)
        if self.unsaid:
            self.exchange.send(self.node, Hole(frozenset(self.unsaid)))
        self.unsaid.clear()
        self.owed.clear()

    def disconnect(self) -> None:
        self.exchange.online.pop(self.node, None)
        self.held_back.clear()
        if self.state == "up":
            self.state, self.since = "down", monotonic()

    def hear(self, sender: str, item: object) -> None:
        """Take what the server sends, as far as it comes through."""
        if self.wire == "up":
            self.read(sender, item)
        elif self.wire == "silent":
            self.held_back.append((sender, item))

    def read(self, sender: str, item: object) -> None:
        match item:
            case Post(publication):
                if sender != self.node or publication.offset is not None:
                    self.take(publication)
            case Change(room, changed, gone):
                if sender != self.node and ("room", room) in self.names:
                    self.tell_present(room, changed, gone)
            case Hole(names):
                lost = names & self.names.keys()
                if lost and sender != self.node and self.receiver is not None:
                    self.receiver.lost(lost)
            case _:
                self.drop(item)

    def drop(self, item: object) -> None:
        logger.warning("dropped what is no publication: %.20r", item)

    def take(self, publication: Publication) -> None:
        """Deliver a publication, if its name is subscribed to."""
        target: Target = "user" if publication.target == "disconnect" else publication.target
        if self.wants(target, publication.name):
            self.tell(publication)

    def wants(self, target: Target, name: str) -> bool:
        return (target, name) in self.names

    def tell(self, publication: Publication) -> None:
        if self.receiver is not None:
            self.receiver.deliver(publication)

    def tell_lost(self) -> None:
        if self.receiver is not None:
            self.receiver.lost(tuple(self.names))

    def tell_present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        if self.receiver is not None:
            self.receiver.present(room, changed, gone)

    def depart(self, node: str) -> None:
        if self.receiver is not None:
            self.receiver.departed(node)

    async def until_up(self) -> None:
        """Wait until the link is whole."""
        while self.wire != "up":  # noqa: ASYNC110 - what a fault does
            await asyncio.sleep(0.01)

    def cut(self) -> None:
        self.wire = "cut"
        self.exchange.online.pop(self.node, None)

    def silence(self) -> None:
        self.wire = "silent"

    def mend(self) -> None:
        """Let all through, also what was held back."""
        self.wire = "up"
        unanswered, self.unanswered = self.unanswered, []
        for work in unanswered:
            work()
        held_back, self.held_back = self.held_back, []
        for sender, item in held_back:
            self.read(sender, item)
