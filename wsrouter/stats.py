"""What a hub tells of itself, for logs, metrics and probes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class HubStats:
    """Counts of this process."""

    connections: int
    rooms: int
    users: int
    published: int
    """Publications to rooms and users of this process since it started."""

    delivered: int
    """Frames handed to connections since it started: one per publication and member."""

    dropped: int = 0
    """Publications dropped since then because a member's outbox was full; each was announced by a ``$gap``."""

    superseded: int = 0
    """Publications that a newer one replaced while they waited (``overflow="latest"``)."""

    slow: int = 0
    """Connections closed with 4508 since then because they did not read."""


@dataclass(frozen=True, slots=True)
class HubHealth:
    """How the link of this process to its broker is. Times are seconds."""

    state: Literal["up", "down"]
    """Whether the broker's server answers, as far as is known. With `MemoryBroker` it is always up."""

    since: float
    """How long it has been so."""

    heartbeat_age: float | None
    """Since a heartbeat came back; ``None`` if none ever did, or there are none."""

    lag: float | None
    """What the last heartbeat took."""

    connections: int
    """Of this process."""

    rooms: int
    """That they are in."""

    gaps: int
    """How often publications may have been lost on the link since it was started."""

    recovering: int
    """Rooms with history whose members may lack something now: the broker is being asked, or does not answer."""

    recovered: int
    """How often such a room got all that it had missed."""

    announced: int
    """How often the members of a room, or a user, were told that something is missing, or closed with 4510."""
