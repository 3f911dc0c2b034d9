"""The contract of a broker: the one seam between the processes that share rooms."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from wsrouter.codecs import Frame
from wsrouter.history import History, Position, Recovery

Target: TypeAlias = Literal["room", "user"]
"""What can be subscribed to. Rooms and users are two namespaces."""


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

    only: frozenset[str] = frozenset()
    """For ``disconnect``: the connections of the user that it is about; empty for all of them."""

    age: float = 0.0
    """For ``disconnect``: seconds since it was ordered."""

    def at(self, position: Position) -> "Publication":
        """Return the publication, to a room, with its place in the stream of that."""
        return Publication(  # `replace` takes three times as long
            self.target,
            self.name,
            self.type,
            self.data,
            self.frame,
            self.key,
            self.exclude,
            exclude_users=self.exclude_users,
            epoch=position.epoch,
            offset=position.offset,
        )

    def aged(self, age: float) -> "Publication":
        """Return a ``disconnect`` as it is handed over so many seconds after it was ordered."""
        return replace(self, age=age)

    def excludes(self, connection: str, user: str | None) -> bool:
        """Whether a member does not get it, but the ``$skip`` in its place where there is an offset.

        Args:
            connection: id of the connection. One that comes back has another, so in a replay users alone decide.
            user: id of its user, ``None`` for nobody.
        """
        return connection in self.exclude or (user is not None and user in self.exclude_users)


@dataclass(frozen=True, slots=True)
class Entry:
    """A device in a room with presence, as nodes tell each other of it."""

    ref: str
    """What stands for the device with clients: random, in no room twice."""

    node: str
    """Id of the node that it is connected to, or was."""

    user: str
    """Id of its user; empty for nobody."""

    meta: bytes = b"{}"
    """What others see of it: a JSON object of at most 1 KiB."""

    dropped: bool = False
    """Its connection was dropped. It may come back within the grace, on any node: that node announces the same ref."""


class Receiver(Protocol):
    """What a broker tells the hub of its process. Plain functions: they neither block nor raise."""

    def deliver(self, publication: Publication) -> None:
        """Take a publication to a name that is subscribed to."""

    def lost(self, names: Collection[tuple[Target, str]]) -> None:
        """Take notice that publications to these names may be missing between those before and those after.

        It comes when the names are subscribed to again: what is published from now on is not missed.
        """

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        """Take entries of other nodes in a room that is subscribed to: the new and changed ones, and refs that left."""

    def departed(self, node: str) -> None:
        """Take notice that a node was not heard of for the time that entries live: all its entries are void.

        One that lives, and is heard of again, is itself told that the rooms in which it has entries were `lost`, so
        that it announces them anew.
        """

    def restored(self) -> None:
        """Take notice that the server answers again: what failed is tried at once.

        A broker that does not say so is asked again all the same, up to two seconds later.
        """


@dataclass(frozen=True, slots=True)
class Link:
    """How a broker's connection to its server is."""

    state: Literal["up", "down"]
    """Whether the server answers, as far as is known."""

    since: float = 0.0
    """Seconds that it has been so."""

    heartbeat_age: float | None = None
    """Seconds since a heartbeat came back; ``None`` if none ever did, or there are none."""

    lag: float | None = None
    """Seconds that the last heartbeat took."""

    gaps: int = 0
    """How often publications may have been lost since start."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What comes of asking for a slot."""

    held: bool
    """Whether the holder has one."""

    replaced: str | None = None
    """The holder that had to go for it."""


class Broker(ABC):
    """Carries publications, presence and history between the processes that share rooms.

    A process has one broker, and is one *node*. What the broker promises to each:

    - **Delivery** is at most once. What is published to a name that a node has subscribed to comes to it, its own
      publications included. It does not get what is published to other names.
    - **Order** is that of publishing, for each publishing node and name.
    - **A room with history** has a stream: one order for all nodes, offsets that rise by one, and an epoch that
      changes whenever offsets may have been given out twice or kept publications been lost. A publication is kept,
      gets its offset and is handed over in one atomic step. It is acknowledged when `publish` returns.
    - **A hole is told.** Where publications to a name may have been lost, `Receiver.lost` says so after the last that
      came before and before the first that comes after. In a room with history the offsets tell it as well.
    - **Nothing waits for ever.** Every method ends within the broker's deadline, and raises `BrokerError` if its
      server did not do what was asked; ``outcome_unknown`` where it may have done it. Nothing is tried twice.
    - **Names and payloads are untrusted.** A name never reaches another name's subscribers, whatever is in it. A
      payload of unknown shape is dropped with a log line.

    `wsrouter.testing.brokers` has tests of all this for any broker.
    """

    local: bool = False
    """Whether it serves this process alone, so that it may be started on first use."""

    @abstractmethod
    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        """Begin to tell ``receiver`` what comes.

        Args:
            node: id of this node, which no other has or had: letters, digits, ``-`` and ``_``, at most 32.
            receiver: who is told. Its methods are called on the event loop of this call.
            grace: seconds that an entry stays at least after its connection was dropped, unless it is withdrawn. Then
                it may be forgotten.

        Raises:
            ConfigurationError: it can't serve a second receiver.
            BrokerError: never because its server is away: then it goes on trying, and `link` says so.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Stop and release what is held; calling it again does nothing, and it can be started again.

        Entries of this node that are dropped stay for their grace, so that who moves to another node is not seen
        to leave; all others go.
        """

    @abstractmethod
    def link(self) -> Link:
        """Return how the connection to its server is."""

    @abstractmethod
    async def publish(self, publication: Publication, history: History | None = None) -> None:
        """Hand a publication to every node that subscribed to its target and name.

        A ``disconnect`` goes to those who subscribed to the user, and for a minute, with its ``age``, to those who
        subscribe later, before `subscribe` returns. Where it may have been lost it is handed over again, as soon as can
        be. One does not take the place of another, and to get one twice does no harm.

        Args:
            publication: what to hand over.
            history: for a room with history: how much of it is kept. The publication is kept, and gets its place in
                the stream of the room (`Publication.at`), in one step with being handed over. If this node has
                subscribed, it was delivered here when this returns.

        Raises:
            BrokerError: other nodes did not get it, or may not have. Without history it was delivered here all the
                same, and other nodes are told of the hole as soon as they can be.
        """

    @abstractmethod
    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        """Begin to get what is published to a room or a user; called once before the first member.

        When it returns, nothing that is published from then on is missed, and what is kept of a ``disconnect`` was
        delivered, oldest first. A room with history keeps its stream while any node is subscribed.

        Raises:
            BrokerError: it is not subscribed.
        """

    @abstractmethod
    async def unsubscribe(self, target: Target, name: str) -> None:
        """Cease to get it; called once after the last member left, or `subscribe` raised. It does not raise."""

    @abstractmethod
    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        """Return what is missed by who stands at ``since``: everything up to now, or nothing.

        Called after `subscribe` returned, so that what is not in it is delivered. Who missed more than 300
        publications gets nothing.

        Raises:
            BrokerError: it is not known.
        """

    @abstractmethod
    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        """Make entries of this node known to all who subscribed to a room, or change them.

        An entry lives until it is withdrawn, or as long as its node: a node that is killed is found `Receiver.departed`
        after the broker's ``ttl``. A dropped one can be taken over by any node, under the same ref.

        Returns:
            Refs that were not taken: another node has a device under it that is not dropped.

        Raises:
            BrokerError: it is not done.
        """

    @abstractmethod
    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        """Make known that entries left.

        Refs of other nodes are passed over, unless they are dropped: whoever finds first that their grace is over
        withdraws them.

        Raises:
            BrokerError: it is not done.
        """

    @abstractmethod
    async def entries(self, room: str) -> Sequence[Entry]:
        """Return the entries of a room, on all nodes that are there.

        Raises:
            BrokerError: they are not known.
        """

    @abstractmethod
    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        """Take one of so many slots of a name, on all nodes together; a holder that has one keeps it.

        A slot is held until it is released, or as long as its node lives.

        Args:
            name: of the slots.
            holder: id of who takes it.
            most: slots that there are.
            replace: take that of the oldest holder if none is free.

        Raises:
            BrokerError: it is not known whether there was one; none is held. One that was given all the same is given
                back as soon as the server can be reached.
        """

    @abstractmethod
    async def release(self, name: str, holder: str) -> None:
        """Give a slot back, now or as soon as the server can be reached; nothing happens if it is not held.

        It does not raise.
        """
