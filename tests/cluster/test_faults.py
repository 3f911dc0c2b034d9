"""Every fault, with 240 publications a second flowing between three real processes.

In rooms with history every acknowledged publication comes to every member once and in order, or ``recovered`` is
false; in others every hole is told by a ``$gap``. No handler is blocked for longer than its deadline, and all is well
within five seconds of the broker's return.
"""

from pathlib import Path

import pytest

from tests.cluster.faults import FAULTS, Fault
from tests.cluster.trial import trial

BUSY = 0.3
"""Seconds that a turn comes too late on a machine that is too busy to judge deadlines on it."""


def cases() -> list[object]:
    """Return the faults, of which the long ones are marked."""
    long, short = [pytest.mark.long, pytest.mark.timeout(600)], [pytest.mark.timeout(300)]
    return [pytest.param(fault, id=fault.name, marks=long if fault.long else short) for fault in FAULTS]


@pytest.mark.parametrize("fault", cases())
async def test_nothing_is_lost_in_silence(fault: Fault, tmp_path: Path) -> None:
    """Whatever goes wrong, every client gets everything or knows that it did not."""
    slow: list[str] = []
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        result = await trial(fault, directory, print)
        assert result.wrong[:20] == []
        assert all(result.audit.verdicts[kind].acknowledged > 300 for kind in ("history", "plain"))
        slow = result.slow[:20]
        if not slow or result.lag < BUSY:
            break
    assert slow == []
