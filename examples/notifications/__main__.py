"""``python -m examples.notifications``: serves the notifications until Ctrl+C."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from examples.notifications.app import create_app
from examples.notifications.worker import TAKES
from examples.serving import fail, listen, origins, run
from wsrouter import ConfigurationError

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Database = Annotated[Path, typer.Option(dir_okay=False, help="SQLite file that keeps them; made if there is none.")]
Redis = Annotated[
    str | None,
    typer.Option(
        envvar="NOTIFICATIONS_REDIS",
        help="URL of a Redis, such as redis://127.0.0.1:6379/0; the worker is then a process of its own.",
    ),
]
Origin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin by which browsers reach the page, such as https://inbox.example through a proxy; may be repeated.",
        show_default="127.0.0.1 and localhost, at the port",
    ),
]
Takes = Annotated[float, typer.Option(min=0, max=60, help="Seconds that an export takes, if the worker runs here.")]


def main(
    host: Host = "127.0.0.1",
    port: Port = 8004,
    database: Database = Path("notifications.sqlite3"),
    redis: Redis = None,
    origin: Origin = None,
    takes: Takes = TAKES,
) -> None:
    """Serve the notifications until Ctrl+C.

    Names are signed with the environment's NOTIFICATIONS_KEY (32 bytes or more), else with a new random key.
    """
    folder = database.absolute().parent
    if not folder.is_dir():
        fail(f"There is no folder {folder} for the database; make it, or choose another with --database.")
    listener = listen(host, port)
    allowed, key = origins(listener, origin or ()), os.environ.get("NOTIFICATIONS_KEY")
    try:
        app = create_app(database, redis=redis, origins=allowed, key=key, takes=takes)
    except ConfigurationError as error:
        fail(str(error))
    notes: list[str] = []
    if redis:
        command = [sys.executable, "-m", "examples.notifications.worker", "--database", str(database)]
        notes.append(f"Start a worker beside it: {shlex.join(command)} --redis {shown(redis)}")
    run(app, listener, "The notifications are at", *notes)


def shown(url: str) -> str:
    """Return an address as it may be shown: without a password."""
    return shlex.quote(re.sub(r"//[^/@]*@", "//...@", url))


if __name__ == "__main__":
    typer.run(main)
