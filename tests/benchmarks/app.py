"""What the side-by-side benchmark serves: echo, echo with a dependency, and a room with a publisher."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from wsrouter import Hub, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.brokers import Broker, MemoryBroker

ROOM = "room"


class Echo(Message):
    id: int
    text: str


class Publish(Message):
    id: int
    text: str


class Note(Message):
    id: int
    text: str


class Ping(Message):
    pass


async def get_prefix() -> str:
    return ""


def broker() -> Broker:
    """Return what ``WSB_REDIS`` asks for: several processes through that Redis, else one."""
    url = os.environ.get("WSB_REDIS")
    if url is None:
        return MemoryBroker()
    from wsrouter.brokers.redis import RedisBroker

    return RedisBroker(url)


router = WebSocketRouter(hub=Hub(broker()))


@router.handler("/echo")
class EchoHandler(WebSocketHandler):
    @on
    async def echo(self, message: Echo) -> Echo:
        return message

    @on
    async def ping(self, message: Ping) -> None:
        pass

    @on
    async def note(self, message: Note) -> None:
        pass


@router.handler("/echo-dep")
class EchoDependencyHandler(WebSocketHandler):
    @on
    async def echo(self, message: Echo, prefix: Annotated[str, Depends(get_prefix)]) -> Echo:
        return message

    @on
    async def ping(self, message: Ping) -> None:
        pass

    @on
    async def note(self, message: Note) -> None:
        pass


@router.handler("/room")
class RoomHandler(WebSocketHandler):
    async def on_connect(self) -> None:
        await self.join(ROOM)


@router.handler("/rooms/{number}")
class NumberedRoomHandler(WebSocketHandler):
    def __init__(self, number: int) -> None:
        self.number = number

    async def on_connect(self) -> None:
        await self.join(f"room {self.number}")


@router.handler("/pub")
class PublishHandler(WebSocketHandler):
    @on
    async def publish(self, message: Publish) -> None:
        await self.broadcast(ROOM, Note(id=message.id, text=message.text))


app = FastAPI()
app.include_router(router)
