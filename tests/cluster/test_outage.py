"""When all is well again is judged by what clients and publishers saw."""

import math

from tests.cluster.outage import well_after
from tests.cluster.records import Away, Event, Log, Member, Note, Outcome, Sent


def sent(*numbers: int, outcome: Outcome = "acknowledged", answered: float = 0.1) -> list[Sent]:
    return [Sent("room", "p", number, float(number), 0, outcome, number + answered) for number in numbers]


def log(*events: Event) -> Log:
    log = Log("c", "room", "plain")
    for event in (Member(0.0, 0), *events):
        log.add(event)
    return log


def notes(*numbers: int, late: float = 0.2) -> list[Event]:
    return [Note(number + late, "p", number) for number in numbers]


def test_it_is_well_at_once_if_nothing_is_wrong() -> None:
    """Nothing that was sent after the end of the fault was late, or lost."""
    assert well_after([log(*notes(4, 5))], sent(1, 4, 5), 3.0) == 0


def test_what_is_not_acknowledged_is_trouble() -> None:
    """The last publication that failed, or whose answer came late, is when it was not well yet."""
    logs = [log(*notes(4, 5, 6))]
    assert well_after(logs, sent(4, 6) + sent(5, outcome="refused"), 3.0) == 2
    assert well_after(logs, sent(4, 6) + sent(5, answered=1.5), 3.0) == 2


def test_what_does_not_come_in_time_is_trouble() -> None:
    """The last publication that a member got late, or never, is when it was not well yet."""
    assert well_after([log(*notes(5, 6))], sent(4, 5, 6), 3.0) == 1
    assert well_after([log(*notes(4, late=2), *notes(5, 6))], sent(4, 5, 6), 3.0) == 1


def test_what_is_for_others_is_no_trouble() -> None:
    """A member does not wait for a publication that excludes its user."""
    of, member = sent(4), log()
    of[0].excludes = member.user = "ada"
    assert well_after([member], of, 3.0) == 0


def test_who_is_not_back_is_trouble() -> None:
    """It is not well before every client is a member again."""
    assert well_after([log(Away(2.0), Member(4.5, 1))], [], 3.0) == 1.5
    assert well_after([log(Away(2.0))], [], 3.0) == math.inf
