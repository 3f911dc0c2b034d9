"""Rooms with history and presence, and rooms that clients join."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_type

from dependency_injector.wiring import Provide
from fastapi import Depends

from tests.typing.services import Container, RoomService, Session, get_session
from wsrouter import (
    Connection,
    Deny,
    History,
    Hub,
    HubStats,
    Member,
    Message,
    Position,
    RoomOptions,
    WebSocketHandler,
    WebSocketRouter,
    on,
)

hub = Hub(
    rooms={
        "chat:*": RoomOptions(history=History(size=10, ttl=60), presence=True, max_members=1000),
        "price:*": RoomOptions(overflow="latest", compress=True),
        "old:*": RoomOptions(history=History(ttl=60.5)),
    }
)
router = WebSocketRouter(hub=hub, container=Container(), direct=False)


class Price(Message, key="symbol"):
    symbol: str
    value: float


class Status(Message):
    status: str


@router.handler("/chat/{room}")
class Chat(WebSocketHandler):
    """Reads its position from the handshake, and may be joined by its client."""

    client_rooms = ["chat:*", "news"]

    def __init__(self, room: str, since: Position | None = None) -> None:
        self.room = f"chat:{room}"
        self.since = since

    async def on_connect(self, newest: Position | None) -> None:
        await self.join(self.room, since=self.since or newest, presence={"status": "here", "since": 1})

    async def on_join(
        self,
        room: str,
        rooms: Annotated[RoomService, Provide[Container.rooms]],
        session: Annotated[Session, Depends(get_session)],
        connection: Connection,
    ) -> dict[str, str]:
        if connection.user_id is None:
            raise Deny(403)
        await session.commit()
        return {"title": rooms.title(room)}

    @on
    async def change(self, message: Status) -> None:
        await self.join(self.room, presence=message.model_dump())
        await self.broadcast(self.room, message, exclude_users=[self.user.id])


@router.handler("/plain")
class Plain(WebSocketHandler):
    """Decides in a plain function, and tells nothing of its client."""

    client_rooms = ("news",)

    def on_join(self, room: str) -> None: ...


@router.handler("/fields")
@dataclass
class Fields(WebSocketHandler):
    """Has its position as a field."""

    since: Position | None = None


async def options(chat: Chat, connection: Connection) -> None:
    assert_type(await hub.join(connection, "news", since=Position("epoch", 1), presence={"a": [1]}), None)
    assert_type(await hub.leave(connection, "news"), None)
    assert_type(await hub.broadcast("price:a", Price(symbol="a", value=1), exclude_users="ann"), None)
    assert_type(hub.options("news"), RoomOptions)
    assert_type(hub.options("news").overflow, Literal["disconnect", "drop_new", "drop_old", "latest"])
    assert_type(hub.options("news").history, History | None)
    assert_type(hub.options("news").max_members, int | None)
    assert_type(chat.since, Position | None)
    assert_type(connection.pending_bytes, int)


async def results(stats: HubStats, text: str) -> None:
    assert_type(await hub.presence("chat:1"), list[Member])
    for member in await hub.presence("chat:1"):
        assert_type(member.user, str)
        assert_type(member.devices, Mapping[str, Mapping[str, object]])
    assert_type((stats.dropped, stats.superseded, stats.slow), tuple[int, int, int])
    position = Position.parse(text)
    assert_type(position, Position)
    assert_type((position.epoch, position.offset, str(position)), tuple[str, int, str])


def forwarded(**given: Any) -> RoomOptions:
    return RoomOptions(**given)
