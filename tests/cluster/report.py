"""What came of the faults, as tables for a terminal and for the documentation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version

from rich.table import Table

from tests.cluster.records import Kind
from tests.cluster.results import Result

KINDS: dict[Kind, str] = {"history": "with history", "plain": "without, users"}


@dataclass(frozen=True)
class Columns:
    """A table before it is drawn."""

    title: str
    names: Sequence[str]
    """Of the columns; those after the words are numbers."""

    words: int
    rows: Sequence[Sequence[str]]

    def drawn(self) -> Table:
        """Return it for a terminal."""
        table = Table(title=self.title)
        for place, name in enumerate(self.names):
            table.add_column(name, justify="left" if place < self.words else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it for the documentation."""
        rule = ["---"] * self.words + ["---:"] * (len(self.names) - self.words)
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.names, rule, *self.rows))


def publications(results: Sequence[Result]) -> Columns:
    """Return what became of the publications."""
    rows: list[list[str]] = []
    for result in results:
        fault = result.fault.about
        for kind, title in KINDS.items():
            verdict = result.audit.verdicts[kind]
            counts = [verdict.sent, verdict.acknowledged, verdict.delivered, verdict.recovered]
            counts += [verdict.announced, verdict.away, verdict.lost, verdict.twice, verdict.disordered]
            rows.append([fault, title, *(f"{count:,}" for count in counts)])
            fault = ""
    names = ["fault", "rooms", "sent", "acknowledged", "delivered", "recovered", "announced", "away"]
    return Columns("Publications", [*names, "lost in silence", "twice", "out of order"], 2, rows)


def times(results: Sequence[Result]) -> Columns:
    """Return how long everything took."""
    rows = [
        [
            result.fault.about,
            f"{result.rate:.0f}/s",
            _seconds(result.longest),
            _seconds(result.longest_wait("join")),
            _seconds(result.noticed) if result.fault.unnoticed else "",
            _seconds(result.well),
            f"{len(result.problems):,}",
            f"{result.lag:.2f} s",
        ]
        for result in results
    ]
    return Columns("Times", ["fault", "rate", "handler", "join", "noticed", "well after", "problems", "lag"], 1, rows)


def page(results: Sequence[Result], server: str) -> str:
    """Return all of it as it stands in the documentation."""
    versions = f"redis-py {version('redis')}, uvicorn {version('uvicorn')}, CPython {python_version()}"
    return "\n\n".join(
        (
            f"{datetime.now(UTC):%Y-%m-%d}, Redis {server}, {versions}.",
            publications(results).markdown(),
            times(results).markdown(),
        )
    )


def _seconds(seconds: float) -> str:
    return "never" if seconds == math.inf else f"{seconds:.1f} s"
