"""Nodes without a hub: a broker, and what it tells."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, Protocol

from wsrouter.brokers.base import Entry, Publication, Target
from wsrouter.brokers.redis import RedisBroker

_numbers: Final = count(1)


class NodeOf:
    """A broker, and all that it told, in order."""

    def __init__(self, broker: RedisBroker, id: str) -> None:
        self.broker = broker
        self.id = id
        self.told: list[Any] = []
        self.losses: list[set[tuple[Target, str]]] = []
        self.restorations = 0

    def deliver(self, publication: Publication) -> None:
        self.told.append(publication)

    def lost(self, names: Collection[tuple[Target, str]]) -> None:
        self.losses.append(set(names))
        self.told.append(("lost", self.losses[-1]))

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        self.told.append(("present", room, list(changed), list(gone)))

    def departed(self, node: str) -> None:
        self.told.append(("departed", node))

    def restored(self) -> None:
        self.restorations += 1

    @property
    def delivered(self) -> list[Publication]:
        """The publications that were delivered."""
        return [each for each in self.told if isinstance(each, Publication)]

    @property
    def data(self) -> list[bytes]:
        """Their data."""
        return [each.data for each in self.delivered]

    @property
    def up(self) -> bool:
        """Whether the link is up."""
        return self.broker.link().state == "up"

    def has_lost(self, target: Target, name: str) -> bool:
        """Whether it was told that publications to a name may be missing."""
        return any((target, name) in names for names in self.losses)


class HasUrl(Protocol):
    """A server, or what stands before it."""

    @property
    def url(self) -> str: ...


class Open(Protocol):
    """Opens a node."""

    async def __call__(self, server: HasUrl, **options: Any) -> NodeOf: ...


@asynccontextmanager
async def open_node(url: str, *, grace: float = 15.0, **options: Any) -> AsyncGenerator[NodeOf]:
    """Open a node on a server, with options of `RedisBroker`."""
    node = NodeOf(RedisBroker(url, **options), f"node-{next(_numbers)}")
    await node.broker.start(node.id, node, grace)
    try:
        yield node
    finally:
        await node.broker.aclose()


def message(name: str, data: bytes, **options: Any) -> Publication:
    """Return a publication to a room."""
    return Publication("room", name, "said", data, **options)
