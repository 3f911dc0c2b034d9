"""What came of a fault."""

from collections import Counter
from dataclasses import dataclass, field

from tests.cluster.clients import Wait
from tests.cluster.faults import Fault
from tests.cluster.verdicts import Audit


@dataclass(frozen=True)
class Result:
    """What came of a fault. Times are seconds."""

    fault: Fault
    audit: Audit
    rate: float
    """Publications a second, over all of it."""

    waits: list[Wait]
    """What clients and publishers waited for, nodes left out that could not answer."""

    longest: float
    """How long a handler waited for a publication, at most."""

    well: float
    """How long after the fault all was well again."""

    noticed: float
    """How long it took until the last node said that it is cut off, where nothing was closed."""

    ready: float
    """How long after the fault all nodes said that they are ready."""

    lag: float
    """How late this process got its turn, at most: how busy the machine was."""

    closes: Counter[int]
    """Close codes that clients saw."""

    wrong: list[str] = field(default_factory=list[str])
    """What must never be."""

    slow: list[str] = field(default_factory=list[str])
    """What must not be, but on a machine that is too busy."""

    @property
    def problems(self) -> list[str]:
        return [*self.wrong, *self.slow]

    def longest_wait(self, what: str) -> float:
        """Return how long a client waited for something, at most."""
        return max((wait.took for wait in self.waits if wait.what == what), default=0.0)
