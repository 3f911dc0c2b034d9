"""Short benchmarks against plain FastAPI, side by side in one run: ``make bench``.

Rates are per second of the server's CPU. In each round every contender is measured once, on a fresh server, and
only what was measured within a round is compared: the median over the rounds is printed, with the lowest and the
highest. A ratio above 1 means that wsrouter is the better one.
"""

import asyncio
import os
import resource
import signal
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import INFINITE, Figure, Figures, Scale
from tests.benchmarks.servers import Contender, Running, cores, serve
from tests.benchmarks.suite import BENCHMARKS, Benchmark, Workload


async def limited(workload: Workload, server: Running, path: str, scale: Scale) -> Figures:
    """Run a workload, for a minute more than its load takes at most."""
    async with asyncio.timeout(60 + 15 * scale.seconds):
        return await workload(server, path, scale)


def measure(benchmark: Benchmark, rounds: int, scale: Scale, console: Console) -> dict[Contender, list[Figures]]:
    """Measure every contender in every round, in turns from first to last and from last to first."""
    contenders = benchmark.contenders()
    measured: dict[Contender, list[Figures]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            what = f"{benchmark.name} {number + 1}/{rounds}, {contender.name}"
            with console.status(f"{what} ..."), serve(contender.app, contender.ws) as server:
                figures = uvloop.run(limited(benchmark.workload, server, contender.path, scale))
            measured[contender].append(figures)
            values = ", ".join(f"{figure.name} {figure.show(value)}" for figure, value in figures.items())
            console.print(f"{what}: {values}", soft_wrap=True)
    return measured


def new_table(title: str) -> Table:
    """Return a table of results that has none yet."""
    table = Table(title=title, caption=f"{INFINITE}: not within the time of the benchmark")
    for name in "benchmark", "figure":
        table.add_column(name)
    for name in "wsrouter", "the other", "compared", "lowest to highest", "target":
        table.add_column(name, justify="right")
    return table


def report(table: Table, benchmark: Benchmark, measured: dict[Contender, list[Figures]]) -> None:
    """Add what came of a benchmark to the table of results."""
    for pair in benchmark.comparisons:
        ours, theirs = measured[pair.ours], measured[pair.theirs]
        title = f"{benchmark.name}: {pair.ours.name} / {pair.theirs.name}"
        for figure in ours[0]:
            compared = [figure.compared(mine[figure], other[figure]) for mine, other in zip(ours, theirs, strict=True)]
            table.add_row(
                title,
                figure.name,
                figure.show(median(ours, figure)),
                figure.show(median(theirs, figure)),
                figure.show_compared(statistics.median(compared)),
                f"{figure.show_compared(min(compared))} to {figure.show_compared(max(compared))}",
                pair.targets.get(figure, ""),
            )
            title = ""
        table.add_section()


def median(measured: Sequence[Figures], figure: Figure) -> float:
    """Return the median over the rounds."""
    return statistics.median(figures[figure] for figures in measured)


def chosen(only: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of which the name contains one of these; all where none is given.

    Raises:
        typer.BadParameter: one of them is in no name.
    """
    for part in only:
        if not any(part in benchmark.name for benchmark in BENCHMARKS):
            names = "; ".join(benchmark.name for benchmark in BENCHMARKS)
            raise typer.BadParameter(f"no benchmark has {part!r} in its name: {names}", param_hint="--only")
    return [each for each in BENCHMARKS if not only or any(part in each.name for part in only)]


HELP = f"""
Compare wsrouter with plain FastAPI, side by side on this machine.

wsrouter runs with its own protocol class, and again (portable) with the one that uvicorn takes by itself. Plain
FastAPI is what one writes by hand. Rates are per second of the server's CPU; a ratio above 1 means that wsrouter is
the better one. All of it takes about two minutes a round; leave the machine alone meanwhile.

{"".join(f"- {benchmark.name}: {benchmark.about}{chr(10)}" for benchmark in BENCHMARKS)}
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(help=HELP)
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each benchmark.")] = 5,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds of load for each contender; a stall takes ten times that.")
    ] = 1.0,
    members: Annotated[
        int, typer.Option(min=1, help="Members of the room of fan-out and burst; memory takes twice as many.")
    ] = 500,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only benchmarks with this in their name; may be given again."),
    ] = None,
) -> None:
    """Measure, and print as a table what came of it."""
    benchmarks = chosen(only or [])
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # or a server would go on
    os.sched_setaffinity(0, {cores()[1]})
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    scale = Scale(seconds, members)
    results = new_table(f"Medians of {rounds} rounds, {members} members, {seconds:g} s")
    for benchmark in benchmarks:
        report(results, benchmark, measure(benchmark, rounds, scale, console))
    console.print(results)


if __name__ == "__main__":
    app()
