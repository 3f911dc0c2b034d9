"""How a node follows the stream of a room: what is next, what waits, and when the broker has to be asked. Pure."""

import pytest

from wsrouter.brokers import Publication
from wsrouter.following import MAX_KEPT, MAX_KEPT_BYTES, Follower
from wsrouter.history import Position, Recovery


def publication(offset: int, epoch: str = "e", size: int = 2) -> Publication:
    return Publication("room", "r", "said", b"x" * size).at(Position(epoch, offset))


def started(offset: int = 0) -> Follower:
    follower = Follower()
    assert follower.start(Recovery("e", offset, False)) == []
    return follower


def missed(since: int, *offsets: int, epoch: str = "e") -> Recovery[Publication]:
    """Return the broker's answer with what was missed."""
    return Recovery(epoch, since, True, tuple(publication(offset, epoch) for offset in offsets))


def test_what_comes_next_is_taken() -> None:
    """Publications in their order are the members'; one that was there before is nobody's, and nothing is missing."""
    follower = started()
    assert [follower.take(publication(offset)) for offset in (1, 2, 1, 2, 3)] == [True, True, False, False, True]
    assert not follower.behind
    assert follower.position == Position("e", 3)


@pytest.mark.parametrize("next_one", [publication(3), publication(2, "f"), publication(1, "f")])
def test_a_hole_is_found(next_one: Publication) -> None:
    """An offset that does not follow, or another epoch: the broker has to be asked, and nothing is taken until then."""
    follower = started()
    assert follower.take(publication(1))
    assert not follower.take(next_one)
    assert follower.behind
    assert not follower.take(publication(2))
    assert follower.position == Position("e", 1)


def test_what_came_while_the_broker_was_asked_follows_its_answer() -> None:
    """The rest of what comes meanwhile is in the answer already, and is not taken twice."""
    follower = started()
    follower.lose()
    assert not follower.take(publication(1)), "the broker is asked later, and will tell of it"
    assert follower.begin() == Position("e", 0)
    for offset in (2, 3, 4):
        assert not follower.take(publication(offset))
    caught = follower.catch_up(missed(0, 1, 2))
    assert [each.offset for each in caught.publications] == [1, 2, 3, 4]
    assert caught.restart is None
    assert follower.take(publication(5))


def test_what_is_lost_while_the_broker_is_asked_is_asked_for_again() -> None:
    """Its answer may be older than the loss."""
    follower = started()
    follower.lose()
    follower.begin()
    follower.take(publication(2))
    follower.lose()
    caught = follower.catch_up(missed(0, 1))
    assert [each.offset for each in caught.publications] == [1]
    assert follower.behind
    assert follower.begin() == Position("e", 1)


def test_a_hole_behind_the_answer_is_found() -> None:
    """What waited may have a hole itself."""
    follower = started()
    follower.lose()
    follower.begin()
    follower.take(publication(4))
    assert [each.offset for each in follower.catch_up(missed(0, 1, 2)).publications] == [1, 2]
    assert follower.behind


@pytest.mark.parametrize(
    "answer",
    [Recovery("e", 7, False), Recovery("f", 7, False), missed(7, epoch="f"), missed(6, 7)],
    ids=["too many", "another stream", "as if recovered", "from elsewhere"],
)
def test_what_can_not_be_had_is_known(answer: Recovery[Publication]) -> None:
    """Members have to be told where they stand, and nothing of what they did not ask for is given to them."""
    follower = started(1)
    follower.lose()
    follower.begin()
    follower.take(publication(8, answer.epoch))
    caught = follower.catch_up(answer)
    assert caught.restart == Position(answer.epoch, 7)
    assert [each.offset for each in caught.publications] == [8]
    assert follower.take(publication(9, answer.epoch))


def test_the_first_member_brings_the_position() -> None:
    """What comes before that waits, and is taken where it follows."""
    follower = Follower()
    for offset in (1, 2, 3):
        assert not follower.take(publication(offset))
    assert [each.offset for each in follower.start(Recovery("e", 2, False))] == [3]
    assert follower.take(publication(4))


def test_a_loss_before_the_first_member_stands_is_kept_in_mind() -> None:
    """The broker's answer to the first member may be older than it."""
    follower = Follower()
    follower.take(publication(1))
    follower.lose()
    follower.take(publication(3))
    assert follower.start(Recovery("e", 0, False)) == []
    assert follower.behind


def test_no_answer() -> None:
    """What waited is let go of: the broker will be asked once more."""
    follower = started()
    follower.lose()
    follower.begin()
    follower.take(publication(1))
    follower.fail()
    assert follower.behind
    follower.begin()
    assert [each.offset for each in follower.catch_up(missed(0, 1)).publications] == [1]


@pytest.mark.parametrize(("count", "size"), [(MAX_KEPT + 1, 2), (17, MAX_KEPT_BYTES // 16)])
def test_what_waits_is_bounded(count: int, size: int) -> None:
    """In number and in bytes; with more the broker is asked once more."""
    follower = started()
    follower.lose()
    follower.begin()
    for offset in range(1, count):
        follower.take(publication(offset, size=size))
    full = follower.behind
    follower.take(publication(count, size=size))
    assert (full, follower.behind) == (False, True)
    assert not follower.catch_up(Recovery("e", 0, True)).publications
