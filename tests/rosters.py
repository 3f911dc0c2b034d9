"""Several nodes with a room each, and the broker between them: pure, one step at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from tests.test_presence import Page
from wsrouter.brokers.base import Entry
from wsrouter.ledger import Batch
from wsrouter.listing import RosterOptions
from wsrouter.members import Device, readable
from wsrouter.roster import Roster

OPTIONS: Final = RosterOptions(window=0.125)
KEPT: Final = 20.0
"""Seconds that the server keeps the entry of a device that was dropped: a little longer than nodes do."""

Event: TypeAlias = Callable[["Node", float], None]


class Server:
    """What a broker keeps of a room, and the line to each node, in which what is published waits."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Entry, float]] = {}
        self.nodes: list[Node] = []
        self.dead: set[str] = set()
        """Nodes that are not heard of, whose entries are void."""

    def add(self, id: str) -> "Node":
        node = Node(id, self)
        self.nodes.append(node)
        return node

    def settle(self, now: float) -> None:
        """Let all that is under way arrive."""
        for _ in range(1_000):
            steps = [step for node in self.nodes for step in node.steps()]
            if not steps:
                return
            steps[0](now)
        raise AssertionError("it never comes to rest")

    def publish(self, event: Event, *, but: str = "") -> None:
        for node in self.nodes:
            if node.id != but and node.subscribed and not node.cut_off:
                node.line.append(event)

    def announce(self, node: str, entries: list[Entry], now: float) -> list[str]:
        taken: list[Entry] = []
        for entry in entries:
            known = self.entries.get(entry.ref)
            if known is None or known[0].node == node or known[0].dropped:
                self.entries[entry.ref] = entry, now
                taken.append(entry)
        if taken:
            self.publish(lambda to, at: to.hear(taken, [], at), but=node)
        return [entry.ref for entry in entries if entry not in taken]

    def withdraw(self, node: str, refs: list[str]) -> None:
        gone: list[str] = []
        for ref in refs:
            known = self.entries.get(ref)
            if known is not None and (known[0].node == node or known[0].dropped):
                del self.entries[ref]
                gone.append(ref)
        if gone:
            self.publish(lambda to, at: to.hear([], gone, at), but=node)

    def load(self, now: float) -> list[Entry]:
        kept = self.entries.items()
        self.entries = {ref: (each, at) for ref, (each, at) in kept if not each.dropped or now - at < KEPT}
        return [entry for entry, _ in self.entries.values() if entry.node not in self.dead]

    def flush(self) -> None:
        """Forget everything, and be away until each node is mended."""
        self.entries.clear()
        for node in self.nodes:
            node.cut(unknown=False)

    def leave(self, node: str) -> None:
        """Let go of a node that ends; what is dropped stays."""
        own = {ref for ref, (entry, _) in self.entries.items() if entry.node == node and not entry.dropped}
        self.withdraw(node, [*own])

    def give_up(self, node: str) -> None:
        """Take a node for dead, until it is heard of again."""
        self.dead.add(node)
        self.publish(lambda to, at: to.depart(node, at), but=node)

    def purge(self, node: str) -> None:
        """Take it for dead, and forget its entries."""
        self.entries = {ref: each for ref, each in self.entries.items() if each[0].node != node}
        self.give_up(node)


@dataclass
class Node:
    """A node with one room, as `Attendance` runs it, one step at a time."""

    id: str
    server: Server
    roster: Roster = field(init=False)
    line: deque[Event] = field(default_factory=deque[Event])
    subscribed: bool = False
    loaded: bool = False
    cut_off: bool = False
    asking: bool = False
    answer: list[Entry] | None = None
    loading: Iterator[None] | None = None
    now: float = 0.0
    batch: Batch | None = None
    refused: list[str] | None = None
    coming: list[tuple[str, str | None, dict[str, object]]] = field(default_factory=list[Any])
    pages: dict[str, Page] = field(default_factory=dict[str, Page])
    """By connection."""
    told_at: float | None = None
    frames: int = 0
    """How many its pages were told."""

    def __post_init__(self) -> None:
        self.roster = Roster(OPTIONS, self.id)

    def hear(self, entries: list[Entry], gone: list[str], now: float) -> None:
        for each in readable(entries):
            self.roster.hear(each, now)
        for ref in gone:
            self.roster.forget(ref, now)

    def depart(self, node: str, now: float) -> None:
        self.roster.depart(node, now)

    def deliver(self, now: float) -> None:
        event = self.line.popleft()
        if self.loaded or self.asking:
            event(self, now)

    def join(self, connection: str, user: str | None, meta: dict[str, object], now: float) -> None:
        self.coming.append((connection, user, meta))
        self.subscribed = True
        self.enter(now)

    def enter(self, now: float) -> None:
        if self.loaded:
            for connection, user, meta in self.coming:
                self.pages[connection] = Page(self.roster.state())
                self.roster.add(connection, user, meta, now)
            self.coming.clear()

    def leave(self, connection: str, now: float, *, abrupt: bool) -> None:
        del self.pages[connection]
        self.roster.remove(connection, now, abrupt=abrupt)
        if not self.pages and not self.coming:
            self.roster.close()
            self.subscribed = self.loaded = self.asking = False
            self.answer = self.loading = None
            self.line.clear()

    def connection(self, which: int) -> str:
        return [*self.pages][which % len(self.pages)]

    def device(self, connection: str) -> Device:
        ref = self.roster.holders.ref_of(connection)
        assert ref is not None
        return self.roster.devices[ref]

    def steps(self) -> list[Callable[[float], None]]:
        """Return what can happen next of what is under way."""
        steps: list[Callable[[float], None]] = []
        if self.line:
            steps.append(self.deliver)
        if self.asking:
            steps.append(self.look if self.answer is None else self.take_answer)
        elif not self.cut_off and (self.roster.wanting or (self.subscribed and not self.loaded)):
            steps.append(self.ask)
        if self.batch is not None:
            steps.append(self.execute if self.refused is None else self.end_call)
        elif not self.cut_off and self.roster.ledger.waiting:
            steps.append(self.tell)
        return steps

    def tell(self, now: float) -> None:
        batch = self.roster.outgoing(2)
        if batch.entries or batch.gone:
            self.batch, self.refused = batch, None
        else:
            self.roster.sent(batch, [], now)

    def execute(self, now: float) -> None:
        assert self.batch is not None
        self.refused = self.server.announce(self.id, self.batch.entries, now)
        self.server.withdraw(self.id, self.batch.gone)

    def end_call(self, now: float) -> None:
        assert self.batch is not None
        assert self.refused is not None
        batch, refused = self.batch, self.refused
        self.batch = self.refused = None
        self.roster.sent(batch, refused, now)

    def not_told(self, *, unknown: bool) -> None:
        if self.batch is not None:
            unknown = unknown or self.refused is not None
            self.batch = self.refused = None
            self.roster.unsent(unknown=unknown)

    def ask(self, now: float) -> None:
        self.roster.ask()
        self.asking, self.answer = True, None

    def look(self, now: float) -> None:
        self.answer = self.server.load(now)

    def take_answer(self, now: float) -> None:
        """Take up the next entry of the answer."""
        assert self.answer is not None
        self.now = now
        if self.loading is None:
            self.loading = self.roster.load(self.answer, lambda: self.now, 1)
        if next(self.loading, self) is not self:
            return
        self.asking, self.answer, self.loading = False, None, None
        if not self.loaded:
            self.loaded = True
            self.roster.begin()
        self.enter(now)

    def no_answer(self) -> None:
        if self.asking:
            self.asking, self.answer, self.loading = False, None, None
            self.roster.fail()
            if self.loaded:
                self.roster.lose()

    def cut(self, *, unknown: bool) -> None:
        """Lose the link: what is on the line, and the answers to what is under way."""
        self.cut_off = True
        self.line.clear()
        self.no_answer()
        self.not_told(unknown=unknown)

    def mend(self) -> None:
        """Have the link again: `Receiver.lost`."""
        self.cut_off = False
        self.server.dead.discard(self.id)
        if self.subscribed:
            self.roster.lose()

    def take(self, now: float) -> None:
        notice = self.roster.take(now)
        if notice is not None:
            assert self.told_at is None or now - self.told_at >= OPTIONS.window, "two frames within one window"
            self.told_at = now
            self.frames += 1
            for page in self.pages.values():
                page.get(*notice)

    def tell_all(self, now: float) -> None:
        """Tell the pages all that there is to tell."""
        self.take(now + OPTIONS.window)

    @property
    def members(self) -> dict[str, list[str]]:
        """Return refs by user."""
        return {member.user: [*member.devices] for member in self.roster.members(0.0)}

    def own(self) -> dict[str, tuple[str, bytes]]:
        """Return the devices of this node by ref, as it sees them."""
        holders = self.roster.holders
        devices = self.roster.devices
        refs = [*holders.connected, *holders.dropped]
        return {ref: (devices[ref].user, devices[ref].json) for ref in refs}
