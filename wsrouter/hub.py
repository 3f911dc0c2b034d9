"""Who is here: rooms and users, and what is sent to them from anywhere."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from wsrouter.brokers.base import Broker, Publication
from wsrouter.brokers.memory import MemoryBroker
from wsrouter.codecs import Frame, dump
from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError, WebSocketError, is_close_code
from wsrouter.fanout import Cork
from wsrouter.frames import checked
from wsrouter.messages import Message, key_of
from wsrouter.rooms import Rooms
from wsrouter.rules import RoomOptions, Rules
from wsrouter.runs import Prepared
from wsrouter.writer import Tally


@dataclass(frozen=True, slots=True)
class HubStats:
    """Counts of this process."""

    connections: int
    rooms: int
    users: int
    published: int
    """Publications that reached this process since it started."""

    delivered: int
    """Frames handed to connections since it started: one per publication and member."""

    dropped: int = 0
    """Publications dropped since then because a member's outbox was full; each was announced by a ``$gap``."""

    superseded: int = 0
    """Publications that a newer one replaced while they waited (``overflow="latest"``)."""

    slow: int = 0
    """Connections closed with 4508 since then because they did not read."""


class Hub:
    """Rooms, users and broadcast, from handlers, HTTP routes and any other coroutine.

    It starts and stops with the application whose routers use it. A worker or a script that only sends
    writes ``async with Hub(broker) as hub``. Give one object to all who shall share rooms.

    Args:
        broker: what connects processes; by default a `MemoryBroker`, for one process.
        rooms: mapping of a pattern of room names (``*`` is any text) to its `RoomOptions`; the first that
            matches rules.
    """

    def __init__(self, broker: Broker | None = None, *, rooms: Mapping[str, RoomOptions] | None = None) -> None:
        self._broker = MemoryBroker() if broker is None else broker
        self._rules = Rules(rooms or {})
        self._cork = Cork()
        self._tally = Tally()
        self._connections: dict[str, Connection] = {}
        self._users: Rooms[Connection] = Rooms()
        self._rooms: Rooms[Connection] = Rooms()
        self._names: dict[Connection, str] = {}
        self._entered = 0
        self._started = False
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._published = 0
        self._delivered = 0

    async def __aenter__(self) -> Self:
        """Start, if nobody did yet."""
        async with self._lock():
            if not self._started:
                await self._broker.start(self._deliver)
                self._started = True
            self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, if nobody else uses it."""
        async with self._lock():
            self._entered -= 1
            if self._entered == 0:
                self._started = False
                self._starting = None
                await self._broker.aclose()

    @property
    def connections(self) -> Mapping[str, Connection]:
        """Mapping of id to connection, of this process."""
        return dict(self._connections)

    @property
    def rooms(self) -> Mapping[str, int]:
        """Mapping of room name to member count, of this process."""
        return dict(self._rooms.counts())

    def stats(self) -> HubStats:
        """Counts of this process."""
        return HubStats(
            connections=len(self._connections),
            rooms=len(self._rooms),
            users=len(self._users),
            published=self._published,
            delivered=self._delivered,
            dropped=self._tally.dropped,
            superseded=self._tally.superseded,
            slow=self._tally.slow,
        )

    def options(self, room: str) -> RoomOptions:
        """Return the options of a room."""
        return self._rules.of(room)

    async def broadcast(self, room: str, message: Message | Frame, *, exclude: str | Iterable[str] = ()) -> None:
        """Send a message to every member of a room.

        It never waits for a client: what happens to a member whose outbox is full is up to
        ``RoomOptions.overflow``, and the others get the message. Delivery is at most once, in order per process
        and room. What is published within one iteration of the event loop is written together.

        Args:
            room: its name; nothing happens if nobody is there.
            message: a `Message`; in a raw room ``str`` or ``bytes``.
            exclude: ids of connections that do not get it (``self.connection.id``).

        Raises:
            TypeError: the message is not of the sort that the room speaks.
            RuntimeError: it is called in another event loop than that of the connections.
            ValueError: a text with a lone surrogate.
            ConfigurationError: the hub was not started, and its broker connects processes.
        """
        excluded = frozenset((exclude,) if isinstance(exclude, str) else exclude)
        await self._publish(self._publication(room, message, excluded))
        if self._cork.behind:
            await asyncio.sleep(0)

    async def send_to_user(self, user: str, message: Message) -> None:
        """Send a message to every connection of a user: every device.

        Args:
            user: id of the user (``str(user.id)``); nothing happens if they are not here.
            message: a `Message`. Connections of raw handlers do not get it.
        """
        await self._publish(Publication("user", user, message.__message_type__, dump(message)))
        if self._cork.behind:
            await asyncio.sleep(0)

    async def disconnect_user(self, user: str, *, code: int = 4403, reason: str = "") -> None:
        """Close every connection of a user. Messages of theirs that wait are not handled any more.

        A handshake of theirs that is not through yet is denied.

        Args:
            user: id of the user (``str(user.id)``).
            code: close code.
            reason: text for the client, cut to 123 bytes of UTF-8.

        Raises:
            ValueError: an endpoint may not send that code.
        """
        if not is_close_code(code):
            raise ValueError(f"disconnect_user(code={code}): no endpoint may send that close code; use 3000 to 4999")
        await self._publish(Publication("disconnect", user, reason, code=code))

    async def join(self, connection: Connection, room: str) -> None:
        """Make a connection a member of a room; nothing happens if it is one, or is closed.

        Raises:
            WebSocketError: the name is empty or too long (``invalid``), the connection is in as many rooms as it may
                be, or the room has as many members (``conflict``).
            ConfigurationError: a raw handler in a room that speaks the envelope, or the other way round.
        """
        limits = connection.limits
        if room in connection.joined or connection.closed is not None:
            return
        if not room or len(room.encode(errors="replace")) > limits.name_bytes:
            raise WebSocketError("invalid", f"The name of a room has 1 to {limits.name_bytes} bytes")
        if len(connection.joined) >= limits.rooms:
            raise WebSocketError("conflict", f"No more than {limits.rooms} rooms for one connection")
        options = self.options(room)
        if options.raw is not connection.raw:
            sort, cure = ("raw", "RoomOptions(raw=True)") if connection.raw else ("not raw", "another room")
            raise ConfigurationError(f"the handler of {connection!r} is {sort}, the room {room!r} is not: use {cure}")
        here = self._rooms.get(room)
        if here is not None and options.max_members is not None and len(here.members) >= options.max_members:
            raise WebSocketError("conflict", f"No more than {options.max_members} members in this room")
        await self._start()
        connection.joined |= {room}
        if self._rooms.add(room, connection):
            await self._broker.subscribe("room", room)

    async def leave(self, connection: Connection, room: str) -> None:
        """End a membership; nothing happens if there is none."""
        if room in connection.joined:
            connection.joined -= {room}
            if self._rooms.discard(room, connection):
                await self._broker.unsubscribe("room", room)

    async def recognise(self, connection: Connection) -> None:
        """Note whose a connection is as soon as a guard knows: `disconnect_user` turns it away before accept too.

        It goes by who the user is now, also where a later guard knows better.
        """
        user, known = connection.user_id, self._names.get(connection)
        if user == known:
            return
        await self._start()
        self._loop = asyncio.get_running_loop()
        if known is not None:
            del self._names[connection]
            if self._users.discard(known, connection):
                await self._broker.unsubscribe("user", known)
        if user is not None:
            self._names[connection] = user
            if self._users.add(user, connection):
                await self._broker.subscribe("user", user)

    async def enter(self, connection: Connection) -> None:
        """Take a connection up, when it was accepted."""
        await self._start()
        self._loop = asyncio.get_running_loop()
        self._connections[connection.id] = connection
        connection.tally = self._tally
        await self.recognise(connection)

    def knows(self, connection: Connection) -> bool:
        """Whether it was taken up or recognised, and not let go since."""
        return connection.id in self._connections or connection in self._names

    async def exit(self, connection: Connection) -> None:
        """Let go of a connection; `Connection.rooms` keeps the names for ``on_disconnect``."""
        self._connections.pop(connection.id, None)
        emptied = [("room", room) for room in connection.joined if self._rooms.discard(room, connection)]
        user = self._names.pop(connection, None)
        if user is not None and self._users.discard(user, connection):
            emptied.append(("user", user))
        for target, name in emptied:
            await self._broker.unsubscribe(target, name)

    def _publication(self, room: str, message: object, excluded: frozenset[str]) -> Publication:
        raw = self.options(room).raw
        if raw and isinstance(message, str | bytes):
            return Publication("room", room, frame=checked(message), exclude=excluded)
        if not raw and isinstance(message, Message):
            return Publication(
                "room", room, message.__message_type__, dump(message), key=key_of(message), exclude=excluded
            )
        name = type(message).__name__
        if raw:
            raise TypeError(f"the room {room!r} is raw: broadcast str or bytes to it, not {name}")
        raise TypeError(
            f"the room {room!r} speaks the envelope: broadcast a Message to it, not {name}"
            " (str and bytes need RoomOptions(raw=True))"
        )

    async def _publish(self, publication: Publication) -> None:
        if (self._connections or self._names) and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "the connections of this hub live in another event loop: from a thread call it with"
                " anyio.from_thread.run or asyncio.run_coroutine_threadsafe"
            )
        await self._start()
        await self._broker.publish(publication)

    def check_started(self) -> None:
        """Check that it can be used as it is.

        Raises:
            ConfigurationError: it was not started, and its broker connects processes.
        """
        if not self._started and not self._broker.local:
            raise ConfigurationError(
                f"the hub on {type(self._broker).__name__} was not started: run the application with its lifespan"
                " (--lifespan on), or write 'async with hub:' around what uses it"
            )

    async def _start(self) -> None:
        if self._started:
            return
        self.check_started()
        async with self._lock():
            if not self._started:
                await self._broker.start(self._deliver)
                self._started = True

    def _lock(self) -> asyncio.Lock:
        if self._starting is None:
            self._starting = asyncio.Lock()
        return self._starting

    def _deliver(self, publication: Publication) -> None:
        self._published += 1
        if publication.target == "disconnect":
            for connection in self._users.members(publication.name):
                connection.turn_away(publication.code, publication.type)
            return
        of_user = publication.target == "user"
        room = (self._users if of_user else self._rooms).get(publication.name)
        if room is None:
            return
        if of_user:
            prepared = Prepared(publication.type, publication.data)
            excluded = [each for each in room.members if each.raw or each.id not in self._connections]
            self._delivered += self._cork.publish(room, prepared, "disconnect", excluded=excluded)
            return
        options = self._rules.of(publication.name)
        prepared = Prepared(
            publication.type,
            publication.data,
            publication.name,
            frame=publication.frame,
            key=None if publication.key is None else (publication.type, publication.key),
        )
        out = [each for id in publication.exclude if (each := self._connections.get(id)) in room.members]
        self._delivered += self._cork.publish(room, prepared, options.overflow, compress=options.compress, excluded=out)
