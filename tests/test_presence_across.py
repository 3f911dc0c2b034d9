"""What nodes tell each other of who is in a room: who has a device, and what becomes of it when things go wrong."""

from collections.abc import Sequence

import pytest

from tests.rosters import OPTIONS, Node, Server
from wsrouter.brokers.base import Entry
from wsrouter.codecs import dump
from wsrouter.listing import RosterOptions
from wsrouter.members import readable
from wsrouter.roster import Roster


@pytest.fixture
def server() -> Server:
    """Return a server with three nodes, on each of which somebody watches, and all of it was told."""
    server = Server()
    for id in ("A", "B", "C"):
        server.add(id).join(id.lower(), f"watcher {id}", {}, 0.0)
    server.settle(0.0)
    for node in server.nodes:
        node.tell_all(0.0)
        node.frames = 0
    return server


def ref_of(node: Node, connection: str) -> str:
    ref = node.roster.holders.ref_of(connection)
    assert ref is not None
    return ref


def load(roster: Roster, entries: Sequence[Entry], now: float) -> None:
    """Let a roster take up what the broker has."""
    for _ in roster.load(entries, lambda: now):
        pass


def frames(server: Server, now: float) -> list[int]:
    """Return how many frames the pages of each node were told by now."""
    for node in server.nodes:
        node.take(now)
    return [node.frames for node in server.nodes]


def refs_of(server: Server, user: str) -> list[list[str]]:
    """Return the refs of a user as each node sees them."""
    return [node.members.get(user, []) for node in server.nodes]


def test_who_moves_to_another_node_has_never_been_away(server: Server) -> None:
    """Dropped on one node and back on another within the grace: the same device, and no frame is told anywhere."""
    a, b, c = server.nodes
    a.join("c1", "u1", {"name": "Ada"}, 1.0)
    server.settle(1.0)
    assert frames(server, 1.2) == [1, 1, 1]
    ref = ref_of(a, "c1")
    for number, (before, after) in enumerate([(a, b), (b, c), (c, a)], 1):
        now = 10.0 * number
        before.leave(f"c{number}", now, abrupt=True)
        server.settle(now)
        after.join(f"c{number + 1}", "u1", {"name": "Ada"}, now + 9.0)
        server.settle(now + 9.0)
    assert frames(server, 100.0) == [1, 1, 1]
    assert refs_of(server, "u1") == [[ref]] * 3
    assert server.entries[ref][0] == Entry(ref, "A", "u1", b'{"name":"Ada"}')


def test_who_is_back_before_the_drop_is_heard_of_has_never_been_away(server: Server) -> None:
    """A node that hears of the drop late gives the newcomer, of which nobody was told yet, the device after all."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    assert frames(server, 1.2) == [1, 1, 1]
    ref = ref_of(a, "c1")
    a.leave("c1", 5.0, abrupt=True)
    b.join("c2", "u1", {}, 5.0)
    assert ref_of(b, "c2") != ref
    server.settle(5.01)
    assert ref_of(b, "c2") == ref
    assert frames(server, 100.0) == [1, 1, 1]
    assert refs_of(server, "u1") == [[ref]] * 3


def test_who_is_back_with_something_else_to_tell_has_changed(server: Server) -> None:
    """Also where the drop is heard of late: the device is the same, what is told of it is the newer."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {"n": 1}, 1.0)
    server.settle(1.0)
    assert frames(server, 1.2) == [1, 1, 1]
    ref = ref_of(a, "c1")
    a.leave("c1", 5.0, abrupt=True)
    b.join("c2", "u1", {"n": 2}, 5.0)
    server.settle(5.01)
    assert frames(server, 100.0) == [2, 2, 2]
    for node in server.nodes:
        assert node.roster.devices[ref].meta == {"n": 2}


def test_of_two_that_come_back_at_once_one_is_the_device(server: Server) -> None:
    """Both nodes take it; the broker gives it to the first that asks, and the other's connection is a new one."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    ref = ref_of(a, "c1")
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    b.join("c2", "u1", {}, 3.0)
    c.join("c3", "u1", {}, 3.0)
    assert ref_of(b, "c2") == ref_of(c, "c3") == ref
    server.settle(3.0)
    assert (ref_of(b, "c2"), ref_of(c, "c3") == ref) == (ref, False)
    for node in server.nodes:
        assert sorted(node.members["u1"]) == sorted([ref, ref_of(c, "c3")])
    assert [len(node.roster.ledger.known) for node in server.nodes] == [1, 2, 2]


def test_a_device_that_another_node_took_first_does_not_leave_meanwhile(server: Server) -> None:
    """Until it is heard whose it is now it stays on the list of the node that was refused."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    b.join("c2", "u1", {}, 3.0)
    c.join("c3", "u1", {}, 3.0)
    for step in (b.tell, b.execute, c.tell, c.execute, c.end_call):
        step(3.0)
    assert ref_of(b, "c2") in c.members["u1"]
    assert ref_of(c, "c3") != ref_of(b, "c2")
    assert len(c.members["u1"]) == 2
    assert c.roster.holders.next_deadline == 3.0 + OPTIONS.settling
    server.settle(3.0)
    assert c.roster.holders.next_deadline is None


def test_who_comes_back_and_leaves_at_once_is_gone_for_all(server: Server) -> None:
    """Though the node had not yet told that the device was its own, it tells that it has left."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    b.join("c2", "u1", {}, 3.0)
    b.leave("c2", 3.0, abrupt=False)
    server.settle(3.0)
    assert refs_of(server, "u1") == [[], [], []]
    assert len(server.entries) == 3


def test_nothing_is_told_twice() -> None:
    """What is the same as before is not announced; who has left before that was told is not withdrawn."""
    roster = Roster(OPTIONS, "A")
    roster.add("c1", "u1", {"a": 1}, 0.0)
    batch = roster.outgoing(10)
    assert [entry.meta for entry in batch.entries] == [b'{"a":1}']
    roster.sent(batch, [], 0.0)
    roster.add("c1", "u1", {"a": 1}, 1.0)
    roster.add("c2", "u2", {}, 1.0)
    roster.remove("c2", 1.0, abrupt=False)
    assert not roster.pending
    roster.add("c3", "u3", {}, 2.0)
    roster.outgoing(10)
    roster.remove("c3", 2.0, abrupt=False)
    roster.unsent(unknown=False)
    assert not roster.pending
    roster.add("c4", "u4", {}, 3.0)
    (entry,) = roster.outgoing(10).entries
    roster.remove("c4", 3.0, abrupt=False)
    roster.unsent(unknown=True)
    assert roster.outgoing(10) == ([], [entry.ref])


def test_the_broker_is_told_of_some_at_a_time() -> None:
    """All of a large room does not go into one call."""
    roster = Roster(OPTIONS, "A")
    for number in range(5):
        roster.add(f"c{number}", f"u{number}", {}, 0.0)
    sizes: list[int] = []
    while roster.pending:
        batch = roster.outgoing(2)
        sizes.append(len(batch.entries))
        roster.sent(batch, [], 0.0)
    assert sizes == [2, 2, 1]


def test_a_node_that_was_cut_off_learns_at_once_who_has_left_and_come(server: Server) -> None:
    """What the broker does not have has left: it still has all that this node had told it."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    c.cut(unknown=False)
    a.leave("c1", 2.0, abrupt=False)
    b.join("c2", "u2", {}, 2.0)
    server.settle(2.0)
    assert sorted(c.members) == ["u1", "watcher A", "watcher B", "watcher C"]
    c.mend()
    server.settle(3.0)
    assert sorted(c.members) == ["u2", "watcher A", "watcher B", "watcher C"]


def test_a_node_that_was_taken_for_gone_says_again_who_is_there(server: Server) -> None:
    """Though the broker has all of its entries: others have removed its members when it was not heard of."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.cut(unknown=False)
    server.give_up("A")
    server.settle(100.0)
    assert sorted(b.members) == ["watcher B", "watcher C"]
    assert sorted(a.members) == ["u1", "watcher A", "watcher B", "watcher C"]
    a.mend()
    server.settle(101.0)
    for node in (a, b, c):
        assert sorted(node.members) == ["u1", "watcher A", "watcher B", "watcher C"]


def test_a_look_at_what_the_broker_has_tells_it_only_what_it_lacks() -> None:
    """Where nothing was lost, but two words have crossed, what it has is not announced again."""
    roster = Roster(OPTIONS, "A")
    for number in range(3):
        roster.add(f"c{number}", f"u{number}", {}, 0.0)
    batch = roster.outgoing(10)
    roster.sent(batch, [], 0.0)
    load(roster, batch.entries[:2], 1.0)
    again = roster.outgoing(10)
    assert again.entries == batch.entries[2:]
    roster.sent(again, [], 1.0)
    roster.lose()
    load(roster, batch.entries, 2.0)
    everything = roster.outgoing(10)
    assert everything.entries == batch.entries
    roster.sent(everything, [], 2.0)
    load(roster, batch.entries, 3.0)
    assert roster.outgoing(10) == ([], [])


def test_a_broker_that_has_forgotten_everything_makes_nobody_leave(server: Server) -> None:
    """All nodes tell it again, one after the other; nobody is told of a leave, or a join."""
    a, b, c = server.nodes
    server.flush()
    for seconds, node in enumerate(server.nodes):
        node.mend()
        server.settle(10.0 + seconds)
    assert len(server.entries) == 3
    assert frames(server, 100.0) == [0, 0, 0]
    assert a.members.keys() == b.members.keys() == c.members.keys()


def test_who_was_lost_is_not_gone_when_the_broker_is_asked_again(server: Server) -> None:
    """It has this node's own again by then, and those of others not yet: that they had left it never said."""
    a, _, _ = server.nodes
    server.flush()
    for seconds in range(2):
        a.mend()
        server.settle(10.0 + seconds)
    assert frames(server, 12.0) == [0, 0, 0]
    for node in server.nodes[1:]:
        node.mend()
        server.settle(13.0)
    assert frames(server, 100.0) == [0, 0, 0]


def test_who_may_come_back_is_told_again_too(server: Server) -> None:
    """A device that was dropped before the broker forgot everything can be taken over anywhere afterwards."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    ref = ref_of(a, "c1")
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    server.flush()
    for node in server.nodes:
        node.mend()
    server.settle(3.0)
    assert server.entries[ref][0].dropped
    assert b.roster.expires_at == 18.0, "the grace does not begin anew"
    b.join("c2", "u1", {}, 10.0)
    assert ref_of(b, "c2") == ref


def test_who_left_while_the_broker_forgot_is_gone_a_little_later(server: Server) -> None:
    """What no node tells again within a few seconds has left."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    assert frames(server, 1.2) == [1, 1, 1]
    server.flush()
    a.leave("c1", 2.0, abrupt=False)
    for node in (b, c, a):
        node.mend()
        server.settle(10.0)
    assert refs_of(server, "u1")[1:] == [b.members["u1"], c.members["u1"]]
    assert b.roster.expires_at == 10.0 + OPTIONS.settling
    for node in server.nodes:
        node.tell_all(10.0 + OPTIONS.settling)
    assert refs_of(server, "u1") == [[], [], []]


def test_what_the_broker_has_wrong_of_a_node_is_put_right(server: Server) -> None:
    """As after a restart from an old copy: what has changed is told again, what is no more is withdrawn."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    a.join("c2", "u2", {"n": 1}, 1.0)
    server.settle(1.0)
    old = dict(server.entries)
    a.leave("c1", 2.0, abrupt=False)
    a.roster.add("c2", "u2", {"n": 2}, 2.0)
    server.settle(2.0)
    for node in server.nodes:
        node.cut(unknown=False)
    server.entries = old
    for node in server.nodes:
        node.mend()
    server.settle(3.0)
    told = {entry.user: entry.meta for entry, _ in server.entries.values()}
    assert "u1" not in told
    assert told["u2"] == dump({"n": 2})
    for node in server.nodes:
        node.tell_all(3.0 + OPTIONS.settling)
    assert sorted(b.members) == ["u2", "watcher A", "watcher B", "watcher C"]


def test_where_two_nodes_have_a_device_the_broker_decides(server: Server) -> None:
    """One had not heard that it was taken; then the broker forgot. Who announces it second gets another."""
    a, _, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    ref = ref_of(a, "c1")
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    c.cut(unknown=False)
    a.join("c2", "u1", {}, 3.0)
    server.settle(3.0)
    c.join("c3", "u1", {}, 3.0)
    assert ref_of(a, "c2") == ref_of(c, "c3") == ref
    server.flush()
    c.mend()
    server.settle(4.0)
    a.mend()
    server.settle(4.0)
    assert ref_of(c, "c3") == ref
    assert ref_of(a, "c2") != ref
    for node in server.nodes[::2]:
        assert sorted(node.members["u1"]) == sorted([ref, ref_of(a, "c2")])


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_what_is_heard_since_the_broker_was_asked_is_the_last_word(steps: int) -> None:
    """Its answer is taken up little by little, and may be older: who left since, came, or changed, and gone nodes."""
    roster = Roster(OPTIONS, "A")
    roster.ask()
    answer = [Entry("stays", "B", "u1"), *(Entry(f"r{n}", "B", "u2") for n in range(3)), Entry("dead", "C", "u3")]
    loading = roster.load(answer, lambda: 0.0, 1)
    for _ in range(steps):
        next(loading)
    roster.forget("r1", 0.0)
    roster.hear(readable([Entry("r2", "B", "u2", b'{"n":2}')])[0], 0.0)
    roster.hear(readable([Entry("new", "B", "u4")])[0], 0.0)
    roster.depart("C", 0.0)
    for _ in loading:
        pass
    known = {ref: device.json for ref, device in roster.devices.items()}
    assert known == {"stays": b"{}", "r0": b"{}", "r2": b'{"n":2}', "new": b"{}"}
    assert roster.expires_at is None
    roster.depart("C", 0.0)
    roster.ask()
    load(roster, answer, 1.0)
    assert "dead" in roster.devices, "it was there again when the broker was asked"


def test_a_connected_device_that_others_take_for_gone_is_told_again() -> None:
    """Whoever contradicts what this node says of its own device makes it say so again."""
    roster = Roster(OPTIONS, "A")
    roster.add("c1", "u1", {}, 0.0)
    batch = roster.outgoing(10)
    roster.sent(batch, [], 0.0)
    roster.forget(batch.entries[0].ref, 1.0)
    assert roster.outgoing(10) == batch


def test_a_word_that_crosses_ones_own_is_looked_into(server: Server) -> None:
    """What is heard of a device while the broker has not answered is passed over, and then asked for."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    b.join("c2", "u1", {}, 2.0 + OPTIONS.grace - 0.1)
    a.roster.expire(2.0 + OPTIONS.grace)  # both have a word on their way
    b.tell(17.0)
    a.tell(17.0)
    b.execute(17.0)
    a.deliver(17.0)
    assert "u1" not in a.members
    a.execute(17.0)
    a.end_call(17.0)
    assert a.roster.wanting
    server.settle(17.0)
    assert refs_of(server, "u1") == [[ref_of(b, "c2")]] * 3


def test_who_has_left_when_the_broker_refuses_a_device_is_not_withdrawn() -> None:
    """It is another node's by now, which may wait for its user."""
    roster = Roster(OPTIONS, "A")
    roster.hear(readable([Entry("r1", "B", "u1", dropped=True)])[0], 0.0)
    roster.add("c1", "u1", {}, 1.0)
    batch = roster.outgoing(10)
    roster.remove("c1", 1.0, abrupt=False)
    roster.sent(batch, ["r1"], 1.0)
    assert not roster.pending
    assert roster.ledger.known == set()


@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_what_is_heard_before_the_broker_has_answered(under_way: bool, gone: bool) -> None:
    """It changes nothing, whether the broker is told already or about to be; after that its entries are loaded."""
    roster = Roster(OPTIONS, "A")
    roster.add("c1", "u1", {}, 0.0)
    roster.sent(roster.outgoing(10), [], 0.0)
    roster.remove("c1", 1.0, abrupt=True)
    (ref,) = roster.devices
    batch = roster.outgoing(10) if under_way else None
    if gone:
        roster.forget(ref, 1.0)
    else:
        roster.hear(readable([Entry(ref, "B", "u1", b'{"n":1}')])[0], 1.0)
    assert roster.devices[ref].json == b"{}"
    roster.sent(batch or roster.outgoing(10), [], 1.0)
    assert roster.wanting


def test_a_dropped_device_that_others_withdraw_is_gone(server: Server) -> None:
    """Its node does not wait any longer, and does not withdraw it once more."""
    a, b, _ = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    b.roster.expire(30.0)
    server.settle(2.5)
    assert "u1" not in a.members
    assert not a.roster.pending
    assert a.roster.expires_at is None
    assert a.roster.ledger.known == {ref_of(a, "a")}


def test_only_the_node_of_a_device_says_that_its_grace_is_over(server: Server) -> None:
    """Others wait a second longer, and withdraw it if that node is there no more."""
    a, b, c = server.nodes
    a.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("c1", 2.0, abrupt=True)
    server.settle(2.0)
    assert [node.roster.expires_at for node in server.nodes] == [17.0, 18.0, 18.0]
    a.leave("a", 3.0, abrupt=False)
    server.settle(3.0)
    server.leave("A")
    server.nodes.remove(a)
    server.settle(3.0)
    assert refs_of(server, "u1") == [b.members["u1"], c.members["u1"]] != [[], []]
    b.roster.expire(18.0)
    server.settle(18.0)
    assert refs_of(server, "u1") == [[], []]
    assert "u1" not in [entry.user for entry, _ in server.entries.values()]


def test_a_node_that_crashed_takes_its_devices_along(server: Server) -> None:
    """When it is missed, all of them leave in one frame: connected, dropped, and taken over from others."""
    a, b, _ = server.nodes
    b.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    b.leave("c1", 1.0, abrupt=True)
    server.settle(1.0)
    a.join("c2", "u1", {}, 1.0)
    a.join("c3", "u2", {}, 1.0)
    a.leave("c3", 1.0, abrupt=True)
    server.settle(1.0)
    server.nodes.remove(a)
    assert frames(server, 2.0) == [1, 1]
    server.purge("A")
    server.settle(3.0)
    assert frames(server, 4.0) == [2, 2]
    assert [sorted(node.members) for node in server.nodes] == [["watcher B", "watcher C"]] * 2


def test_a_node_without_members_forgets_those_of_others(server: Server) -> None:
    """Its own that were dropped stay; when somebody comes, it asks who is there, and no frame is told of it."""
    a, b, _ = server.nodes
    b.join("c1", "u1", {}, 1.0)
    server.settle(1.0)
    a.leave("a", 2.0, abrupt=True)
    assert sorted(a.members) == ["watcher A"]
    assert a.roster.due is None
    server.settle(2.0)
    b.leave("c1", 3.0, abrupt=False)
    server.settle(3.0)
    a.join("c2", "u2", {}, 4.0)
    server.settle(4.0)
    assert a.pages["c2"].members is not None
    assert sorted(a.pages["c2"].members) == ["watcher A", "watcher B", "watcher C"]
    assert sorted(a.members) == ["u2", "watcher A", "watcher B", "watcher C"]
    a.tell_all(4.0)
    assert a.frames == 1


def test_a_big_room_is_counted_over_all_nodes() -> None:
    """Devices of other nodes count, whether they were there before or come later."""
    options = RosterOptions(most=3)
    roster = Roster(options, "A")
    others = [Entry(f"r{number}", "B", f"u{number}") for number in range(4)]
    load(roster, others, 0.0)
    roster.begin()
    assert roster.state() == {"count": 4}
    roster.add("c1", "u9", {}, 1.0)
    notice = roster.take(2.0)
    assert notice is not None
    assert notice == ("$presence", {"count": 5})
    roster.depart("B", 3.0)
    notice = roster.take(4.0)
    assert notice is not None
    assert notice.data["count"] == 1


def test_without_a_grace_who_is_dropped_is_gone() -> None:
    """Nobody is waited for, and no other node is told to."""
    roster = Roster(RosterOptions(grace=0), "A")
    roster.add("c1", "u1", {}, 0.0)
    batch = roster.outgoing(10)
    roster.sent(batch, [], 0.0)
    roster.remove("c1", 1.0, abrupt=True)
    assert roster.members(1.0) == []
    assert roster.outgoing(10) == ([], [batch.entries[0].ref])


@pytest.mark.parametrize("meta", [b"", b"[]", b"7", b"{", b'{"a":"' + b"x" * 1024 + b'"}', b"\xff"])
def test_what_can_not_be_read_is_passed_over(meta: bytes) -> None:
    """A forged entry is no device."""
    assert readable([Entry("r1", "B", "u1", meta), Entry("r2", "B", "u2")])[0][0].ref == "r2"
