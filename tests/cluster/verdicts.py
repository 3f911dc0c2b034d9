"""What the auditor finds, and what it counts."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.cluster.records import Kind

Fault: TypeAlias = Literal[
    "lost in silence",
    "duplicated",
    "out of order",
    "another order",
    "hole in the offsets",
    "offset again",
    "forked",
    "never sent",
    "refused and delivered",
    "excluded and delivered",
    "not heard locally",
    "recovered from elsewhere",
    "not back",
]
"""What must never be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be."""

    fault: Fault
    client: str
    room: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.fault}: {self.client} in {self.room}: {self.text}"


@dataclass(slots=True)
class Verdict:
    """What came of the publications of one kind of room."""

    sent: int = 0
    acknowledged: int = 0
    delivered: int = 0
    """Acknowledged publications, counted for each client that got it."""

    recovered: int = 0
    """Those of them that were replayed to a client that came back, or came more than a second after they were
    acknowledged: its node had missed them."""

    announced: int = 0
    """Acknowledged publications that a client did not get, and knows that it did not."""

    away: int = 0
    """Acknowledged publications that a client did not get because it was not a member."""

    unacknowledged: int = 0
    """Publications that were delivered and not acknowledged."""

    late: int = 0
    """Those of them that came after a later one of the same publisher."""

    gaps: int = 0
    """Frames that told of a hole: ``$gap``, or ``$joined`` with ``recovered`` false after the first."""

    lost: int = 0
    """Publications that a client should have got, and neither did nor knows of it."""

    twice: int = 0
    """Publications that a client got again: with history at all, without on the same connection."""

    again: int = 0
    """Publications in a room without history that a client got again on another connection: to a node that was behind
    the one before."""

    disordered: int = 0
    """Acknowledged publications that a client got after a later one of the same publisher."""


@dataclass(slots=True)
class Audit:
    """What came of everything."""

    verdicts: dict[Kind, Verdict] = field(default_factory=lambda: {"history": Verdict(), "plain": Verdict()})
    findings: list[Finding] = field(default_factory=list[Finding])
    announced: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """How many publications each client was told to have missed in each room."""

    gaps: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """How often each client was told of a hole in each room."""

    def count(self, fault: Fault) -> int:
        """Return how many findings are of one sort."""
        return sum(finding.fault == fault for finding in self.findings)
