"""What the handlers of the other files are given: a container, a service, a session."""

from collections.abc import AsyncGenerator

from dependency_injector import containers, providers


class RoomService:
    """Comes from the container."""

    def title(self, room: str) -> str:
        return room.title()


class Session:
    """Comes from a dependency with ``yield``."""

    async def commit(self) -> None: ...


async def get_session() -> AsyncGenerator[Session]:
    yield Session()


class Container(containers.DeclarativeContainer):
    rooms = providers.Factory(RoomService)
