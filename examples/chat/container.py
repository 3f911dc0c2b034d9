"""What the application is made of, and how long each part lives."""

from collections.abc import AsyncIterator
from typing import Annotated

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from examples.chat.roster import Roster
from examples.chat.storage import open_engine


class Container(containers.DeclarativeContainer):
    """One for each application. The engine is opened and disposed of with the application."""

    config = providers.Configuration(default={"database": "chat.sqlite3"})
    roster = providers.Singleton(Roster)
    engine = providers.Resource(open_engine, config.database)
    sessions = providers.Singleton(async_sessionmaker[AsyncSession], engine, expire_on_commit=False)


async def get_session(
    sessions: Annotated[async_sessionmaker[AsyncSession], Provide[Container.sessions]],
) -> AsyncIterator[AsyncSession]:
    """Yield a database session for one call: a message, or ``on_connect``."""
    async with sessions() as session:
        yield session
