"""How long it takes until all is well again. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.cluster.audit import LATE
from tests.cluster.records import Log, Member, Note, Sent


def well_after(logs: Sequence[Log], sent: Iterable[Sent], returned: float) -> float:
    """Return how many seconds after the end of a fault all was well.

    That is when every client is a member again, and everything that is published from then on is acknowledged within a
    second, and comes to every member within another one.

    Args:
        logs: of clients that do not go away by themselves.
        sent: what was published.
        returned: when the fault ended.
    """
    since: dict[str, list[Sent]] = defaultdict(list)
    troubles = [returned]
    for each in sent:
        if each.at >= returned:
            since[each.room].append(each)
            if each.outcome != "acknowledged" or each.answered > each.at + LATE:
                troubles.append(each.at)
    for log in logs:
        came = {(event.publisher, event.number): event.at for event in log.events if isinstance(event, Note)}
        troubles += [
            each.at
            for each in since[log.room]
            if not each.spares(log.user)
            and came.get((each.publisher, each.number), math.inf) > min(each.answered, each.at + LATE) + LATE
        ]
        troubles += [event.at for event in log.events if isinstance(event, Member) and event.at >= returned]
        if not log.member:
            return math.inf
    return max(troubles) - returned
