"""``python -m examples.notifications.worker``: makes the exports that users asked for, until Ctrl+C.

A process of its own, without a server: it has a hub on the same Redis, and so it reaches every device. Where there is
no Redis the application runs `work` itself.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from examples.notifications import storage
from examples.notifications.container import Container, make_container

GLANCE = 0.2
"""Seconds between two looks for something to do."""
TAKES = 3.0
"""Seconds that an export takes."""

Redis = Annotated[str, typer.Option(envvar="NOTIFICATIONS_REDIS", help="URL of the Redis that the servers use.")]
Database = Annotated[Path, typer.Option(dir_okay=False, help="SQLite file that the servers use.")]
Takes = Annotated[float, typer.Option(min=0, max=60, help="Seconds that an export takes.")]


async def work(container: Container, takes: float = TAKES) -> None:
    """Make one export after the other, until cancelled.

    An export is marked as done after its user was told: if the process is killed in between, it is made again, and the
    notification, which has the same key, is stored once.

    Args:
        container: what the process is made of.
        takes: seconds that an export takes.
    """
    notifier, sessions = container.notifier(), container.sessions()
    while True:
        async with sessions() as session:
            export = await storage.next_export(session)
        if export is None:
            await asyncio.sleep(GLANCE)
            continue
        await asyncio.sleep(takes)  # the work
        await notifier.notify(export.user, "Your export is ready.", key=f"export {export.id}")
        async with sessions() as session:
            await storage.finish_export(session, export.id)


async def run(redis: str, database: Path, takes: float) -> None:
    """Work until cancelled."""
    container = make_container(database, redis)
    async with storage.open_tables(container.engine()), container.hub():
        await work(container, takes)


def main(redis: Redis, database: Database = Path("notifications.sqlite3"), takes: Takes = TAKES) -> None:
    """Make exports until Ctrl+C."""
    logging.basicConfig(level="INFO", format="worker: %(message)s")
    print("The worker waits for something to do (Ctrl+C stops it).", flush=True)
    with suppress(KeyboardInterrupt):
        asyncio.run(run(redis, database, takes))


if __name__ == "__main__":
    typer.run(main)
