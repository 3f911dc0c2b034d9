"""Who is in a room: rosters, what members are told of them, and the rosters of all rooms."""

import copy
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsrouter.brokers.base import Entry
from wsrouter.codecs import dump
from wsrouter.deadlines import Deadlines
from wsrouter.frames import CloseInfo
from wsrouter.listing import RosterOptions
from wsrouter.members import MAX_META_BYTES, Heard, Member, Notice, readable
from wsrouter.presence import Presence, is_abrupt
from wsrouter.roster import Roster

Devices: TypeAlias = dict[str, dict[str, dict[str, Any]]]

OPTIONS = RosterOptions()


class Page:
    """A client's view of one room, kept as `wsrouter.members` tells to."""

    def __init__(self, state: Mapping[str, object]) -> None:
        self.members: Devices | None = None
        self.count: object = None
        self.get("$presence", state)

    def get(self, type: str, data: Mapping[str, object]) -> None:
        frame: Any = json.loads(dump(data))
        if type == "$presence":
            self.count, self.members = frame["count"], frame.get("members")
            return
        members = self.members
        assert members is not None, "a diff came where only the number is told"
        for user, devices in frame["join"].items():
            members.setdefault(user, {}).update(devices)
        for user, devices in frame["leave"].items():
            for ref in devices:
                members[user].pop(ref)
            if not members[user]:
                del members[user]


def said(
    ref: str, user: str, meta: Mapping[str, object] | None = None, *, node: str = "there", dropped: bool = False
) -> Heard:
    """Return what another node says of a device."""
    (heard,) = readable([Entry(ref, node, user, dump(meta or {}), dropped)])
    return heard


def told(roster: Roster, now: float) -> dict[str, list[object]]:
    """Return who came and went by the next frame, each with what was given for its devices."""
    notice = roster.take(now)
    if notice is None:
        return {}
    assert notice.type == "$presence_diff"
    changes: dict[str, list[object]] = {}
    for change in ("join", "leave"):
        members: Any = notice.data[change]
        for user, devices in members.items():
            changes[f"{change} {user}"] = list(devices.values())
    return changes


def test_who_comes_and_who_goes_is_told() -> None:
    """A member and what was given for it are told a tenth of a second after it came, and again when it has gone."""
    roster = Roster(OPTIONS)
    roster.add("c1", "u1", {"name": "Ada"}, 10.0)
    assert told(roster, 10.09) == {}
    assert told(roster, 10.1) == {"join u1": [{"name": "Ada"}]}
    roster.remove("c1", 20.0, abrupt=False)
    assert told(roster, 20.1) == {"leave u1": [{"name": "Ada"}]}
    assert roster.due is None


def test_a_device_each() -> None:
    """A user with two devices is one member with two entries, and leaves with the last of them."""
    roster = Roster(OPTIONS)
    roster.add("phone", "u1", {"on": "phone"}, 0.0)
    roster.add("laptop", "u1", {"on": "laptop"}, 0.0)
    assert told(roster, 0.1) == {"join u1": [{"on": "phone"}, {"on": "laptop"}]}
    roster.remove("phone", 1.0, abrupt=False)
    page = Page(roster.state())
    assert told(roster, 1.1) == {"leave u1": [{"on": "phone"}]}
    assert [list(member.devices.values()) for member in roster.members(1.1)] == [[{"on": "laptop"}]]
    assert page.members is not None
    assert len(page.members["u1"]) == 2


def test_what_is_over_within_a_tenth_of_a_second_is_not_told() -> None:
    """Who comes and goes, and what changes and changes back, between two frames, does not show."""
    roster = Roster(OPTIONS)
    roster.add("c1", "u1", {"status": "here"}, 0.0)
    assert roster.take(0.1) is not None
    roster.add("c2", "u2", {}, 1.0)
    roster.add("c1", "u1", {"status": "away"}, 1.01)
    roster.remove("c2", 1.02, abrupt=False)
    roster.add("c1", "u1", {"status": "here"}, 1.03)
    assert (roster.due, roster.take(1.1), roster.due) == (1.1, None, None)


def test_a_change_is_a_join_of_the_same_device() -> None:
    """What is known of a device is replaced, under the same ref."""
    roster = Roster(OPTIONS)
    roster.add("c1", "u1", {"status": "here"}, 0.0)
    roster.take(0.1)
    page = Page(roster.state())
    ref = next(iter(roster.members(0.1)[0].devices))
    roster.add("c1", "u1", {"status": 1}, 1.0)
    notice = roster.take(1.1)
    assert notice is not None
    assert notice == ("$presence_diff", {"join": {"u1": {ref: {"status": 1}}}, "leave": {}})
    page.get(*notice)
    assert page.members == {"u1": {ref: {"status": 1}}}
    roster.add("c1", "u1", {"status": True}, 2.0)
    assert told(roster, 2.1) == {"join u1": [{"status": True}]}


def test_a_newcomer_is_told_what_all_others_know() -> None:
    """The state on join is as of the last frame, so that the next one fits everybody, and costs one encoding."""
    roster = Roster(OPTIONS)
    roster.add("c1", "u1", {}, 0.0)
    roster.take(0.1)
    first = roster.state()
    roster.add("c2", "u2", {}, 1.0)
    roster.remove("c1", 1.0, abrupt=False)
    assert roster.state() is first
    page = Page(first)
    roster.remove("c2", 1.05, abrupt=False)
    roster.add("c3", "u3", {}, 1.05)
    notice = roster.take(1.1)
    assert notice is not None
    page.get(*notice)
    assert list(page.members or ()) == ["u3"]
    assert roster.state() is not first


@pytest.mark.parametrize("seconds", [0.05, 1.0, 14.9])
@pytest.mark.parametrize("given", [{"name": "Ada"}, {"name": "Lovelace"}])
def test_a_reload_is_no_leave(seconds: float, given: dict[str, str]) -> None:
    """Who is dropped and comes back within 15 s never left; only what it gives now shows, if it is not the same."""
    roster = Roster(OPTIONS)
    roster.add("before", "u1", {"name": "Ada"}, 0.0)
    roster.take(0.1)
    before = roster.members(0.1)
    roster.remove("before", 10.0, abrupt=True)
    assert (roster.members(10.0), roster.due) == (before, None)
    roster.add("after", "u1", given, 10.0 + seconds)
    assert told(roster, 25.1) == ({} if given == {"name": "Ada"} else {"join u1": [given]})
    assert [list(member.devices) for member in roster.members(30.0)] == [list(before[0].devices)]
    assert roster.expires_at is None


def test_who_does_not_come_back_leaves_after_the_grace() -> None:
    """A dropped device is there for 15 s, and a join after that is a new one's."""
    roster = Roster(OPTIONS)
    roster.add("c1", "u1", {}, 0.0)
    roster.take(0.1)
    roster.remove("c1", 10.0, abrupt=True)
    assert roster.expires_at == 25.0
    assert len(roster.members(24.9)) == 1
    roster.add("c2", "u1", {}, 25.0)
    assert told(roster, 25.1) == {"join u1": [{}], "leave u1": [{}]}
    assert len(roster.members(25.1)[0].devices) == 1


def test_of_several_dropped_devices_the_same_comes_back() -> None:
    """With two devices gone, a join takes the place of the one of which the same is known, else of the first."""
    for known, left in (({"on": "laptop"}, "phone"), ({"on": "phone"}, "laptop"), ({"on": "watch"}, "laptop")):
        roster = Roster(OPTIONS)
        roster.add("c1", "u1", {"on": "phone"}, 0.0)
        roster.add("c2", "u1", {"on": "laptop"}, 0.0)
        roster.remove("c1", 0.0, abrupt=True)
        roster.remove("c2", 1.0, abrupt=True)
        roster.add("again", "u1", known, 2.0)
        devices = [list(member.devices.values()) for member in roster.members(14.9)]
        assert Counter(map(str, devices[0])) == Counter(map(str, (known, {"on": left})))
        assert [list(member.devices.values()) for member in roster.members(16.0)] == [[known]]


def test_users_without_an_id_are_each_a_member() -> None:
    """They share the empty user in frames; each counts, nobody takes another's place, and a drop is a leave."""
    roster = Roster(OPTIONS)
    roster.add("c1", None, {"name": "a"}, 0.0)
    roster.add("c2", None, {"name": "b"}, 0.0)
    roster.add("c3", "u1", {}, 0.0)
    assert told(roster, 0.1) == {"join ": [{"name": "a"}, {"name": "b"}], "join u1": [{}]}
    assert (roster.count, roster.state()["count"], len(roster.members(0.1))) == (3, 3, 3)
    assert [member.user for member in roster.members(0.1)] == ["u1", "", ""]
    roster.remove("c1", 1.0, abrupt=True)
    assert told(roster, 1.1) == {"leave ": [{"name": "a"}]}


def test_a_connection_that_becomes_another_users_moves() -> None:
    """The old user leaves with it, the new one comes."""
    roster = Roster(OPTIONS)
    roster.add("c1", None, {}, 0.0)
    roster.take(0.1)
    page = Page(roster.state())
    roster.add("c1", "u1", {}, 1.0)
    notice = roster.take(1.1)
    assert notice is not None
    page.get(*notice)
    assert list(page.members or ()) == ["u1"]


def test_entries_of_another_node_live_as_long_as_it_does() -> None:
    """What another node announces is told here as well, until that node withdraws it, or is gone."""
    roster = Roster(OPTIONS, "here")
    for ref, node, user in (("r1", "there", "u1"), ("r2", "there", "u2"), ("r3", "far away", "u3")):
        roster.hear(said(ref, user, node=node), 0.0)
    assert told(roster, 0.1) == {"join u1": [{}], "join u2": [{}], "join u3": [{}]}
    assert roster.expires_at is None
    roster.forget("r1", 1_000.0)
    roster.forget("r1", 1_000.0)
    assert told(roster, 1_000.1) == {"leave u1": [{}]}
    roster.depart("there", 2_000.0)
    assert told(roster, 2_000.1) == {"leave u2": [{}]}
    assert [member.user for member in roster.members(3_000.0)] == ["u3"]


def test_a_node_does_not_listen_to_itself() -> None:
    """What comes back of an entry of its own neither changes nor ages it."""
    roster = Roster(OPTIONS, "here")
    roster.add("c1", "u1", {}, 0.0)
    ref = next(iter(roster.members(0.0)[0].devices))
    roster.hear(said(ref, "u1", {"old": True}, node="here"), 1.0)
    roster.forget(ref, 2.0)
    assert roster.members(1_000.0) == [Member("u1", {ref: {}})]


def test_in_a_big_room_only_the_number_is_told() -> None:
    """Above 500 devices the number comes once a second at most; from 400 down all have the members again."""
    roster = Roster(OPTIONS)
    for number in range(500):
        roster.add(f"c{number}", f"u{number}", {}, 0.0)
    assert len(told(roster, 0.1)) == 500
    roster.add("c500", "u500", {}, 1.0)
    assert roster.take(1.1) == Notice("$presence", {"count": 501})
    roster.add("c501", "u501", {}, 2.0)
    assert roster.state() == {"count": 501}
    assert (roster.take(2.9), roster.take(3.0)) == (None, Notice("$presence", {"count": 502}))
    roster.remove("c501", 4.0, abrupt=False)
    roster.add("c502", "u502", {}, 4.0)
    assert roster.take(5.0) is None
    for number in range(401, 501):
        roster.remove(f"c{number}", 5.0, abrupt=False)
    assert roster.take(6.0) == Notice("$presence", {"count": 402})
    for number in range(101, 401):
        roster.remove(f"c{number}", 6.0, abrupt=False)
    page = Page(roster.state())
    notice = roster.take(7.0)
    assert notice is not None
    page.get(*notice)
    assert (page.count, len(page.members or ())) == (102, 102)
    roster.remove("c502", 8.0, abrupt=False)
    assert told(roster, 8.1) == {"leave u502": [{}]}


def test_what_is_known_of_a_device_is_small_and_json() -> None:
    """More than 1 KiB, and what JSON can't say, is refused, and nothing has changed; what was given is copied."""
    roster = Roster(OPTIONS)
    fits = {"a": "x" * (MAX_META_BYTES - len('{"a":""}'))}
    roster.add("c1", "u1", fits, 0.0)
    fits["a"] += "x"
    with pytest.raises(ValueError, match="1025 bytes"):
        roster.add("c1", "u1", fits, 0.0)
    with pytest.raises(ValueError, match="serialize"):
        roster.add("c2", "u2", {"a": object()}, 0.0)
    with pytest.raises(ValueError, match="surrogate"):
        roster.add("c2", "\ud800", {}, 0.0)
    assert [member.user for member in roster.members(0.0)] == ["u1"]
    assert roster.take(0.1) is not None
    page = Page(roster.state())
    assert [dump(given) for given in (page.members or {})["u1"].values()] == [dump({"a": fits["a"][:-1]})]


@pytest.mark.parametrize(
    ("by", "codes", "abrupt"),
    [
        ("client", [1000, 1005], False),
        ("client", [1001, 1006, 1002, 1011, 4000], True),
        ("server", [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4400, 4401, 4403, 4409], False),
        ("server", [1001, 1006, 1011, 1012, 1013, 4503, 4508, 4510, 4519, 4529], True),
    ],
)
def test_who_may_be_about_to_come_back(by: Any, codes: list[int], abrupt: bool) -> None:
    """A goodbye of the client's, and a close after which it must not come back, are no drops; all others are."""
    assert {is_abrupt(CloseInfo(code, by=by)) for code in codes} == {abrupt}


@dataclass
class Known:
    """A device as the model has it."""

    user: str | None
    given: dict[str, object]
    connection: str | None
    until: float | None = None
    remote: str | None = None
    node: str = ""
    told: bool = False


CONNECTIONS = st.sampled_from([f"c{number}" for number in range(8)])
USERS = st.sampled_from(["u1", "u2", "u3"])
REFS = st.sampled_from(["r1", "r2", "r3"])
NODES = st.sampled_from(["n1", "n2"])
GIVEN: st.SearchStrategy[dict[str, object]] = st.sampled_from([{}, {"a": 1}, {"a": True}])


class Told(RuleBasedStateMachine):
    """Devices come, change, go, are dropped and come back, here and on other nodes; pages open at any time.

    Every page always has what a new one would get, and who is here when all was told; never more than one frame
    came within a window.
    """

    how: ClassVar[RosterOptions] = RosterOptions(window=0.125)

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.roster = Roster(self.how)
        self.entries: list[Known] = []
        self.pages: list[Page] = []
        self.last: float | None = None

    @rule(connection=CONNECTIONS, user=USERS | st.none(), given=GIVEN)
    def add(self, connection: str, user: str | None, given: dict[str, object]) -> None:
        self.roster.add(connection, user, given, self.now)
        self.expire()
        entry = next((entry for entry in self.entries if entry.connection == connection), None)
        if entry is None and user is not None:
            dropped = [each for each in self.entries if each.user == user and each.until]
            dropped.sort(key=lambda each: (dump(each.given) != dump(given), self.grace_ends(each)))
            entry = dropped[0] if dropped else None
        if entry is None:
            self.entries.append(entry := Known(user, given, connection))
        entry.user, entry.given, entry.connection, entry.until, entry.remote = user, given, connection, None, None

    def grace_ends(self, entry: Known) -> float:
        assert entry.until is not None
        return entry.until - (0.0 if entry.remote is None else self.how.patience)

    @precondition(lambda self: any(entry.connection for entry in self.entries))
    @rule(data=st.data(), abrupt=st.booleans())
    def remove(self, data: st.DataObject, abrupt: bool) -> None:
        entry = data.draw(st.sampled_from([entry for entry in self.entries if entry.connection]))
        assert entry.connection is not None
        self.now += 2**-20  # of two that were dropped, one was first
        self.roster.remove(entry.connection, self.now, abrupt=abrupt)
        entry.connection = None
        if abrupt and entry.user:
            entry.until = self.now + self.how.grace
        else:
            self.entries.remove(entry)

    @rule(ref=REFS, user=USERS, given=GIVEN, dropped=st.booleans(), node=NODES)
    def hear(self, ref: str, user: str, given: dict[str, object], dropped: bool, node: str) -> None:
        newcomers = [each for each in self.entries if each.user == user and each.connection and not each.told]
        if dropped and len(newcomers) > 1:  # which of them was dropped is not for this model to say
            return
        self.now += 2**-20  # of two that were dropped, one was first
        self.roster.expire(self.now)
        self.expire()
        self.roster.hear(said(ref, user, given, node=node, dropped=dropped), self.now)
        if ref in self.roster.ledger and all(entry.remote != ref for entry in self.entries):
            return  # it was this node that had the last word, and the broker has not answered
        entry = next((entry for entry in self.entries if entry.remote == ref), None)
        if dropped and newcomers:  # who came back before that was heard has it
            newcomers[0].told = entry is not None and entry.told
            self.entries = [each for each in self.entries if each is not entry]
            return
        if entry is None:
            self.entries.append(entry := Known(user, given, None, remote=ref))
        entry.user, entry.given, entry.node = user, given, node
        if not dropped:
            entry.until = None
        elif entry.until is None:
            entry.until = self.now + self.how.grace + self.how.patience

    @rule(ref=REFS)
    def forget(self, ref: str) -> None:
        self.roster.forget(ref, self.now)
        self.entries = [entry for entry in self.entries if entry.remote != ref]

    @rule(node=NODES)
    def depart(self, node: str) -> None:
        self.roster.depart(node, self.now)
        self.entries = [entry for entry in self.entries if entry.remote is None or entry.node != node]

    @rule(seconds=st.sampled_from([0.0625, 0.125, 1.0, 7.0, 15.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def open(self) -> None:
        self.pages.append(Page(copy.deepcopy(self.roster.state())))

    @rule()
    def take(self) -> None:
        due = self.roster.due
        notice = self.roster.take(self.now)
        if due is not None and due <= self.now:
            for entry in self.entries:
                entry.told = True
        if notice is None:
            return
        assert self.last is None or self.now - self.last >= self.how.window
        self.last = self.now
        for page in self.pages:
            page.get(*notice)

    def expire(self) -> None:
        self.entries = [entry for entry in self.entries if entry.until is None or self.now < entry.until]

    @invariant()
    def all_pages_are_alike(self) -> None:
        newest = Page(self.roster.state())
        assert [page.members for page in self.pages] == [newest.members] * len(self.pages)
        if newest.members is None:
            assert [page.count for page in self.pages] == [newest.count] * len(self.pages)
        else:
            assert newest.count == len(newest.members) + (len(newest.members.get("", "-")) - 1)

    @invariant()
    def the_roster_is_the_model(self) -> None:
        self.expire()
        members = self.roster.members(self.now)
        here = [(member.user, dump(given)) for member in members for given in member.devices.values()]
        assert Counter(here) == Counter((entry.user or "", dump(entry.given)) for entry in self.entries)
        users = {entry.user for entry in self.entries if entry.user}
        assert len(members) == self.roster.count == len(users) + sum(not entry.user for entry in self.entries)
        deadlines = [entry.until for entry in self.entries if entry.until is not None]
        assert self.roster.expires_at == min(deadlines, default=None)

    def teardown(self) -> None:
        """When everything was told, every page has who is here."""
        self.roster.expire(self.now)
        while self.roster.due is not None:
            self.now = max(self.now, self.roster.due)
            self.take()
        for page in self.pages:
            members = {member.user: dict(member.devices) for member in self.roster.members(self.now) if member.user}
            if page.members is None:
                assert page.count == self.roster.count
            else:
                assert {user: devices for user, devices in page.members.items() if user} == members
                assert len(page.members.get("", ())) == self.roster.count - len(members)


class ToldInBigRooms(Told):
    """The same where four devices are many."""

    how = RosterOptions(window=0.125, most=4)


TestTold = Told.TestCase
TestToldInBigRooms = ToldInBigRooms.TestCase


def test_each_room_is_told_of_its_own() -> None:
    """One clock serves all rooms: each has its frame when it is due, and is forgotten when nobody is there."""
    presence = Presence()
    presence.add("a", "c1", "u1", {}, 0.0)
    presence.add("b", "c2", "u2", {}, 0.05)
    presence.add("b", "c3", "u3", {}, 0.06)
    assert presence.due == pytest.approx(0.1)
    assert [(room, list(notice.data["join"])) for room, notice in taken(presence, 0.1)] == [("a", ["u1"])]
    assert presence.due == pytest.approx(0.15)
    assert [(room, list(notice.data["join"])) for room, notice in taken(presence, 0.2)] == [("b", ["u2", "u3"])]
    assert (presence.due, len(presence)) == (None, 2)
    presence.remove("b", "c2", 1.0, abrupt=True)
    presence.remove("a", "c1", 1.0, abrupt=True)
    presence.remove("b", "nobody", 1.0, abrupt=True)
    presence.remove("nowhere", "c1", 1.0, abrupt=True)
    assert (presence.due, len(presence)) == (16.0, 2)
    assert taken(presence, 16.0) == []
    assert presence.due == 16.1
    left = {room: list(notice.data["leave"]) for room, notice in taken(presence, 16.1)}
    assert (left, len(presence)) == ({"a": ["u1"], "b": ["u2"]}, 1)
    presence.remove("b", "c3", 20.0, abrupt=False)
    assert [(room, list(notice.data["leave"])) for room, notice in taken(presence, 20.1)] == [("b", ["u3"])]
    assert (len(presence), presence.members("b", 20.1)) == (0, [])
    assert presence.state("b") == {"count": 0, "members": {}}


def taken(presence: Presence, now: float) -> list[tuple[str, Any]]:
    """Return the frames of all rooms that are due."""
    return list(presence.take(now))


def test_who_comes_after_the_last_has_left_begins_with_what_was_told() -> None:
    """An empty room is kept until its last leave was told; a join that was refused leaves nothing behind."""
    presence = Presence()
    presence.add("a", "c1", "u1", {}, 0.0)
    assert len(taken(presence, 0.1)) == 1
    presence.remove("a", "c1", 1.0, abrupt=False)
    page = Page(presence.state("a"))
    presence.add("a", "c2", "u2", {}, 1.0)
    for _, notice in taken(presence, 1.1):
        page.get(*notice)
    assert list(page.members or ()) == ["u2"]
    with pytest.raises(ValueError, match="at most 1024"):
        presence.add("b", "c1", "u1", {"a": "x" * 2_000}, 2.0)
    assert len(presence) == 1


def test_many_rooms_can_be_told_in_several_goes() -> None:
    """Who stops after some rooms finds the others due."""
    presence = Presence()
    for number in range(10):
        presence.add(f"room {number}", f"c{number}", "u1", {}, 0.0)
    told: list[str] = []
    while presence.due is not None:
        for _, (room, _) in zip(range(3), presence.take(0.1), strict=False):
            told.append(room)
    assert sorted(told) == [f"room {number}" for number in range(10)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from(["c1", "c2"]),
            st.sampled_from(["add", "drop", "leave", "hear", "hear dropped", "forget", "depart"]),
            st.sampled_from([0.0, 0.05, 0.1, 5.0, 20.0, 70.0]),
        ),
        max_size=40,
    )
)
def test_a_timer_by_due_tells_everything(steps: list[tuple[str, str, str, float]]) -> None:
    """Whoever calls `take` when `due` says so, and at no other time, tells every room all, and ends with nothing."""
    presence = Presence()
    pages = {room: Page(presence.state(room)) for room in "abc"}
    now = 0.0

    def run_until(end: float) -> None:
        nonlocal now
        while (due := presence.due) is not None and due <= end:
            now = max(now, due)
            for room, notice in presence.take(now):
                pages[room].get(*notice)
            assert presence.due is None or presence.due > now
        now = end

    for room, connection, step, seconds in steps:
        if step == "add":
            presence.add(room, connection, connection, {"at": now}, now)
        elif step.startswith("hear"):
            heard_of = said(f"r{connection}", "remote", dropped=step == "hear dropped")
            presence.hear(room, [heard_of], [], now)
        elif step == "forget":
            presence.hear(room, [], [f"r{connection}"], now)
        elif step == "depart":
            presence.depart("there", now)
        else:
            presence.remove(room, connection, now, abrupt=step == "drop")
        run_until(now + seconds)
    run_until(now + 0.2)
    for room, page in pages.items():
        assert page.members == {member.user: dict(member.devices) for member in presence.members(room, now)}
    for room in "abc":
        for connection in ("c1", "c2"):
            presence.remove(room, connection, now, abrupt=True)
    presence.depart("there", now)
    run_until(now + 100.0)
    assert presence.due is None
    assert all(presence.members(room, now) == [] for room in "abc")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5) | st.none())))
def test_deadlines_are_a_mapping_whose_least_value_comes_first(steps: list[tuple[str, int | None]]) -> None:
    """A name has one deadline, the earliest that it was given since it was popped, and they are popped in order."""
    deadlines = Deadlines()
    model: dict[str, float] = {}
    for name, deadline in steps:
        if deadline is not None:
            deadlines.add(name, float(deadline))
            model[name] = min(model.get(name, 9.0), deadline)
        elif (popped := deadlines.pop(3.0)) is not None:
            assert model[popped] == min(model.values()) <= 3.0
            del model[popped]
        else:
            assert all(each > 3.0 for each in model.values())
        assert deadlines.next == min(model.values(), default=None)
        assert len(deadlines) == len(model)
