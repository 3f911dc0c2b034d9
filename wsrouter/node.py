"""This process's part of a hub: who is here, the link to the broker, and what it delivers."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from secrets import token_urlsafe

from wsrouter.attendance import Attendance
from wsrouter.brokers.base import Broker, Entry, Publication, Target
from wsrouter.connection import Connection, ServerConnection
from wsrouter.delivery import Delivery
from wsrouter.errors import ConfigurationError
from wsrouter.fanout import Cork
from wsrouter.history import History, Position
from wsrouter.joining import Newcomer
from wsrouter.listing import RosterOptions
from wsrouter.members import Member, Meta, device_of
from wsrouter.recovering import Recoveries
from wsrouter.replay import caught_up, replay
from wsrouter.rules import RoomOptions
from wsrouter.subscriptions import Subscriptions
from wsrouter.tasks import check_loop


class Node:
    """The connections of this process, by id, by user and by room.

    It is what the broker tells what comes (`Receiver`).

    Args:
        broker: what connects it to other processes.
        options: finds the options of a room.
        grace: seconds that a device that was dropped stays in presence.
    """

    def __init__(self, broker: Broker, options: Callable[[str], RoomOptions], grace: float) -> None:
        self.id = token_urlsafe(9)
        self.broker = broker
        self.delivery = Delivery(options)
        self.connections = self.delivery.connections
        self.users = self.delivery.users
        self.rooms = self.delivery.rooms
        self.joining = self.delivery.joining
        self.departures = self.delivery.departures
        self.shared = self.delivery.shared
        self.attendance = Attendance(self.rooms, self.delivery.cork, broker, self.id, RosterOptions(grace=grace))
        self._options = options
        self._grace = grace
        self._names: dict[ServerConnection, str] = {}
        self._subscriptions = Subscriptions(broker, self._ended)
        self._followers = self._subscriptions.followers
        self.recoveries = Recoveries(broker, self._followers, options, self.delivery.catch_up)
        self._entered = 0
        self._started = False
        self._starting: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started_in: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Start, if nobody did yet."""
        async with self._lock():
            await self._start()
            self._entered += 1

    async def aclose(self) -> None:
        """Stop, if nobody else opened it."""
        async with self._lock():
            self._entered -= 1
            if self._entered == 0:
                self._started = False
                async with AsyncExitStack() as ends:
                    ends.push_async_callback(self.broker.aclose)
                    ends.push_async_callback(self.recoveries.aclose)
                    await self.attendance.aclose()
                self.id = token_urlsafe(9)  # who starts again is another node
                self.attendance = self.attendance.renewed(self.delivery.cork, self.id)

    def check_started(self) -> None:
        """Check that it can be used as it is.

        Raises:
            ConfigurationError: it was not started, and its broker connects processes.
        """
        if not self._started and not self.broker.local:
            raise ConfigurationError(
                f"the hub on {type(self.broker).__name__} was not started: run the application with its lifespan"
                " (--lifespan on), or write 'async with hub:' around what uses it"
            )

    async def start(self) -> None:
        """Start on first use, where no lifespan ran and the broker serves this process alone."""
        if self._started:
            return
        self.check_started()
        async with self._lock():
            await self._start()

    async def _start(self) -> None:
        if not self._started:
            await self.broker.start(self.id, self, self._grace)
            self._started, self._started_in = True, asyncio.get_running_loop()

    def check_loop(self) -> None:
        """Check that the caller runs in the event loop of the connections, and of what connects processes.

        Raises:
            RuntimeError: it does not.
        """
        if self.connections or self._names:
            check_loop(self._loop, "the connections of this hub live")
        elif self._started and not self.broker.local:
            check_loop(self._started_in, "this hub was started")

    async def publish(self, publication: Publication) -> None:
        """Hand a publication to the broker, and give the loop back where much waits to be written.

        Raises:
            RuntimeError: it is called in another event loop than that of the connections.
            ConfigurationError: the hub was not started, and its broker connects processes.
            BrokerError: other processes did not get it, or may not have.
        """
        self.check_loop()
        await self.start()
        history = self._options(publication.name).history if publication.target == "room" else None
        try:
            await self.broker.publish(publication, history)
        finally:
            if self.delivery.cork.behind:
                await asyncio.sleep(0)

    async def recognise(self, connection: ServerConnection) -> None:
        """Note whose a connection is as soon as a guard knows: it can be turned away before accept too.

        It goes by who the user is now, also where a later guard knows better.
        """
        user, known = connection.user_id, self._names.get(connection)
        if user == known:
            return
        await self.start()
        self._settle()
        if known is not None:
            del self._names[connection]
            self.users.discard(known, connection)
            await self._subscriptions.release("user", known)
        if user is not None:
            self._names[connection] = user
            self.departures.apply(connection, user)
            self.users.add(user, connection)
            try:
                await self._subscriptions.hold("user", user)
            except BaseException:
                if self._names.pop(connection, None) == user:
                    self.users.discard(user, connection)
                raise

    async def enter(self, connection: ServerConnection) -> None:
        """Take a connection up, when it was accepted."""
        await self.start()
        self._settle()
        self.connections[connection.id] = connection
        connection.shared = self.shared
        await self.recognise(connection)

    def exit(self, connection: ServerConnection) -> Sequence[tuple[Target, str]]:
        """Let go of a connection, and return the names to `release`; again, nothing happens.

        `Connection.rooms` keeps the names for ``on_disconnect``.
        """
        names: list[tuple[Target, str]] = []
        if self.connections.pop(connection.id, None) is not None:
            for room in connection.joined:
                self.rooms.discard(room, connection)
                self.attendance.exit(connection, room, left=False)
                names.append(("room", room))
        user = self._names.pop(connection, None)
        if user is not None:
            self.users.discard(user, connection)
            names.append(("user", user))
        return names

    async def release(self, names: Sequence[tuple[Target, str]]) -> None:
        """Need names no longer that a connection needed: all of them, whatever happens to one."""
        await self._subscriptions.release_all(names)

    async def join(self, connection: ServerConnection, room: str, since: Position | None, meta: Meta | None) -> None:
        """Make a connection a member of a room; nothing happens if it is closed meanwhile.

        Raises:
            WebSocketError: it is being made one already (``conflict``).
            ValueError: ``meta`` is no JSON, or too large.
            BrokerError: what connects processes did not answer; it is no member.
        """
        options = self._options(room)
        if options.presence:
            device_of(connection.user_id, meta or {})  # raises before anything has changed
        await self.start()
        with self.joining.newcomer(connection, room) as newcomer:
            prepare = partial(self.attendance.load, room) if options.presence else None
            await self._subscriptions.hold("room", room, options.history, prepare)
            try:
                if options.history is not None:
                    await self._recover(newcomer, options.history, since)
                if connection.id in self.connections and not newcomer.turned_back:
                    connection.joined |= {room}
                    self.rooms.add(room, connection)
            finally:
                if room not in connection.joined:
                    await self._subscriptions.release("room", room)
            if options.presence and room in connection.joined:
                self.attendance.enter(connection, room, meta or {})

    async def presence(self, room: str) -> list[Member]:
        """Return who is in a room, on all nodes.

        Raises:
            BrokerError: no member is here, and the broker does not answer.
            RuntimeError: it is called in another event loop than that of the connections.
        """
        self.check_loop()
        await self.start()
        return await self.attendance.members(room)

    def change(self, connection: Connection, room: str, meta: Meta) -> None:
        """Change what other members see of one."""
        if self._options(room).presence:
            self.attendance.change(connection, room, meta)

    async def leave(self, connection: Connection, room: str) -> None:
        """End a membership, or a join that is under way; see `Hub.leave`."""
        member = self.connections.get(connection.id)
        if member is not None:
            member.check_loop()
        self.joining.leave(connection, room)
        if member is not None and room in member.joined:
            member.joined -= {room}
            self.rooms.discard(room, member)
            self.attendance.exit(member, room, left=True)
            await self._subscriptions.release("room", room)

    async def _recover(self, newcomer: Newcomer, history: History, since: Position | None) -> None:
        """Send a newcomer what it missed, and what members got meanwhile."""
        recovery = await self.recoveries.of_newcomer(newcomer, history, since)
        await replay(newcomer, recovery)
        if newcomer.live and not newcomer.turned_back:
            self.delivery.cork.send(caught_up(newcomer), [newcomer.connection])

    def deliver(self, publication: Publication) -> None:
        """Take a publication to a name that is subscribed to."""
        if publication.target == "room":
            if publication.offset is None or self._is_next(publication):
                self.delivery.to_room(publication)
        elif publication.target == "user":
            self.delivery.to_user(publication)
        else:
            self.delivery.disconnect(publication)

    def _is_next(self, publication: Publication) -> bool:
        """Whether a publication with an offset is what comes next in its room; if others are missing, see to them."""
        room = publication.name
        follower = self._followers.get(room)
        if follower is None:
            return False
        if follower.take(publication):
            return True
        if follower.behind:
            self.recoveries.ask(room)
        return False

    def lost(self, names: Collection[tuple[Target, str]]) -> None:
        """Take notice that publications to these names may be missing: recover them, or tell whom it concerns."""
        self.recoveries.retry()
        untold: list[tuple[Target, str]] = []
        for target, name in names:
            follower = self._followers.get(name) if target == "room" else None
            if follower is None:
                untold.append((target, name))
            else:
                follower.lose()
                self.recoveries.ask(name)
        self.delivery.tell_of_gaps(untold)
        self.attendance.reload([name for target, name in names if target == "room"])

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        """Take entries of other nodes in a room that is subscribed to."""
        self.attendance.present(room, changed, gone)

    def departed(self, node: str) -> None:
        """Take notice that another node is gone."""
        self.attendance.departed(node)

    def restored(self) -> None:
        """Take notice that the broker answers again."""
        self.recoveries.retry()
        self.attendance.resume()

    def _ended(self, target: Target, name: str) -> None:
        if target == "room":
            self.attendance.close(name)

    def _settle(self) -> None:
        """Belong to the running event loop; what one that has ended did not write any more is forgotten."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self.delivery.cork = Cork(self.shared)
            self.attendance = self.attendance.renewed(self.delivery.cork, self.id)
            self.recoveries = Recoveries(self.broker, self._followers, self._options, self.delivery.catch_up)

    def _lock(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._starting is None or self._starting[0] is not loop:
            self._starting = loop, asyncio.Lock()
        return self._starting[1]
