"""What the application and the worker are made of; one of each for a process."""

from pathlib import Path

from dependency_injector import containers, providers
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from examples.notifications.notifier import Notifier
from examples.sqlite import create_engine
from wsrouter import Hub
from wsrouter.brokers.redis import RedisBroker


class Container(containers.DeclarativeContainer):
    """Its tables are made by whoever opens it: see `storage.open_tables`."""

    config = providers.Configuration()
    hub = providers.Dependency(instance_of=Hub)
    engine = providers.Singleton(create_engine, config.database)
    sessions = providers.Singleton(async_sessionmaker[AsyncSession], engine, expire_on_commit=False)
    notifier = providers.Singleton(Notifier, hub, sessions)


def make_container(database: str | Path, redis: str | None) -> Container:
    """Return the parts of a process.

    Args:
        database: the SQLite file.
        redis: URL of the Redis that connects processes; without one there is only this one.
    """
    container = Container(hub=Hub(RedisBroker(redis)) if redis else Hub())
    container.config.from_dict({"database": str(database)})
    return container
