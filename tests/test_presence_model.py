"""Presence on several nodes against a model: whatever is late, lost or at once, in the end all see who is here."""

from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.rosters import KEPT, OPTIONS, Node, Server
from wsrouter.members import device_of

NODES = ("A", "B", "C")
PICK = st.integers(0, 5)
"""Which of several, modulo how many there are."""
USER = st.sampled_from(["u1", "u1", "u2", None])
GIVEN: st.SearchStrategy[dict[str, object]] = st.sampled_from([{}, {"a": 1}])


class Nodes(RuleBasedStateMachine):
    """Members come, change, go, are dropped and come back elsewhere, while messages are late, links break, nodes
    crash, are taken for dead, and the server forgets everything.

    Everybody who looks sees at most one frame in a window. When all is quiet every page shows who is here.
    """

    @initialize(members=st.lists(st.tuples(PICK, USER), max_size=4))
    def begin(self, members: list[tuple[int, str | None]]) -> None:
        self.now = 0.0
        self.server = Server()
        for id in NODES:
            self.server.add(id)
        self.dead: list[str] = []
        self.number = 0
        for place, user in members:
            self.join(place, user, {})
        self.server.settle(self.now)

    def pick(self, place: int, condition: Callable[[Node], object] = bool) -> Node | None:
        nodes = [node for node in self.server.nodes if condition(node)]
        return nodes[place % len(nodes)] if nodes else None

    @rule(place=PICK, user=USER, given=GIVEN)
    def join(self, place: int, user: str | None, given: dict[str, object]) -> None:
        node = self.pick(place, lambda node: not node.cut_off or node.loaded)
        if node is not None:
            self.number += 1
            node.join(f"c{self.number}", user, given, self.now)

    @rule(place=PICK, which=PICK, abrupt=st.booleans())
    def leave(self, place: int, which: int, abrupt: bool) -> None:
        node = self.pick(place, lambda node: node.pages)
        if node is not None:
            node.leave(node.connection(which), self.now, abrupt=abrupt)

    @rule(place=PICK, which=PICK, to=PICK, early=st.booleans())
    def move(self, place: int, which: int, to: int, early: bool) -> None:
        """A member is dropped and comes back, as a rule on another node, perhaps before the first has noticed."""
        node = self.pick(place, lambda node: node.pages)
        other = self.pick(to, lambda node: not node.cut_off or node.loaded)
        if node is None or other is None:
            return
        connection = node.connection(which)
        device = node.device(connection)
        self.number += 1
        for step in ("join", "leave") if early else ("leave", "join"):
            if step == "leave":
                node.leave(connection, self.now, abrupt=True)
            else:
                other.join(f"c{self.number}", device.user or None, dict(device.meta), self.now)

    @rule(place=PICK, which=PICK, given=GIVEN)
    def change(self, place: int, which: int, given: dict[str, object]) -> None:
        node = self.pick(place, lambda node: node.pages)
        if node is not None:
            connection = node.connection(which)
            node.roster.add(connection, node.device(connection).user or None, given, self.now)

    @rule(picks=st.lists(st.integers(0, 31), min_size=1, max_size=6))
    def progress(self, picks: list[int]) -> None:
        """Something of what is under way comes one step further."""
        for pick in picks:
            steps = [step for node in self.server.nodes for step in node.steps()]
            if steps:
                steps[pick % len(steps)](self.now)

    @rule(place=PICK, unknown=st.booleans())
    def fail(self, place: int, unknown: bool) -> None:
        """A call fails, though the line is there: before the server did it, or after, or nobody knows."""
        node = self.pick(place, lambda node: node.asking or node.batch is not None)
        if node is not None:
            node.no_answer()
            node.not_told(unknown=unknown)

    @rule(place=PICK, unknown=st.booleans())
    def cut(self, place: int, unknown: bool) -> None:
        node = self.pick(place, lambda node: not node.cut_off)
        if node is not None:
            node.cut(unknown=unknown)

    @rule(place=PICK)
    def mend(self, place: int) -> None:
        node = self.pick(place, lambda node: node.cut_off)
        if node is not None:
            node.mend()

    @rule()
    def flush(self) -> None:
        """The server forgets everything. All nodes notice, sooner or later."""
        self.server.flush()

    @rule(place=PICK, done=st.booleans())
    def crash(self, place: int, done: bool) -> None:
        """A node is killed; what it had told the server to do is done or not. Another takes its place."""
        node = self.pick(place)
        assert node is not None
        if done and node.batch is not None and node.refused is None:
            node.execute(self.now)
        self.dead.append(node.id)
        self.replace(node)

    @rule(place=PICK)
    def restart(self, place: int) -> None:
        """A node is ended, which drops all who are there; it tells so. Another takes its place."""
        node = self.pick(place, lambda node: not node.cut_off)
        if node is not None:
            for connection in [*node.pages]:
                node.leave(connection, self.now, abrupt=True)
            while node.batch is not None or node.roster.ledger.waiting:
                node.steps()[-1](self.now)
            self.server.leave(node.id)
            self.replace(node)

    def replace(self, node: Node) -> None:
        self.server.nodes.remove(node)
        self.server.add(f"{node.id}'")

    @precondition(lambda self: self.dead)
    @rule()
    def miss(self) -> None:
        self.server.purge(self.dead.pop())

    @rule(place=PICK, purged=st.booleans())
    def give_up(self, place: int, purged: bool) -> None:
        """A node that lives is not heard of for so long that it is taken for dead; its entries go, or are hidden."""
        node = self.pick(place, lambda node: node.cut_off)
        if node is not None and purged:
            self.server.purge(node.id)
        elif node is not None:
            self.server.give_up(node.id)

    @rule(seconds=st.sampled_from([0.0625, 0.125, 1.0, 5.0, 14.0, 16.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        for node in self.server.nodes:
            node.take(self.now)

    def tell_all(self) -> None:
        for node in self.server.nodes:
            node.roster.expire(self.now)
        self.server.settle(self.now)
        for node in self.server.nodes:
            while (due := node.roster.due) is not None:
                self.now = max(self.now, due)
                node.take(self.now)

    def check(self) -> None:
        here: dict[str, tuple[str, bytes]] = {}
        entries = self.server.load(self.now)
        for node in self.server.nodes:
            own = node.own()
            assert node.roster.ledger.known == own.keys()
            if not node.subscribed:  # it does not hear who comes back elsewhere
                refs = {entry.ref for entry in entries if entry.node == node.id}
                own = {ref: device for ref, device in own.items() if ref in refs}
            assert not own.keys() & here.keys(), "two nodes have one device"
            here.update(own)
        ended = [each for each in entries if each.node not in [node.id for node in self.server.nodes]]
        assert all(entry.dropped for entry in ended)
        here.update({entry.ref: (entry.user, entry.meta) for entry in ended})
        kept = {entry.ref: (entry.user, entry.meta) for entry in entries}
        assert kept == here
        for node in self.server.nodes:
            if not node.subscribed:
                continue
            void = node.roster.holders.left.keys() - here.keys()  # who came late waits for their return for longer
            seen = {ref: (device.user, device.json) for ref, device in node.roster.devices.items() if ref not in void}
            assert seen == here
            for page in node.pages.values():
                assert page.members is not None
                shown = {
                    ref: (user, device_of(user, meta).json)
                    for user, devices in page.members.items()
                    for ref, meta in devices.items()
                    if ref not in void
                }
                assert shown == here

    def teardown(self) -> None:
        for node in self.server.nodes:
            if node.cut_off:
                node.mend()
        while self.dead:
            self.miss()
        self.server.settle(self.now)
        self.now += OPTIONS.settling
        self.tell_all()
        self.check()
        self.now += KEPT + OPTIONS.grace + OPTIONS.patience
        self.tell_all()
        self.check()
        assert not any(node.roster.holders.left for node in self.server.nodes)
        assert len(self.server.entries) == sum(len(node.pages) for node in self.server.nodes)
        assert all(node.roster.idle for node in self.server.nodes if not node.subscribed)


TestNodes = Nodes.TestCase
TestNodes.settings = settings(max_examples=200, stateful_step_count=40)
