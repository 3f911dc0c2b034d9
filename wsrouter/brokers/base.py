"""The contract of a broker: the one seam between the processes that share rooms."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from wsrouter.codecs import Frame
from wsrouter.history import History, Position, Recovery


@dataclass(frozen=True, slots=True)
class Publication:
    """What crosses the broker: a message to a room or to a user, or the order to disconnect a user."""

    target: Literal["room", "user", "disconnect"]
    """What ``name`` is the name of; ``disconnect`` closes every connection of the user ``name``."""

    name: str
    """Name of the room, or id of the user."""

    type: str = ""
    """Type of the message; for ``disconnect`` the close reason."""

    data: bytes = b""
    """Payload of the message, as JSON."""

    frame: Frame | None = None
    """In a raw room: the frame as it goes out, in place of ``type`` and ``data``."""

    key: str | None = None
    """What the message is the newest value of, for rooms that keep the ``latest``."""

    exclude: frozenset[str] = frozenset()
    """Ids of the connections that do not get it."""

    code: int = 1000
    """For ``disconnect``: the close code."""

    exclude_users: frozenset[str] = frozenset()
    """Ids of the users whose connections do not get it."""

    epoch: str | None = None
    """In a room with history, once the broker has taken it: the stream that ``offset`` counts in."""

    offset: int | None = None
    """In a room with history: its place in the stream, from 1, without a gap."""

    def at(self, position: Position) -> "Publication":
        """Return the publication with its place in the stream of its room."""
        return replace(self, epoch=position.epoch, offset=position.offset)

    def excludes(self, connection: str, user: str | None) -> bool:
        """Whether a member does not get it, but the ``$skip`` in its place where there is an offset.

        Args:
            connection: id of the connection. One that comes back has another, so in a replay users alone decide.
            user: id of its user, ``None`` for nobody.
        """
        return connection in self.exclude or (user is not None and user in self.exclude_users)


Deliver: TypeAlias = Callable[[Publication], None]


class Broker(ABC):
    """Carries publications between the processes that share rooms.

    Delivery is at most once, and in order per publishing process and name. A process gets what is published
    to the names that it has subscribed to when the broker takes it, its own publications included.
    """

    local: bool = False
    """Whether it serves this process alone, so that it may be started on first use."""

    @abstractmethod
    async def start(self, deliver: Deliver) -> None:
        """Begin to hand publications to ``deliver``, a plain function that does not block or raise."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop delivering and release what is held; calling it again does nothing."""

    @abstractmethod
    async def publish(self, publication: Publication, history: History | None = None) -> None:
        """Hand a publication to every process that subscribed to its target and name.

        Args:
            publication: what to hand over.
            history: for a room with history: how much of it is kept. The publication is kept, and gets its place in
                the stream of the room (`Publication.at`), in one step with being handed over.
        """

    @abstractmethod
    async def subscribe(self, target: str, name: str, history: History | None = None) -> None:
        """Begin to get what is published to a room or a user; called once before the first member.

        When it returns, nothing that is published from then on is missed. A room with history keeps its stream while
        any process is subscribed.
        """

    @abstractmethod
    async def unsubscribe(self, target: str, name: str) -> None:
        """Cease to get it; called once after the last member left."""

    @abstractmethod
    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        """Return what a client missed that stands at ``since``: everything up to now, or nothing.

        Called after `subscribe` returned, so that what is not in it is delivered.
        """
