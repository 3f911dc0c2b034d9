"""What is measured, how much of it, and how two contenders are compared by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import Final, Literal, TypeAlias

INFINITE: Final = "∞"


@dataclass(frozen=True)
class Scale:
    """How much load a workload makes."""

    seconds: float = 1.0
    members: int = 500
    """Of the room of a fan-out."""


@dataclass(frozen=True)
class Figure:
    """One thing that a workload measures.

    ``compare`` says what is made of two contenders' values: ``more`` and ``less`` is better, both a ratio that is
    above 1 where ours is the better one; ``over``, by how much ours is above theirs; ``own``, ours alone.
    """

    name: str
    unit: str
    compare: Literal["more", "less", "over", "own"]
    digits: int = 0

    def compared(self, ours: float, theirs: float) -> float:
        """Compare two values."""
        match self.compare:
            case "more":
                return ours / theirs
            case "less":
                return theirs / ours
            case "over":
                return ours - theirs
            case "own":
                return ours

    def show(self, value: float) -> str:
        """Return a value as it is printed."""
        return INFINITE if isinf(value) else f"{value:,.{self.digits}f}{self.unit}"

    def show_compared(self, value: float) -> str:
        """Return the result of a comparison as it is printed."""
        if self.compare in ("more", "less"):
            return f"{value:,.2f}"
        return f"{'+' if self.compare == 'over' and value >= 0 else ''}{self.show(value)}"


Figures: TypeAlias = Mapping[Figure, float]

MESSAGES: Final = Figure("messages per second of CPU", "", "more")
HANDSHAKES: Final = Figure("handshakes per second of CPU", "", "more")
DELIVERIES: Final = Figure("deliveries per second of CPU", "", "more")
P99: Final = Figure("p99 of a delivery", " ms", "less", 1)
MEMORY: Final = Figure("memory of a connection", " KiB", "over", 1)
SHARE: Final = Figure("delivered to the others", " %", "own", 1)
SLOWER: Final = Figure("their p99 over that with none stalled", "", "own", 2)
GROWTH: Final = Figure("growth of memory", " MiB", "own", 1)
CLOSED: Final = Figure("until the server has closed the stalled socket", " s", "own", 1)
GONE: Final = Figure("until nothing is left of it in the kernel", " s", "own", 1)


def p99(values: Sequence[float], expected: int) -> float:
    """Return the 99th percentile of what was expected; what did not come takes for ever."""
    index = int(expected * 0.99)
    return sorted(values)[index] if index < len(values) else float("inf")
