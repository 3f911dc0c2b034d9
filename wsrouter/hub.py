"""Who is here: rooms and users, and what is sent to them from anywhere."""

from collections.abc import Iterable, Mapping
from math import inf
from types import TracebackType
from typing import Self, cast

from wsrouter.brokers.base import Broker, Publication
from wsrouter.brokers.memory import MemoryBroker
from wsrouter.codecs import Frame, dump
from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError, WebSocketError, is_close_code
from wsrouter.frames import checked
from wsrouter.history import Position
from wsrouter.limits import Limits
from wsrouter.listing import DEFAULTS
from wsrouter.members import Member
from wsrouter.messages import Message, key_of
from wsrouter.node import Node
from wsrouter.rules import RoomOptions, Rules
from wsrouter.stats import HubHealth, HubStats


class Hub:
    """Rooms, users and broadcast, from handlers, HTTP routes and any other coroutine.

    It starts and stops with the application whose routers use it. A worker or a script that only sends
    writes ``async with Hub(broker) as hub``. Give one object to all who shall share rooms.

    Args:
        broker: what connects processes; by default a `MemoryBroker`, for one process.
        rooms: mapping of a pattern of room names (``*`` is any text) to its `RoomOptions`; the first that
            matches rules.
        presence_grace: seconds that a member whose connection was dropped stays in presence, for its user to come
            back, to any process; 15 by default. All processes need the same.

    Raises:
        ConfigurationError: the broker is none, ``rooms`` has other things in it, or ``presence_grace`` is below 0.
    """

    def __init__(
        self,
        broker: Broker | None = None,
        *,
        rooms: Mapping[str, RoomOptions] | None = None,
        presence_grace: float = DEFAULTS.grace,
    ) -> None:
        given = cast(object, broker)
        if given is not None and not isinstance(given, Broker):
            raise ConfigurationError(f"Hub({given!r}): expected a broker, such as MemoryBroker()")
        grace = cast(object, presence_grace)
        if not isinstance(grace, int | float) or not 0 <= grace < inf:
            raise ConfigurationError(f"Hub(presence_grace={grace!r}): expected seconds, from 0 up")
        self._rules = Rules(rooms or {})
        self.node = Node(MemoryBroker() if broker is None else broker, self._rules.of, grace)
        """What sessions use of it; not for applications."""

    async def __aenter__(self) -> Self:
        """Start, if nobody did yet."""
        await self.node.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, if nobody else uses it."""
        await self.node.aclose()

    @property
    def connections(self) -> Mapping[str, Connection]:
        """Mapping of id to connection, of this process."""
        return dict(self.node.connections)

    @property
    def rooms(self) -> Mapping[str, int]:
        """Mapping of room name to member count, of this process."""
        return self.node.rooms.counts()

    def stats(self) -> HubStats:
        """Counts of this process."""
        node = self.node
        return HubStats(
            connections=len(node.connections),
            rooms=len(node.rooms),
            users=len(node.users),
            published=node.delivery.published,
            delivered=node.delivery.delivered,
            dropped=node.shared.dropped,
            superseded=node.shared.superseded,
            slow=node.shared.slow,
        )

    def health(self) -> HubHealth:
        """How the link to other processes is, and what was lost on it."""
        node = self.node
        link = node.broker.link()
        return HubHealth(
            state=link.state,
            since=link.since,
            heartbeat_age=link.heartbeat_age,
            lag=link.lag,
            connections=len(node.connections),
            rooms=len(node.rooms),
            gaps=link.gaps,
            recovering=len(node.recoveries),
            recovered=node.recoveries.recovered,
            announced=node.delivery.announced,
        )

    def options(self, room: str) -> RoomOptions:
        """Return the options of a room."""
        return self._rules.of(room)

    async def broadcast(
        self,
        room: str,
        message: Message | Frame,
        *,
        exclude: str | Iterable[str] = (),
        exclude_users: str | Iterable[str] = (),
    ) -> None:
        """Send a message to every member of a room.

        It never waits for a client: what happens to a member whose outbox is full is up to
        ``RoomOptions.overflow``, and the others get the message. Delivery is at most once, in order per process
        and room. What is published within one iteration of the event loop is written together.

        Args:
            room: its name; nothing happens if nobody is there.
            message: a `Message`; in a raw room ``str`` or ``bytes``.
            exclude: ids of connections that do not get it (``self.connection.id``).
            exclude_users: ids of users who do not get it, on none of their connections. In a room with history that
                holds for a replay as well; who is excluded gets a ``$skip`` with the offset.

        Raises:
            TypeError: the message is not of the sort that the room speaks, or an id is no text.
            RuntimeError: it is called in another event loop than that of the connections.
            ValueError: a text with a lone surrogate.
            ConfigurationError: the hub was not started, and its broker connects processes.
            BrokerError: other processes did not get it, or may not have (``outcome_unknown``). Members of this one did,
                if the room has no history; others are told of the hole.
        """
        await self.node.publish(self._publication(room, message, names(exclude), names(exclude_users)))

    async def send_to_user(self, user: str, message: Message) -> None:
        """Send a message to every connection of a user: every device.

        Args:
            user: id of the user (``str(user.id)``); nothing happens if they are not here.
            message: a `Message`. Connections of raw handlers do not get it.

        Raises:
            TypeError: the id is no text, or the message no `Message`.
            BrokerError: connections to other processes did not get it, or may not have.
            RuntimeError: it is called in another event loop than that of the hub.
        """
        if not isinstance(cast(object, message), Message):
            raise TypeError(f"send a Message to a user, not {type(message).__name__}")
        await self.node.publish(Publication("user", checked_id(user), message.__message_type__, dump(message)))

    async def disconnect_user(self, user: str, *, code: int = 4403, reason: str = "") -> None:
        """Close every connection of a user. Messages of theirs that wait are not handled any more.

        A handshake of theirs that is not through yet is denied, also where only a later guard finds out whose it is.

        Args:
            user: id of the user (``str(user.id)``).
            code: close code.
            reason: text for the client, cut to 123 bytes of UTF-8.

        Raises:
            TypeError: the id is no text.
            ValueError: an endpoint may not send that code, or the reason has a lone surrogate.
            BrokerError: connections to other processes were not closed, or may not have been. Those to this one were.
            RuntimeError: it is called in another event loop than that of the hub.
        """
        self.node.check_loop()
        if not is_close_code(code):
            raise ValueError(f"disconnect_user(code={code}): no endpoint may send that close code; use 3000 to 4999")
        reason.encode()
        self.node.departures.note(checked_id(user), code, reason)
        await self.node.publish(Publication("disconnect", user, reason, code=code))

    async def presence(self, room: str) -> list[Member]:
        """Return who is in a room with ``RoomOptions(presence=True)``, on all processes, whatever its size.

        Those that were dropped and may come back are among them.

        Raises:
            BrokerError: the room has no member on this process, and the broker does not answer.
            ConfigurationError: the room has no presence; or the hub was not started, and its broker connects processes.
            RuntimeError: it is called in another event loop than that of the hub.
        """
        self._check_presence(room, f"presence({room!r})")
        return await self.node.presence(room)

    async def join(
        self,
        connection: Connection,
        room: str,
        *,
        since: Position | None = None,
        presence: Mapping[str, object] | None = None,
    ) -> None:
        """Make a connection a member of a room; nothing happens if it is one, or is closed.

        In a room with history it returns when the client was sent what it missed.

        Args:
            connection: who joins.
            room: its name.
            since: in a room with history: how far the client has read it. It gets exactly what it missed, or is told
                that it can't (``$joined`` with ``recovered`` false). In other rooms it says nothing, and no ``$joined``
                comes: a position is what a client has sent, and must not be able to fail a join.
            presence: what others see of it beside its user, at most 1 KiB of JSON; joining again with other changes it.

        Raises:
            WebSocketError: the name is empty or too long (``invalid``), the connection is in as many rooms as it may
                be, or the room has as many members (``conflict``).
            ConfigurationError: a raw handler in a room that speaks the envelope, or the other way round; ``presence``
                for a room that has none.
            RuntimeError: the connection is not accepted yet, is of another hub, or lives in another event loop.
            ValueError: ``presence`` is no JSON, or too large.
            BrokerError: what connects processes did not answer; it is no member.
        """
        if connection.closed is not None:
            return
        if presence is not None:
            self._check_presence(room, f"join({room!r}, presence=...)")
        known = self.node.connections.get(connection.id)
        if known is None:
            raise RuntimeError("A connection joins rooms of the hub of its router, once it is accepted: in on_connect")
        known.check_loop()
        if room in known.joined:
            if presence is not None:
                self.node.change(known, room, presence)
            return
        limits = known.limits
        check_name(room, limits)
        if len(known.joined) + self.node.joining.rooms(known) >= limits.rooms:
            raise WebSocketError("conflict", f"No more than {limits.rooms} rooms for one connection")
        options = self.options(room)
        if options.raw is not known.raw:
            sorts = "raw, the room {!r} is not" if known.raw else "not raw, the room {!r} is"
            cure = "RoomOptions(raw=True)" if known.raw else "another room"
            raise ConfigurationError(f"the handler of {connection!r} is {sorts.format(room)}: use {cure}")
        here = self.node.rooms.get(room)
        members = (0 if here is None else len(here.members)) + self.node.joining.members(room)
        if options.max_members is not None and members >= options.max_members:
            raise WebSocketError("conflict", f"No more than {options.max_members} members in this room")
        await self.node.join(known, room, since, presence)

    async def leave(self, connection: Connection, room: str) -> None:
        """End a membership, or a join that is under way; nothing happens if there is none.

        Raises:
            RuntimeError: the connection lives in another event loop.
        """
        await self.node.leave(connection, room)

    def _check_presence(self, room: str, call: str) -> None:
        if not self.options(room).presence:
            raise ConfigurationError(
                f"{call}: the room has no presence, so nobody is told who is there; give the hub a pattern that it"
                " matches, as in Hub(rooms={'desk:*': RoomOptions(presence=True)})"
            )

    def _publication(self, room: str, message: object, exclude: frozenset[str], users: frozenset[str]) -> Publication:
        raw = self.options(room).raw
        if raw and isinstance(message, str | bytes):
            return Publication("room", room, frame=checked(message), exclude=exclude, exclude_users=users)
        if not raw and isinstance(message, Message):
            return Publication(
                "room",
                room,
                message.__message_type__,
                dump(message),
                key=key_of(message),
                exclude=exclude,
                exclude_users=users,
            )
        name = type(message).__name__
        if raw:
            raise TypeError(f"the room {room!r} is raw: broadcast str or bytes to it, not {name}")
        raise TypeError(
            f"the room {room!r} speaks the envelope: broadcast a Message to it, not {name}"
            " (str and bytes need RoomOptions(raw=True))"
        )


def names(given: str | Iterable[str]) -> frozenset[str]:
    """Return one id, or several, as a set."""
    several = not isinstance(given, str) and isinstance(cast(object, given), Iterable)
    return frozenset(map(checked_id, given if several else (cast(str, given),)))


def checked_id(given: str) -> str:
    """Return the id of a user or of a connection.

    Raises:
        TypeError: it is no text, so that it would be nobody's, and who is meant be passed over.
    """
    id = cast(object, given)
    if not isinstance(id, str):
        raise TypeError(f"{id!r} is no id: those of users are texts, str(user.id), and so is connection.id")
    return id


def check_name(room: str, limits: Limits) -> None:
    """Check that a room may have this name.

    Raises:
        WebSocketError: it is empty, too long, or has no UTF-8, so that no frame could tell it (``invalid``).
    """
    try:
        size = len(room.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= limits.name_bytes:
        raise WebSocketError("invalid", f"The name of a room has 1 to {limits.name_bytes} bytes")
