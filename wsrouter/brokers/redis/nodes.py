"""Which nodes are there. Pure and synchronous."""

from collections.abc import Mapping
from typing import Final

SETTLED_AFTER: Final = 5
"""Heartbeats after which every node has told of itself, where Redis has forgotten them or was away."""


class Nodes:
    """The nodes that were heard of, by the heartbeats that Redis notes.

    That a node is not in its list says little: Redis may have been emptied, or away so long that nobody could tell.
    What counts is when it was heard of last, and that others had the time to tell.

    Args:
        own: id of this node.
        ttl: seconds after which a node that is not heard of is gone.
        heartbeat: seconds between two heartbeats.
    """

    def __init__(self, own: str, ttl: float, heartbeat: float) -> None:
        self._own = own
        self._ttl = ttl
        self._settling = min(ttl, heartbeat * SETTLED_AFTER)
        self._heartbeat = heartbeat
        self._seen: dict[str, float] = {}
        self._asked_at: float | None = None
        self._settled_at = 0.0

    def heard(self, ages: Mapping[str, float], now: float, *, forgotten: bool) -> list[str]:
        """Take the list, and return the nodes that are gone.

        Args:
            ages: mapping of node to seconds since its heartbeat.
            now: seconds, of a clock that does not go back.
            forgotten: whether this node was not in it, though it should have been.
        """
        if forgotten or self._asked_at is None or now - self._asked_at > 3 * self._heartbeat:
            self._settled_at = now + self._settling
            spared = now - self._ttl + self._settling
            self._seen = {node: max(seen, spared) for node, seen in self._seen.items()}
        self._asked_at = now
        for node, age in ages.items():
            if node != self._own:
                self._seen[node] = max(self._seen.get(node, now - age), now - age)
        gone = [node for node, seen in self._seen.items() if now - seen >= self._ttl]
        for node in gone:
            del self._seen[node]
        return gone

    @property
    def due(self) -> float | None:
        """When the next of them is gone, unless it is heard of; ``None`` if there are none."""
        return min(self._seen.values()) + self._ttl if self._seen else None

    def alive(self, now: float) -> set[str]:
        """Return the nodes that are there, this one too."""
        return {self._own, *(node for node, seen in self._seen.items() if now - seen < self._ttl)}

    def settled(self, now: float) -> bool:
        """Whether a node that is not known is none: all had the time to tell of themselves."""
        return self._asked_at is not None and now >= self._settled_at
