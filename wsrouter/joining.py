"""Connections on their way into rooms, and what is published meanwhile."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from wsrouter.brokers.base import Publication
from wsrouter.connection import Connection, ServerConnection
from wsrouter.errors import WebSocketError
from wsrouter.history import Position


class Newcomer:
    """A connection on its way into one room.

    What the members of a room with history get meanwhile waits for it, bounded as an outbox is
    (``Limits.outbox_frames`` and ``outbox_bytes``). While the broker is asked what it missed, more than that is let go
    of, so that the broker has to be asked once more. Beside that answer, while it is sent, a client that has more
    before it is given up (4508).
    """

    __slots__ = ("_bytes", "_changed", "_stands", "connection", "left", "live", "room")

    def __init__(self, connection: ServerConnection, room: str) -> None:
        self.connection = connection
        self.room = room
        self.left = False
        """Whether it was told to leave again."""
        self.live: list[Publication | Position] = []
        """What members got: publications, and where they stand when they were told of a hole."""
        self._bytes = 0
        self._changed: asyncio.Event | None = None
        self._stands = False

    @property
    def turned_back(self) -> bool:
        """Whether it will not become a member: it has left, or its connection is closed."""
        return self.left or self.connection.closed is not None

    def take(self, got: Publication | Position) -> None:
        """Keep what members get, for it."""
        if self.turned_back:
            return
        limits = self.connection.limits
        self.live.append(got)
        if isinstance(got, Publication):
            self._bytes += len(got.data)
        if self._changed is not None:
            self._changed.set()
        if len(self.live) > limits.outbox_frames or self._bytes > limits.outbox_bytes:
            self.live.clear()
            self._bytes = 0
            if self._stands:
                self.connection.too_slow()

    async def more(self) -> None:
        """Wait until members get something, or it turns back."""
        self._changed = asyncio.Event()
        await self._changed.wait()

    def leave(self) -> None:
        """Have it turn back."""
        self.left = True
        if self._changed is not None:
            self._changed.set()

    def stand(self, position: Position, members: Position) -> bool:
        """Let it stand at a position, with what members got from there on; false if it has not all of that.

        Args:
            position: where it stands.
            members: where they stand.
        """
        live = [each for each in self.live if isinstance(each, Publication) and _is_after(each, position)]
        if members != Position(position.epoch, position.offset + len(live)):
            return False
        self._stands = True
        self.live[:] = live
        self._bytes = sum(len(each.data) for each in live)
        return True


def _is_after(publication: Publication, position: Position) -> bool:
    return publication.epoch == position.epoch and (publication.offset or 0) > position.offset


class Joining:
    """All newcomers of this process."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[Connection, Newcomer]] = {}
        self._counts: dict[Connection, int] = {}

    @contextmanager
    def newcomer(self, connection: ServerConnection, room: str) -> Generator[Newcomer]:
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

    def take(self, room: str, got: Publication | Position) -> None:
        """Keep what members of a room with history get for those who are on their way into it."""
        newcomers = self._rooms.get(room)
        if newcomers is not None:
            for newcomer in newcomers.values():
                newcomer.take(got)

    def leave(self, connection: Connection, room: str) -> None:
        """Have a connection turn back, if it is on its way into a room."""
        newcomer = self._rooms.get(room, {}).get(connection)
        if newcomer is not None:
            newcomer.leave()

    def members(self, room: str) -> int:
        """Return how many are on their way into a room."""
        return len(self._rooms.get(room, ()))

    def rooms(self, connection: Connection) -> int:
        """Return into how many rooms a connection is on its way."""
        return self._counts.get(connection, 0)
