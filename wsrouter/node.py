"""This process's part of a hub: who is here, the link to the broker, and what it delivers."""

import asyncio
from collections.abc import Callable
from typing import Literal

from wsrouter.brokers.base import Broker, Publication
from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError
from wsrouter.fanout import Cork
from wsrouter.rooms import Rooms
from wsrouter.rules import RoomOptions
from wsrouter.runs import Prepared
from wsrouter.writer import Tally


class Node:
    """The connections of this process, by id, by user and by room.

    Args:
        broker: what connects it to other processes.
        options: finds the options of a room.
    """

    def __init__(self, broker: Broker, options: Callable[[str], RoomOptions]) -> None:
        self.connections: dict[str, Connection] = {}
        """Those that were accepted, by id."""
        self.users: Rooms[Connection] = Rooms()
        self.rooms: Rooms[Connection] = Rooms()
        self.cork = Cork()
        self.tally = Tally()
        self.published = 0
        self.delivered = 0
        self._broker = broker
        self._options = options
        self._names: dict[Connection, str] = {}
        self._entered = 0
        self._started = False
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Start, if nobody did yet."""
        async with self._lock():
            if not self._started:
                await self._broker.start(self._deliver)
                self._started = True
            self._entered += 1

    async def aclose(self) -> None:
        """Stop, if nobody else opened it."""
        async with self._lock():
            self._entered -= 1
            if self._entered == 0:
                self._started = False
                self._starting = None
                await self._broker.aclose()

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

    async def start(self) -> None:
        """Start on first use, where no lifespan ran and the broker serves this process alone."""
        if self._started:
            return
        self.check_started()
        async with self._lock():
            if not self._started:
                await self._broker.start(self._deliver)
                self._started = True

    async def publish(self, publication: Publication) -> None:
        """Hand a publication to the broker, and give the loop back where much waits to be written.

        Raises:
            RuntimeError: it is called in another event loop than that of the connections.
            ConfigurationError: the hub was not started, and its broker connects processes.
        """
        if (self.connections or self._names) and self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "the connections of this hub live in another event loop: from a thread call it with"
                " anyio.from_thread.run or asyncio.run_coroutine_threadsafe"
            )
        await self.start()
        await self._broker.publish(publication)
        if self.cork.behind:
            await asyncio.sleep(0)

    async def recognise(self, connection: Connection) -> None:
        """Note whose a connection is as soon as a guard knows: it can be turned away before accept too.

        It goes by who the user is now, also where a later guard knows better.
        """
        user, known = connection.user_id, self._names.get(connection)
        if user == known:
            return
        await self.start()
        self._loop = asyncio.get_running_loop()
        if known is not None:
            del self._names[connection]
            if self.users.discard(known, connection):
                await self._broker.unsubscribe("user", known)
        if user is not None:
            self._names[connection] = user
            if self.users.add(user, connection):
                await self._broker.subscribe("user", user)

    async def enter(self, connection: Connection) -> None:
        """Take a connection up, when it was accepted."""
        await self.start()
        self._loop = asyncio.get_running_loop()
        self.connections[connection.id] = connection
        connection.tally = self.tally
        await self.recognise(connection)

    def knows(self, connection: Connection) -> bool:
        """Whether it was taken up or recognised, and not let go since."""
        return connection.id in self.connections or connection in self._names

    async def exit(self, connection: Connection) -> None:
        """Let go of a connection; `Connection.rooms` keeps the names for ``on_disconnect``."""
        self.connections.pop(connection.id, None)
        emptied: list[tuple[Literal["room", "user"], str]] = [
            ("room", room) for room in connection.joined if self.rooms.discard(room, connection)
        ]
        user = self._names.pop(connection, None)
        if user is not None and self.users.discard(user, connection):
            emptied.append(("user", user))
        for target, name in emptied:
            await self._broker.unsubscribe(target, name)

    async def join(self, connection: Connection, room: str) -> None:
        """Make a connection a member of a room."""
        connection.joined |= {room}
        if self.rooms.add(room, connection):
            await self._broker.subscribe("room", room)

    async def leave(self, connection: Connection, room: str) -> None:
        """End a membership."""
        connection.joined -= {room}
        if self.rooms.discard(room, connection):
            await self._broker.unsubscribe("room", room)

    def _deliver(self, publication: Publication) -> None:
        self.published += 1
        if publication.target == "disconnect":
            for connection in self.users.members(publication.name):
                connection.turn_away(publication.code, publication.type)
        elif publication.target == "user":
            self._deliver_to_user(publication)
        else:
            self._deliver_to_room(publication)

    def _deliver_to_user(self, publication: Publication) -> None:
        user = self.users.get(publication.name)
        if user is None:
            return
        others = {each for each in user.members if each.raw or each.id not in self.connections}
        prepared = Prepared(publication.type, publication.data)
        self.delivered += self.cork.publish(user, prepared, "disconnect", excluded=others)

    def _deliver_to_room(self, publication: Publication) -> None:
        room = self.rooms.get(publication.name)
        if room is None:
            return
        options = self._options(publication.name)
        prepared = Prepared(
            publication.type,
            publication.data,
            publication.name,
            frame=publication.frame,
            key=None if publication.key is None else (publication.type, publication.key),
        )
        excluded = {each for id in publication.exclude if (each := self.connections.get(id)) is not None}
        self.delivered += self.cork.publish(
            room, prepared, options.overflow, compress=options.compress, excluded=excluded
        )

    def _lock(self) -> asyncio.Lock:
        if self._starting is None:
            self._starting = asyncio.Lock()
        return self._starting
