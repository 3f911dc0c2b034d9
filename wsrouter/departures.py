"""Who was disconnected lately, for handshakes that find out later whose they are."""

from collections.abc import Collection
from time import monotonic
from typing import Final

from wsrouter.connection import ServerConnection

REMEMBERED: Final = 60.0
"""Seconds: longer than a handshake takes that asks somebody who knew the user before they were disconnected."""


class Departures:
    """The users that were disconnected in the last minute."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], tuple[float, int, str]] = {}
        """When, with which code and reason, by user, and by connection where it is about that one only."""

    def note(self, user: str, code: int, reason: str, *, only: Collection[str] = (), age: float = 0.0) -> None:
        """Remember a user, with the close code and the reason.

        Args:
            user: id of the user.
            code: close code.
            reason: text for the client.
            only: ids of the connections that it is about; by default all.
            age: seconds since it was ordered.
        """
        now = monotonic()
        known = self._known
        for connection in only or (None,):
            before = known.pop((user, connection), None)
            noted = now - age, code, reason
            known[user, connection] = noted if before is None else max(before, noted, key=lambda each: each[0])
        while known and known[oldest := next(iter(known))][0] < now - REMEMBERED:
            del known[oldest]

    def apply(self, connection: ServerConnection, user: str) -> None:
        """Turn a connection away that is this user's and had begun before they were disconnected."""
        for key in (user, None), (user, connection.id):
            found = self._known.get(key)
            if found is not None and found[0] >= connection.began:
                connection.turn_away(*found[1:])
