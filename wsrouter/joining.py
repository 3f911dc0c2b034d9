"""Connections on their way into rooms, and what is published meanwhile. Synchronous."""

from collections.abc import Generator
from contextlib import contextmanager

from wsrouter.brokers.base import Publication
from wsrouter.connection import Connection
from wsrouter.errors import WebSocketError


class Newcomer:
    """A connection on its way into one room.

    What is published to a room with history meanwhile waits for it, bounded as an outbox is: a client that has more
    before it than ``Limits.outbox_frames`` or ``outbox_bytes`` is given up (4508).
    """

    __slots__ = ("_bytes", "connection", "left", "live", "room")

    def __init__(self, connection: Connection, room: str) -> None:
        self.connection = connection
        self.room = room
        self.left = False
        """Whether it was told to leave again."""
        self.live: list[Publication] = []
        self._bytes = 0

    @property
    def turned_back(self) -> bool:
        """Whether it will not become a member: it has left, or its connection is closed."""
        return self.left or self.connection.closed is not None

    def take(self, publication: Publication) -> None:
        """Keep a publication for it."""
        if self.turned_back:
            return
        limits = self.connection.limits
        self.live.append(publication)
        self._bytes += len(publication.data)
        if len(self.live) > limits.outbox_frames or self._bytes > limits.outbox_bytes:
            self.live.clear()
            self.connection.too_slow()


class Joining:
    """All newcomers of this process."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[Connection, Newcomer]] = {}
        self._counts: dict[Connection, int] = {}

    @contextmanager
    def newcomer(self, connection: Connection, room: str) -> Generator[Newcomer]:
        """Make a connection a newcomer until the block is left.

        Raises:
            WebSocketError: it is one in this room already (``conflict``).
        """
        newcomers = self._rooms.setdefault(room, {})
        if connection in newcomers:
            raise WebSocketError("conflict", "This room is being joined")
        newcomer = newcomers[connection] = Newcomer(connection, room)
        self._counts[connection] = self.rooms(connection) + 1
        try:
            yield newcomer
        finally:
            del newcomers[connection]
            if not newcomers:
                del self._rooms[room]
            self._counts[connection] -= 1
            if not self._counts[connection]:
                del self._counts[connection]

    def take(self, publication: Publication) -> None:
        """Keep a publication that has an offset for those who are on their way into its room."""
        for newcomer in self._rooms.get(publication.name, {}).values():
            newcomer.take(publication)

    def leave(self, connection: Connection, room: str) -> None:
        """Have a connection turn back, if it is on its way into a room."""
        newcomer = self._rooms.get(room, {}).get(connection)
        if newcomer is not None:
            newcomer.left = True

    def members(self, room: str) -> int:
        """Return how many are on their way into a room."""
        return len(self._rooms.get(room, ()))

    def rooms(self, connection: Connection) -> int:
        """Return into how many rooms a connection is on its way."""
        return self._counts.get(connection, 0)
