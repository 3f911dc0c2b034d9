"""``$join`` and ``$leave``: rooms that clients may join by themselves."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from wsrouter.errors import ConfigurationError, WebSocketError
from wsrouter.handler import WebSocketHandler, connection_of, hub_of
from wsrouter.history import Position
from wsrouter.hub import check_name
from wsrouter.kinds import Kind
from wsrouter.rules import pattern
from wsrouter.signatures import Needs
from wsrouter.tasks import in_thread

JOIN: Final = "$join"
LEAVE: Final = "$leave"

Function: TypeAlias = Callable[..., Awaitable[None]]


class Join(BaseModel):
    """The ``data`` of a ``$join``."""

    model_config = ConfigDict(extra="forbid")

    room: str
    since: str | None = None
    """``epoch:offset``, in a room with history."""


class Leave(BaseModel):
    """The ``data`` of a ``$leave``."""

    model_config = ConfigDict(extra="forbid")

    room: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What answers a type of message that a client may send in place of an ``@on`` method."""

    function: Function
    needs: Needs
    payload: type[BaseModel]


def asked(cls: type[WebSocketHandler], patterns: Sequence[str], on_join: Needs | None) -> Mapping[str, Asked]:
    """Return what answers ``$join`` and ``$leave``, by type; nothing where clients may join no room.

    Args:
        cls: the handler class.
        patterns: names of rooms; ``*`` is any text.
        on_join: what the hook of the class needs, ``None`` without one.

    Raises:
        ConfigurationError: the hook can never run, or is a generator.
    """
    owner = f"{cls.__qualname__}.on_join"
    if on_join is not None and not patterns:
        raise ConfigurationError(f"{owner} never runs: clients may join no room; list patterns in client_rooms")
    if on_join is not None and on_join.kind.yields:
        raise ConfigurationError(f"{owner}: what it yields would be sent to nobody; remove the yield")
    if not patterns:
        return {}
    rooms = [pattern(name) for name in patterns]

    def check(room: str) -> None:
        if not any(each.fullmatch(room) for each in rooms):
            raise WebSocketError("forbidden", "Clients may not join or leave this room")

    async def join(self: WebSocketHandler, request: Join, **arguments: Any) -> None:
        check(request.room)
        check_name(request.room, connection_of(self).limits)
        if request.room in self.connection.rooms:
            return
        presence: Any = None
        if on_join is not None and on_join.kind is Kind.SYNC:
            presence = await in_thread(on_join.call, self, request.room, **arguments)
        elif on_join is not None:
            presence = await on_join.call(self, request.room, **arguments)
        if not is_answer(presence):
            raise TypeError(
                f"{owner} returned {presence!r}: raise Deny to turn a client away; return what others see of it as a"
                " mapping, or None"
            )
        since = None if request.since is None else Position.parse(request.since)
        if not hub_of(self).options(request.room).presence:
            presence = None  # the hook may be for rooms of both sorts
        await self.join(request.room, since=since, presence=presence)

    async def leave(self: WebSocketHandler, request: Leave) -> None:
        check(request.room)
        await self.leave(request.room)

    nothing = Needs(leave, Kind.ASYNC, f"{cls.__qualname__}, {LEAVE}", (), ())
    needs = replace(nothing, call=join, owner=f"{cls.__qualname__}, {JOIN}") if on_join is None else on_join
    return {
        JOIN: Asked(join, replace(needs, kind=Kind.ASYNC), Join),
        LEAVE: Asked(leave, nothing, Leave),
    }


def is_answer(returned: object) -> bool:
    """Whether a hook may return it: nothing, or what others see of a member."""
    return returned is None or isinstance(returned, Mapping)


def checked_patterns(cls: type[WebSocketHandler]) -> Sequence[str]:
    """Return ``client_rooms`` of a class.

    Raises:
        ConfigurationError: it is no list of texts.
    """
    given: Any = cls.client_rooms
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigurationError(f"{cls.__qualname__}.client_rooms = {given!r}: expected a list, such as ['news:*']")
    names: list[Any] = [*given]
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{cls.__qualname__}.client_rooms: {name!r} is no name or pattern of rooms")
    return names
