"""A SQLite file that coroutines read and write."""

from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def create_engine(path: str) -> AsyncEngine:
    """Return an engine over the file at ``path``, which is made if there is none. Several processes may have one."""
    engine = create_async_engine(URL.create("sqlite+aiosqlite", database=path))
    event.listen(engine.sync_engine, "connect", _prepare)
    return engine


# Any: SQLAlchemy hands over the driver's own connection, which it does not type.
def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")  # readers and the one writer don't wait for each other
    cursor.execute("PRAGMA synchronous = NORMAL")  # safe with WAL, and a commit need not wait for the disk
    cursor.execute("PRAGMA busy_timeout = 5000")  # milliseconds that a second writer waits for the first
    cursor.close()
