"""The notifications of all users, and the exports that they asked for, in a SQLite file."""

import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Index, UniqueConstraint, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    pass


class Notification(Table):
    """Something that a user should know; ``key`` is what makes storing it again harmless."""

    __tablename__ = "notifications"
    __table_args__ = (UniqueConstraint("user", "key"), Index("notifications_of_user", "user", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    key: Mapped[str]
    sender: Mapped[str]
    text: Mapped[str]
    at: Mapped[int]
    read: Mapped[bool] = mapped_column(default=False)


class Export(Table):
    """Work for the worker."""

    __tablename__ = "exports"
    __table_args__ = (UniqueConstraint("user", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    key: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)


@asynccontextmanager
async def open_tables(engine: AsyncEngine) -> AsyncGenerator[None]:
    """Make the tables that are not there, and dispose of the engine after the block."""
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Table.metadata.create_all)
        yield
    finally:
        await engine.dispose()


async def store(session: AsyncSession, *, user: str, key: str, sender: str, text: str) -> Notification:
    """Store a notification and commit. One whose ``key`` the user has already is left as it is, and returned."""
    await session.execute(
        insert(Notification)
        .values(user=user, key=key, sender=sender, text=text, at=time.time_ns() // 1_000_000, read=False)
        .on_conflict_do_nothing()
    )
    await session.commit()
    found = await session.scalars(select(Notification).where(Notification.user == user, Notification.key == key))
    return found.one()


async def newest(session: AsyncSession, user: str, most: int) -> Sequence[Notification]:
    """Return the newest notifications of a user, newest first."""
    query = select(Notification).where(Notification.user == user).order_by(Notification.id.desc()).limit(most)
    return (await session.scalars(query)).all()


async def mark_read(session: AsyncSession, user: str, ids: Collection[int]) -> None:
    """Mark notifications as read and commit. Those of others are left alone."""
    await session.execute(
        update(Notification).where(Notification.user == user, Notification.id.in_(ids)).values(read=True)
    )
    await session.commit()


async def order_export(session: AsyncSession, user: str, key: str) -> None:
    """Store that a user wants an export and commit; once for each ``key``."""
    await session.execute(insert(Export).values(user=user, key=key, done=False).on_conflict_do_nothing())
    await session.commit()


async def next_export(session: AsyncSession) -> Export | None:
    """Return the oldest export that is not done."""
    return await session.scalar(select(Export).where(Export.done.is_(False)).order_by(Export.id).limit(1))


async def finish_export(session: AsyncSession, id: int) -> None:
    """Mark an export as done and commit."""
    await session.execute(update(Export).where(Export.id == id).values(done=True))
    await session.commit()
