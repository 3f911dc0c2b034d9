"""What publishers sent and what clients saw, written down in the order in which it happened. Pure.

All times are seconds of one monotonic clock: publishers and clients live in one process.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from wsrouter import Position

Kind: TypeAlias = Literal["history", "plain"]
"""Whether a room keeps what is published. What is sent to a user is like a plain room."""

Outcome: TypeAlias = Literal["acknowledged", "refused", "unknown", "unanswered"]
"""What a publisher was told: it returned, a `BrokerError` without or with ``outcome_unknown``, or nothing."""


@dataclass(slots=True)
class Sent:
    """A publication."""

    room: str
    publisher: str
    number: int
    """From 1, of this publisher in this room."""

    at: float
    node: int | None
    """Where it was published; ``None`` for a process without connections."""

    outcome: Outcome = "unanswered"
    answered: float = math.inf
    took: float = 0.0
    """Seconds that the handler waited for it."""

    excludes: str | None = None
    """The user that does not get it."""

    def spares(self, user: str | None) -> bool:
        """Tell whether it is not for a user."""
        return self.excludes is not None and self.excludes == user


@dataclass(frozen=True, slots=True)
class Member:
    """The client knows that it is a member: the join was answered."""

    at: float
    node: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A ``$joined``."""

    at: float
    node: int
    position: Position
    recovered: bool
    count: int
    asked: bool
    """Whether it is the first one after a join, or came by itself."""

    since: Position | None
    """What the join asked for."""


@dataclass(frozen=True, slots=True)
class Note:
    """A publication."""

    at: float
    publisher: str
    number: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A ``$skip``."""

    at: float
    offset: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A ``$gap``."""

    at: float


@dataclass(frozen=True, slots=True)
class Away:
    """The connection is gone."""

    at: float


Event: TypeAlias = Member | Joined | Note | Skip | Gap | Away


@dataclass(slots=True)
class Log:
    """All that one client saw of one room."""

    client: str
    room: str
    kind: Kind
    events: list[Event] = field(default_factory=list[Event])
    position: Position | None = None
    """Where the client stands, by the rule of the protocol; it says so when it comes back."""

    member: bool = False
    """Whether it is a member, as far as it knows."""

    user: str | None = None
    """Whose client it is."""

    def add(self, event: Event) -> None:
        """Write down what comes next."""
        self.events.append(event)
        match event:
            case Joined():
                self.position = event.position
            case Note(offset=int(offset)) | Skip(offset=offset) if self.position is not None:
                self.position = Position(self.position.epoch, offset)
            case Member():
                self.member = True
            case Away():
                self.member = False
            case _:
                pass
