"""The lines of all rooms, in a SQLite file."""

import time
from collections.abc import AsyncIterator

from sqlalchemy import Index, UniqueConstraint, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.sqlite import create_engine

PAGE = 50
"""Lines that are read at a time."""


class Table(DeclarativeBase):
    pass


class Line(Table):
    """One line of a room; ``key`` is what makes sending it again harmless."""

    __tablename__ = "lines"
    __table_args__ = (UniqueConstraint("room", "key"), Index("lines_of_room", "room", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str]
    key: Mapped[str]
    name: Mapped[str]
    text: Mapped[str]
    at: Mapped[int]


async def open_engine(path: str) -> AsyncIterator[AsyncEngine]:
    """Yield an engine over the file at ``path``, with its tables made, and dispose of it afterwards."""
    engine = create_engine(path)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Table.metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


async def store(session: AsyncSession, *, room: str, key: str, name: str, text: str) -> tuple[Line, bool]:
    """Store a line and commit.

    Returns:
        The line, and whether it is new. A line whose ``key`` the room has already is left as it is and returned.
    """
    added = await session.scalar(
        insert(Line)
        .values(room=room, key=key, name=name, text=text, at=time.time_ns() // 1_000_000)
        .on_conflict_do_nothing()
        .returning(Line)
    )
    await session.commit()
    if added is not None:
        return added, True
    found = await session.scalars(select(Line).where(Line.room == room, Line.key == key))
    return found.one(), False


async def newest(session: AsyncSession, room: str, *, before: int | None = None) -> tuple[list[Line], bool]:
    """Read the newest fifty lines of a room, or the newest fifty whose ``id`` is less than ``before``.

    Returns:
        The lines, oldest first, and whether there are older ones.
    """
    query = select(Line).where(Line.room == room).order_by(Line.id.desc()).limit(PAGE + 1)
    if before is not None:
        query = query.where(Line.id < before)
    found = list(await session.scalars(query))
    return found[:PAGE][::-1], len(found) > PAGE
