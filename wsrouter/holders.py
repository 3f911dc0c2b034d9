"""Who has each device of a room: a connection or another node, and until when if it was dropped. Pure, synchronous."""

import secrets
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import TypeAlias

Waiting: TypeAlias = OrderedDict[str, float]
"""Mapping of ref to deadline, in order, since the time is the same for all."""


class Holders:
    """The devices of a room by ref. Each is a connection's, or was one's that was dropped, or is another node's."""

    __slots__ = ("_connections", "_refs", "dropped", "left", "missing", "nodes")

    def __init__(self) -> None:
        self._refs: dict[str, str] = {}
        self._connections: dict[str, str] = {}
        """The two mappings of connections and refs, in both directions."""
        self.nodes: dict[str, str] = {}
        """Mapping of ref to node, of the devices of other nodes."""
        self.dropped: Waiting = OrderedDict()
        """Devices of this node that were dropped."""
        self.left: Waiting = OrderedDict()
        """Those of other nodes that were."""
        self.missing: Waiting = OrderedDict()
        """Those of other nodes that the broker does not have, though nobody said that they left."""

    def ref_of(self, connection: str) -> str | None:
        """Return the ref of a connection."""
        return self._refs.get(connection)

    def connection_of(self, ref: str) -> str | None:
        """Return the connection of this node that has a ref."""
        return self._connections.get(ref)

    def is_own(self, ref: str) -> bool:
        """Whether a device is this node's."""
        return ref in self._connections or ref in self.dropped

    def is_dropped(self, ref: str) -> bool:
        """Whether a device was dropped, on any node, and may be taken over by who comes back."""
        return ref in self.dropped or ref in self.left

    def until(self, ref: str, patience: float) -> float:
        """Return when the time of a dropped device is over on its own node: earlier than here by the patience."""
        return self.dropped[ref] if ref in self.dropped else self.left[ref] - patience

    @property
    def connected(self) -> Collection[str]:
        """The refs of this node's connections."""
        return self._connections.keys()

    def connect(self, connection: str, ref: str) -> bool:
        """Give a device to a connection, in place of the one that it has; whether another node had it."""
        before = self._refs.get(connection)
        if before is not None:
            del self._connections[before]
        theirs = ref in self.nodes
        self.remove(ref)
        self._refs[connection] = ref
        self._connections[ref] = connection
        return theirs

    def disconnect(self, connection: str) -> str | None:
        """Take the device of a connection from it, and return its ref."""
        ref = self._refs.pop(connection, None)
        if ref is not None:
            del self._connections[ref]
        return ref

    def give(self, ref: str, node: str) -> None:
        """Give a device to another node, or note that it is there."""
        self._take(ref)
        self.missing.pop(ref, None)
        self.nodes[ref] = node

    def remove(self, ref: str) -> None:
        """Take a device from whoever has it."""
        self._take(ref)
        for mapping in (self.nodes, self.left, self.missing):
            mapping.pop(ref, None)

    def overdue(self, waiting: Waiting, now: float) -> Iterator[str]:
        """Yield the devices of ``dropped``, ``left`` or ``missing`` whose time is over, taken from whoever has them."""
        while waiting and waiting[ref := next(iter(waiting))] <= now:
            self.remove(ref)
            yield ref

    @property
    def next_deadline(self) -> float | None:
        """When the time of the next is over, ``None`` if there is none."""
        every = (self.dropped, self.left, self.missing)
        return min((waiting[next(iter(waiting))] for waiting in every if waiting), default=None)

    def _take(self, ref: str) -> None:
        """Take a device from this node, if it is its own."""
        connection = self._connections.pop(ref, None)
        if connection is not None:
            del self._refs[connection]
        self.dropped.pop(ref, None)


def new_ref() -> str:
    """Return a random text for a device."""
    return secrets.token_urlsafe(9)
