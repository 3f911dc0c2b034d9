"""The chat itself: one instance for each connection."""

from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide
from fastapi import Depends, Path
from sqlalchemy.ext.asyncio import AsyncSession

from examples.chat.container import Container, get_session
from examples.chat.messages import Earlier, Here, IsTyping, Lines, People, Said, Say, Typing
from examples.chat.roster import Roster
from examples.chat.storage import Line, newest, store
from wsrouter import CloseInfo, WebSocketHandler, on
from wsrouter.auth import Principal

Session = Annotated[AsyncSession, Depends(get_session)]
"""A database session that lives for one call, not for the hours of a connection."""


@dataclass
class Chat(WebSocketHandler):
    """A person in a room, on one of their devices."""

    room: Annotated[str, Path(max_length=60)]
    roster: Annotated[Roster, Provide[Container.roster]]

    @property
    def name(self) -> str:
        """The name that the person signed in with; nothing that the client sends on the socket can change it."""
        user: Principal = self.user
        return user.id

    async def on_connect(self, session: Session) -> Lines:
        # Joined before the lines are read: what is said meanwhile comes twice, and the page drops the second.
        await self.join(self.room)
        devices = self.roster.arrive(self.room, self.name, self.connection.id)
        await self.broadcast(self.room, Here(name=self.name, devices=devices), exclude=[self.connection.id])
        await self.send(People(you=self.name, people=self.roster.people(self.room)))
        return _lines(*await newest(session, self.room))

    @on
    async def say(self, message: Say, session: Session) -> None:
        line, is_new = await store(session, room=self.room, key=message.key, name=self.name, text=message.text)
        if is_new:
            await self.broadcast(self.room, _said(line))
        else:
            await self.send(_said(line))

    @on
    async def typing(self, message: Typing) -> None:
        await self.broadcast(self.room, IsTyping(name=self.name), exclude=[self.connection.id])

    @on
    async def history(self, message: Earlier, session: Session) -> Lines:
        return _lines(*await newest(session, self.room, before=message.before))

    async def on_disconnect(self, close: CloseInfo) -> None:
        devices = self.roster.depart(self.room, self.name, self.connection.id)
        await self.broadcast(self.room, Here(name=self.name, devices=devices))


def _said(line: Line) -> Said:
    return Said.model_validate(line, from_attributes=True)


def _lines(lines: list[Line], more: bool) -> Lines:
    return Lines(lines=[_said(line) for line in lines], more=more)
