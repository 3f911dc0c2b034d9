"""The auditor finds every fault that it is there for, and takes nothing that is right for one."""

from tests.cluster.audit import audit
from tests.cluster.records import Away, Event, Gap, Joined, Log, Member, Note, Outcome, Sent, Skip
from tests.cluster.verdicts import Audit, Fault
from wsrouter import Position


def sent(*numbers: int, outcome: Outcome = "acknowledged", node: int | None = 1, publisher: str = "p") -> list[Sent]:
    """Return publications: number n at second n, answered half a second later."""
    return [Sent("room", publisher, number, float(number), node, outcome, number + 0.5) for number in numbers]


def joined(at: float, offset: int, *, epoch: str = "e", since: str | None = None, count: int | None = None) -> Joined:
    """Return a ``$joined``, one that recovered if ``count`` is given."""
    asked = None if since is None else Position.parse(since)
    return Joined(at, 0, Position(epoch, offset), count is not None, count or 0, True, asked)


def notes(*numbers: int, ahead: int | None = None, late: float = 0.1) -> list[Event]:
    """Return publications as a client gets them; with ``ahead`` with offsets that are that much higher."""
    return [Note(n + late, "p", n, None if ahead is None else n + ahead) for n in numbers]


def plain(*events: Event | list[Event], client: str = "c", room: str = "room") -> Log:
    """Return the log of a client in a room without history, which it joins at second 0 on node 0."""
    log = Log(client, room, "plain")
    for event in flat(Member(0.0, 0), *events):
        log.add(event)
    return log


def kept(*events: Event | list[Event], client: str = "c") -> Log:
    """Return the log of a client in a room with history, which it joins at second 0 at offset 0."""
    log = Log(client, "room", "history")
    for event in flat(joined(0.0, 0), Member(0.0, 0), *events):
        log.add(event)
    return log


def flat(*events: Event | list[Event]) -> list[Event]:
    return [event for each in events for event in (each if isinstance(each, list) else [each])]


def faults(*logs: Log, of: list[Sent]) -> list[Fault]:
    return [finding.fault for finding in audit(logs, of).findings]


def clean(*logs: Log, of: list[Sent]) -> Audit:
    """Return the audit, in which nothing is found."""
    result = audit(logs, of)
    assert [str(finding) for finding in result.findings] == []
    return result


# What is right


def test_what_came_is_delivered() -> None:
    """Every publication that came once and in order is delivered, and nothing is found."""
    result = clean(plain(notes(1, 2, 3)), kept(notes(1, 2, 3, ahead=0), client="d"), of=sent(1, 2, 3))
    assert [result.verdicts[kind].delivered for kind in ("plain", "history")] == [3, 3]


def test_what_was_published_before_a_client_came_is_not_lost() -> None:
    """A client that joins at second 0 need not have what was sent before."""
    assert clean(plain(notes(2)), of=sent(-1, 2)).verdicts["plain"].away == 1


def test_a_gap_announces_what_is_missing_where_it_stands() -> None:
    """What is missing between what came before a ``$gap`` and what came after it is announced."""
    result = clean(plain(notes(1), Gap(3.5), notes(4)), of=sent(1, 2, 3, 4))
    assert (result.verdicts["plain"].announced, result.verdicts["plain"].gaps) == (2, 1)
    assert result.announced["c", "room"] == 2


def test_a_gap_announces_what_is_missing_at_the_end() -> None:
    """A ``$gap`` that nothing follows announces what was sent before it."""
    assert clean(plain(notes(1), Gap(3.5)), of=sent(1, 2, 3)).verdicts["plain"].announced == 2


def test_without_history_who_is_away_misses_what_is_published() -> None:
    """What is published while the connection is gone is not lost in silence: the client knows that it was away."""
    result = clean(plain(notes(1), Away(1.5), Member(3.5, 1), notes(4)), of=sent(1, 2, 3, 4))
    assert (result.verdicts["plain"].away, result.verdicts["plain"].announced) == (2, 0)


def test_recovery_goes_on_where_the_client_stood() -> None:
    """A client that comes back and gets what it missed has lost nothing, and what is replayed counts as recovered."""
    back = joined(3.5, 1, since="e:1", count=2)
    log = kept(notes(1, ahead=0), Away(1.5), back, notes(2, 3, ahead=0, late=3.5), Member(7.0, 1), notes(4, ahead=0))
    result = clean(log, of=sent(1, 2, 3, 4))
    assert (result.verdicts["history"].recovered, result.verdicts["history"].delivered) == (2, 4)


def test_what_comes_late_was_recovered() -> None:
    """What comes more than a second after it was acknowledged, in order, counts as recovered by the node."""
    result = clean(kept(notes(1, ahead=0), notes(2, 3, ahead=0, late=4.0)), of=sent(1, 2, 3))
    assert result.verdicts["history"].recovered == 2


def test_who_is_excluded_gets_a_skip() -> None:
    """A publication is not missing for the user that it excludes, and with history a ``$skip`` is in its place."""
    of = sent(1, 2, 3)
    of[1].excludes = "ada"
    ada, bob = kept(notes(1, ahead=0), Skip(2.1, 2), notes(3, ahead=0)), kept(notes(1, 2, 3, ahead=0), client="d")
    ada.user, bob.user = "ada", "bob"
    clean(ada, bob, of=of)
    bob.user = "ada"
    assert faults(ada, bob, of=of) == ["excluded and delivered"]


def test_a_skip_fills_its_place() -> None:
    """A ``$skip`` has an offset, so what follows it stands right."""
    clean(kept(notes(1, ahead=0), Skip(1.5, 2), notes(2, ahead=1)), of=sent(1, 2))


def test_recovered_false_announces() -> None:
    """What is missing around a ``$joined`` that did not recover is announced, whether it was asked for or not."""
    asked = kept(notes(1, ahead=0), Away(1.5), joined(3.5, 0, epoch="f", since="e:1"), notes(4, ahead=-3), Member(4, 0))
    unasked = Joined(3.5, 0, Position("f", 0), False, 0, False, None)
    result = clean(asked, kept(notes(1, ahead=0), unasked, notes(4, ahead=-3), client="d"), of=sent(1, 2, 3, 4))
    assert (result.verdicts["history"].announced, result.verdicts["history"].gaps) == (4, 2)


def test_nobody_has_to_get_what_was_not_acknowledged() -> None:
    """What was refused, or has an unknown outcome, may come once or not at all; late ones are counted."""
    of = sent(1, 3) + sent(2, 4, outcome="unknown") + sent(5, outcome="refused") + sent(6, outcome="unanswered")
    result = clean(
        plain(notes(1, 3), notes(2, late=9)), of=[each for each in of if each.number != 2] + sent(2, outcome="unknown")
    )
    assert (result.verdicts["plain"].unacknowledged, result.verdicts["plain"].late) == (1, 1)


def test_a_publisher_that_was_refused_is_heard_where_it_is() -> None:
    """In a room without history members on the publisher's node get what other nodes are told to miss."""
    here, there = plain(notes(1, 2)), plain(Gap(2.7), client="d")
    here.events[0] = Member(0.0, 1)
    clean(here, there, of=sent(1, 2, outcome="refused"))


def test_without_history_another_node_may_be_behind() -> None:
    """Who comes back on a node that is behind may get there again what it had: on the same connection it may not."""
    back: list[Event] = [Away(1.5), Member(1.6, 1)]
    result = clean(plain(notes(1), back, notes(1, late=1), notes(2)), of=sent(1, 2))
    assert (result.verdicts["plain"].again, result.verdicts["plain"].delivered) == (1, 2)
    assert faults(plain(notes(1), back, notes(1, 1, late=1), notes(2)), of=sent(1, 2)) == ["duplicated"]


# What is wrong


def test_a_hole_that_nobody_tells_is_found() -> None:
    """A publication that is missing between two others is lost in silence."""
    assert faults(plain(notes(1, 3)), of=sent(1, 2, 3)) == ["lost in silence"]


def test_a_hole_at_the_end_is_found() -> None:
    """The last publications count as well."""
    result = audit([plain(notes(1))], sent(1, 2, 3))
    assert result.verdicts["plain"].lost == 2


def test_a_client_that_got_nothing_is_found() -> None:
    """A member that hears nothing at all has lost everything in silence."""
    assert faults(plain(), of=sent(1, 2)) == ["lost in silence"] * 2


def test_a_gap_elsewhere_does_not_announce() -> None:
    """A ``$gap`` before what came before the hole, or after what came after it, announces another hole."""
    early, late = plain(notes(1), Gap(3.5), notes(2, 4)), plain(notes(1, 2, 4), Gap(4.5))
    assert faults(early, late, of=sent(1, 2, 3, 4)) == ["lost in silence"] * 2


def test_a_gap_does_not_announce_what_is_sent_after_it() -> None:
    """A client that was told of a hole gets everything that is sent from then on."""
    assert faults(plain(notes(1), Gap(1.5)), of=sent(1, 2)) == ["lost in silence"]


def test_a_member_again_gets_everything_from_then_on() -> None:
    """What is sent after the client is a member again is not excused by its absence before."""
    assert faults(plain(notes(1), Away(1.5), Member(1.9, 1)), of=sent(1, 2)) == ["lost in silence"]


def test_to_be_away_excuses_nothing_with_history() -> None:
    """A client that came back with ``recovered`` and does not have what it missed lost it in silence."""
    log = kept(notes(1, ahead=0), Away(1.5), joined(3.5, 1, since="e:1", count=0), Member(3.5, 0), notes(4, ahead=-2))
    assert faults(log, of=sent(1, 2, 3, 4)) == ["lost in silence"] * 2


def test_a_duplicate_is_found() -> None:
    """A publication that comes twice is found, even if it was never acknowledged."""
    assert faults(plain(notes(1, 1)), of=sent(1)) == ["duplicated"]
    assert faults(plain(notes(1, 1)), of=sent(1, outcome="unknown")) == ["duplicated"]


def test_a_duplicate_after_a_hole_that_was_told_is_found() -> None:
    """``recovered`` false is no leave to deliver again."""
    log = kept(notes(1, ahead=0), joined(1.5, 0, epoch="f"), Note(2.0, "p", 1, 1))
    assert "duplicated" in faults(log, of=sent(1))


def test_another_order_is_found() -> None:
    """What one publisher was acknowledged comes in its order."""
    assert faults(plain(notes(2), notes(1, late=2)), of=sent(1, 2)) == ["out of order"]


def test_another_order_than_the_neighbours_is_found() -> None:
    """Members on one node get publications in the same order, whoever publishes; on two nodes they need not."""
    of = sent(1) + sent(1, publisher="q")
    one = plain(Note(1.1, "p", 1), Note(1.2, "q", 1))
    other = plain(Note(1.1, "q", 1), Note(1.2, "p", 1), client="d")
    assert faults(one, other, of=of) == ["another order"]
    other.events[0] = Member(0.0, 1)
    clean(one, other, of=of)


def test_a_hole_in_the_offsets_is_found() -> None:
    """Offsets go on by one, whatever is published."""
    assert faults(kept(notes(1, ahead=0), notes(2, ahead=1)), of=sent(1, 2)) == ["hole in the offsets"]


def test_an_offset_that_comes_again_is_found() -> None:
    """An offset that was there already is found, whatever the publication is."""
    assert faults(kept(notes(1, 2, ahead=0), Skip(3, 2)), of=sent(1, 2)) == ["offset again"]


def test_a_fork_is_found() -> None:
    """Two clients that have another publication at the same place do not share a stream."""
    of = sent(1) + sent(1, publisher="q")
    one, other = kept(Note(1.1, "p", 1, 1), Note(1.2, "q", 1, 2)), kept(Note(1.1, "q", 1, 1), Note(1.2, "p", 1, 2))
    other.client = "d"
    assert "forked" in faults(one, other, of=of)


def test_a_publication_at_two_places_is_found() -> None:
    """A publication that is in the stream twice is found, if no client has it twice."""
    other = kept(Skip(0.5, 1), notes(1, ahead=1), client="d")
    assert faults(kept(notes(1, ahead=0)), other, of=sent(1)) == ["duplicated"]


def test_a_recovery_from_elsewhere_is_found() -> None:
    """``recovered`` is true only for who asked for it, and from where it stood."""
    at_another_place = joined(3.5, 2, since="e:1", count=0)
    unasked = Joined(3.5, 0, Position("e", 1), True, 0, False, None)
    for event in (at_another_place, unasked, joined(3.5, 1, epoch="f", since="f:1", count=0)):
        assert faults(kept(notes(1, ahead=0), event), of=sent(1)) == ["recovered from elsewhere"]


def test_what_nobody_sent_is_found() -> None:
    """A publication that comes from nowhere is found."""
    assert faults(plain(notes(1)), of=[]) == ["never sent"]


def test_what_was_refused_and_delivered_elsewhere_is_found() -> None:
    """A publisher that is told that nothing happened may send again: so nothing may have happened on other nodes."""
    assert faults(plain(notes(1)), of=sent(1, outcome="refused")) == ["refused and delivered"]
    assert faults(kept(notes(1, ahead=0)), of=sent(1, outcome="refused", node=0)) == ["refused and delivered"]


def test_silence_on_the_publishers_own_node_is_found() -> None:
    """Local delivery goes on while the broker is away, so a ``$gap`` is not enough there."""
    assert faults(plain(Gap(1.7)), of=sent(1, outcome="refused", node=0)) == ["not heard locally"]


def test_a_hole_in_what_some_got_without_success_is_found() -> None:
    """What was delivered on one node and failed is told on the others, before what comes after it."""
    here, there = plain(notes(1, 2)), plain(notes(2), Gap(2.7), client="d")
    here.events[0] = Member(0.0, 1)
    assert faults(here, there, of=sent(1, outcome="refused") + sent(2)) == ["lost in silence"]


def test_who_does_not_come_back_is_found() -> None:
    """A client that is no member at the end is found."""
    assert faults(plain(Away(1.0)), of=[]) == ["not back"]
    assert faults(Log("c", "room", "plain"), of=[]) == ["not back"]
