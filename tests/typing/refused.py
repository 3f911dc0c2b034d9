"""Mistakes that both checkers find: each line that they refuse says so, and an ignore without an error is one.

Nothing here is run.
"""

from typing import Annotated, assert_type

from fastapi import Depends

from tests.typing.services import Session, get_session
from wsrouter import Connection, Deny, History, Hub, Limits, Message, RoomOptions, WebSocketHandler, WebSocketRouter, on
from wsrouter.guards import AllowOrigins, ConnectionLimit, RequireScopes
from wsrouter.rates import RateLimit
from wsrouter.testing import TestConnection

router = WebSocketRouter()


class Say(Message):
    text: str


class Said(Message, type="chat.said"):
    user: str
    text: str


@router.handler("/chat/{room}")
class Chat(WebSocketHandler):
    def __init__(self, room: str) -> None:
        self.room = room

    @on
    async def say(self, message: Say, session: Annotated[Session, Depends(get_session)]) -> Said:
        return Said(user=self.room, text=message.text)


class Override(Chat):
    """An override takes what its base takes."""

    async def say(self, message: Said) -> Said:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return message


async def methods(chat: Chat, session: Session) -> None:
    """`on` returns the method that it was given, so its parameters and its result are checked."""
    assert_type(await chat.say(Say(text="hi"), session), Say)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    await chat.say(Said(user="ann", text="hi"), session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await chat.say(Say(text="hi"))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def classes(chat: Chat) -> None:
    """`handler` returns the class that it was given, so its constructor is checked."""
    Chat()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Chat("lobby", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    chat.user = "ann"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def connections(connection: Connection) -> None:
    """A connection is for reading, sending and closing; what only sessions do with it does not show."""
    connection.rooms = frozenset({"lobby"})  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    connection.start_close(4000, "")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


@router.handler("/number")  # pyright: ignore[reportArgumentType, reportUntypedClassDecorator]
class NoHandler: ...  # type: ignore[type-var]


@router.exception_handler("KeyError")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def missing(exc: KeyError) -> None: ...


def configuration() -> None:
    """Options are keywords of a known type."""
    WebSocketRouter("/ws")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    WebSocketRouter(reject="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WebSocketRouter(hub="redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limits(1024)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Limits(message_size="64 KiB")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Deny(401, 4401)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def rooms(hub: Hub, connection: Connection) -> None:
    """How rooms behave is a keyword of a known value; a position is no text."""
    RoomOptions(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RoomOptions(overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RoomOptions(history=100)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Hub(rooms={"news": History()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    await hub.join(connection, "news", since="epoch:1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await hub.join(connection, "news", presence="away")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def messages(hub: Hub, ws: TestConnection) -> None:
    """What is sent is a message, and what comes back is the one that was expected."""
    Said(user="ann", text=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Said(user="ann", text="hi", to="bob")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await hub.broadcast("news", {"text": "hi"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await hub.send_to_user("ann", "hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ws.send("hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ws.receive(dict)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(await ws.receive(Said), Say)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    assert_type(await ws.call(Say(text="hi"), expect=Said), Say)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    async with hub as entered:
        assert_type(entered, Connection)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]


def guards() -> None:
    """Options of the ready guards are checked."""
    ConnectionLimit(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ConnectionLimit(total=5, on_full="replace")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AllowOrigins(["https://app.example"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RequireScopes(["chat:write"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimit(messages=20)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimit(messages="20/second", per="room")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WebSocketRouter(middleware=["20/second"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
