"""Handlers as users write them: every hook and method takes what it likes, and none needs an ignore."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

from dependency_injector.wiring import Provide
from fastapi import Depends

from tests.typing.services import Container, RoomService, Session, get_session
from wsrouter import (
    CloseInfo,
    Connection,
    ConnectionScoped,
    Envelope,
    Limits,
    Message,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.guards import AllowOrigins

router = WebSocketRouter(container=Container())


class Say(Message):
    text: str


class Said(Message, type="chat.said"):
    user: str
    text: str


@router.handler("/chat/{room}")
class Chat(WebSocketHandler):
    """Hooks with parameters that the base class does not have."""

    guards = [AllowOrigins("https://app.example")]
    limits = Limits(message_size=1024)
    max_in_flight = 4
    cancel_on_disconnect = True

    def __init__(self, room: str, rooms: Annotated[RoomService, Provide[Container.rooms]]) -> None:
        self.room = room
        self.title = rooms.title(room)

    async def on_connect(self, session: Annotated[Session, Depends(get_session)]) -> Said:
        await session.commit()
        await self.join(self.room)
        return Said(user="system", text=self.title)

    @on
    async def say(self, message: Say, session: Annotated[Session, Depends(get_session)]) -> None:
        await session.commit()
        await self.broadcast(self.room, Said(user=self.user.id, text=message.text), exclude=self.connection.id)

    @on("sum")
    async def total(self, numbers: list[int]) -> int:
        return sum(numbers)

    async def on_message(self, message: Envelope) -> str:
        return message.type

    async def on_disconnect(self, close: CloseInfo, connection: Connection) -> None:
        assert_type(close.code, int)
        assert_type(connection.rooms, frozenset[str])


@router.handler("/plain/{room}")
class Plain(WebSocketHandler):
    """Plain functions, and dependencies given as defaults."""

    def __init__(self, room: str, rooms: RoomService = Provide[Container.rooms]) -> None:
        self.title = rooms.title(room)

    def on_connect(self, session: Session = ConnectionScoped(get_session)) -> None: ...

    @on
    def say(self, message: Say, session: Session = Depends(get_session)) -> Said:
        return Said(user=self.title, text=message.text)

    def on_disconnect(self) -> None: ...


@router.handler("/stream")
class Stream(WebSocketHandler):
    """Generators where a hook or a method may be one."""

    async def on_connect(self, session: Annotated[Session, ConnectionScoped(get_session)]) -> AsyncGenerator[Said]:
        await session.commit()
        yield Said(user="system", text="hello")

    @on
    async def say(self, message: Say) -> AsyncGenerator[str]:
        for word in message.text.split():
            yield word


@router.handler("/raw")
class Raw(WebSocketHandler):
    """Owns its protocol."""

    async def on_message(self, frame: bytes, connection: Connection) -> bytes:
        await self.send(frame)
        return frame


@router.handler("/fields/{room}")
@dataclass
class Fields(WebSocketHandler):
    """Its constructor is made by `dataclass`."""

    room: str
    rooms: Annotated[RoomService, Provide[Container.rooms]]
    limit: int = 10

    async def on_connect(self) -> None:
        await self.join(self.rooms.title(self.room))


@router.handler("/frozen/{room}")
@dataclass(frozen=True)
class Frozen(WebSocketHandler):
    """A frozen dataclass."""

    room: str


class Greeting:
    """A mixin that knows nothing of handlers."""

    greeting = "hello"

    @on("greet")
    async def greet(self, name: str) -> str:
        return f"{self.greeting}, {name}"


class Counting(WebSocketHandler):
    """A mixin that is a handler, with hooks of its own."""

    count = 0

    async def on_connect(self, **given: Any) -> None:
        self.count += 1

    @on
    async def say(self, message: Say) -> Said | None:
        self.count += 1
        return None


@router.handler("/polite")
class Polite(Greeting, Counting):
    """Overrides a method of a mixin; its registration stays."""

    greeting = "good evening"

    async def say(self, message: Say, session: Annotated[Session | None, Depends(get_session)] = None) -> Said:
        await super().say(message)
        return Said(user=self.greeting, text=message.text)


class Quiet(Chat):
    """Overrides hooks and methods of a handler, with fewer results and with parameters of its own."""

    async def on_disconnect(self, close: CloseInfo, connection: Connection, note: str = "") -> None:
        await super().on_disconnect(close, connection)

    @on
    async def say(
        self,
        message: Say,
        session: Annotated[Session, Depends(get_session)],
        shout: bool = False,
    ) -> None:
        await super().say(message, session)


router.add_handler("/quiet/{room}", Quiet)


def constructors(rooms: RoomService) -> None:
    """The decorators return the class that they were given, its constructor included."""
    assert_type(Chat("lobby", rooms), Chat)
    assert_type(Chat("lobby", rooms).title, str)
    assert_type(Fields("lobby", rooms).limit, int)
    assert_type(Fields(room="lobby", rooms=rooms, limit=1), Fields)
    assert_type(Frozen("lobby").room, str)
    assert_type(Polite(), Polite)


async def methods(chat: Chat, plain: Plain, polite: Polite, session: Session) -> None:
    """`on` returns the method that it was given."""
    assert_type(await chat.say(Say(text="hi"), session), None)
    assert_type(await chat.total([1, 2]), int)
    assert_type(plain.say(Say(text="hi")), Said)
    assert_type(await polite.say(Say(text="hi")), Said)
    assert_type(await polite.greet("you"), str)
    assert_type(await chat.on_connect(session), Said)
    assert_type(chat.connection, Connection)
    assert_type(await chat.send(Say(text="hi")), None)
