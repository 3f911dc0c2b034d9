"""How far this process has come in the stream of a room, and what of it comes next. Pure and synchronous."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.history import Position, Recovery

MAX_KEPT: Final = 1024
"""Publications that wait while the broker is asked for what is before them."""
MAX_KEPT_BYTES: Final = 1024 * 1024
"""Bytes of them likewise."""


@dataclass(frozen=True, slots=True)
class Caught:
    """What the members of a room get after the broker was asked what they missed."""

    publications: Sequence[Publication]
    """What comes next for them, in order."""

    restart: Position | None = None
    """Where they stand before that, if what they missed can't be had: there is a hole, and they have to be told."""


class Follower:
    """Follows the stream of one room, for all its members at once.

    Nobody stands anywhere until the first member has asked the broker (`start`). From then on every publication is
    the next one, or one that was there before; or there is a hole before it, as after a loss (`lose`). Then it is
    `behind` until the broker is asked once more (`begin`, and `catch_up` or `fail`). What is handed over while the
    broker is asked waits for its answer. What came before it was asked does not: it is in the answer.
    """

    __slots__ = ("_asking", "_bytes", "_follows", "_kept", "behind", "epoch", "offset")

    def __init__(self) -> None:
        self.epoch = ""
        """The stream, empty until it is started."""
        self.offset = 0
        """What members have got, or were told that it is missing."""
        self.behind = False
        """Whether something may be missing, and the broker has to be asked."""
        self._asking = True
        self._follows = False
        self._kept: list[Publication] = []
        self._bytes = 0

    @property
    def position(self) -> Position:
        """Where the members stand."""
        return Position(self.epoch, self.offset)

    def reached(self, position: Position) -> bool:
        """Whether the members stand at a position, or after it in the same stream."""
        return self.epoch == position.epoch and self.offset >= position.offset

    def take(self, publication: Publication) -> bool:
        """Return whether a publication is what comes next for the members; else it is not theirs, or not yet.

        When it returns false, look whether it is `behind` now.
        """
        offset = publication.offset
        if self._follows:
            if publication.epoch == self.epoch and offset is not None:
                if offset == self.offset + 1:
                    self.offset = offset
                    return True
                if offset <= self.offset:
                    return False
            self.lose()
        elif self._asking and not self.behind:
            self._kept.append(publication)
            self._bytes += len(publication.data)
            if len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
                self.lose()
        return False

    def lose(self) -> None:
        """Note that publications may be missing before what comes next."""
        self.behind = True
        self._follows = False
        self._forget()

    def start(self, recovery: Recovery[Publication]) -> Sequence[Publication]:
        """Begin to follow where the first member stands, and return what came next meanwhile."""
        self.epoch, self.offset = recovery.epoch, recovery.end
        return self._follow()

    def begin(self) -> Position:
        """Note that the broker is asked now, and return for what: everything since there."""
        self.behind, self._asking = False, True
        return self.position

    def fail(self) -> None:
        """Note that the broker did not answer."""
        self._asking = False
        self.lose()

    def catch_up(self, recovery: Recovery[Publication]) -> Caught:
        """Go on from what the broker has answered."""
        whole = recovery.recovered and (recovery.epoch, recovery.offset) == (self.epoch, self.offset)
        self.epoch, self.offset = recovery.epoch, recovery.end
        restart = None if whole else self.position
        return Caught((*(recovery.publications if whole else ()), *self._follow()), restart)

    def _follow(self) -> Sequence[Publication]:
        kept = self._kept[:]
        self._forget()
        self._asking, self._follows = False, not self.behind
        return [each for each in kept if self.take(each)]

    def _forget(self) -> None:
        self._kept.clear()
        self._bytes = 0
