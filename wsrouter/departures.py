"""Who was disconnected lately, for handshakes that find out later whose they are."""

from time import monotonic
from typing import Final

from wsrouter.connection import Connection

REMEMBERED: Final = 60.0
"""Seconds: longer than a handshake takes that asks somebody who knew the user before they were disconnected."""


class Departures:
    """The users that were disconnected in the last minute."""

    def __init__(self) -> None:
        self._users: dict[str, tuple[float, int, str]] = {}

    def note(self, user: str, code: int, reason: str) -> None:
        """Remember a user, with the close code and the reason."""
        now = monotonic()
        users = self._users
        users.pop(user, None)
        users[user] = (now, code, reason)
        while users[oldest := next(iter(users))][0] < now - REMEMBERED:
            del users[oldest]

    def apply(self, connection: Connection, user: str) -> None:
        """Turn a connection away that is this user's and had begun before they were disconnected."""
        found = self._users.get(user)
        if found is not None and found[0] >= connection.began:
            connection.turn_away(*found[1:])
