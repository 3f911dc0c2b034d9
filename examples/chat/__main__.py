"""``python -m examples.chat``: serves the chat until Ctrl+C."""

import os
from pathlib import Path
from typing import Annotated

import typer

from examples.chat.app import create_app
from examples.serving import EVERYWHERE, fail, listen, origins, run
from wsrouter import ConfigurationError

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in, see --origin.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Database = Annotated[
    Path, typer.Option(dir_okay=False, help="SQLite file that keeps the lines; made if there is none.")
]
Origin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin by which browsers reach the page, such as http://192.168.1.5:8000 from other machines, or"
        " https://chat.example through a proxy; may be repeated.",
        show_default="127.0.0.1 and localhost, at the port",
    ),
]


def main(
    host: Host = "127.0.0.1", port: Port = 8000, database: Database = Path("chat.sqlite3"), origin: Origin = None
) -> None:
    """Serve the chat until Ctrl+C.

    Names are signed with the environment's CHAT_KEY (32 bytes or more), else with a new random key.
    """
    folder = database.absolute().parent
    if not folder.is_dir():
        fail(f"There is no folder {folder} for the database; make it, or choose another with --database.")
    listener = listen(host, port)
    try:
        app = create_app(database, origins=origins(listener, origin or ()), key=os.environ.get("CHAT_KEY"))
    except ConfigurationError as error:
        fail(str(error))
    notes: list[str] = []
    if host in EVERYWHERE and not origin:
        notes.append("Other machines may read the page but not chat: say how they reach it, with --origin.")
    run(app, listener, "The chat is at", *notes)


if __name__ == "__main__":
    typer.run(main)
