"""The notices on the board. They are kept in memory; an application has a table in its place."""

import itertools
import time
from collections import deque

from pydantic import BaseModel

MOST = 50


class Notice(BaseModel):
    """One notice.

    Attributes:
        at: When it was put up, in milliseconds since 1970, UTC.
    """

    id: int
    author: str
    text: str
    at: int
    pinned: bool = False


class Notices:
    """The newest fifty notices."""

    def __init__(self) -> None:
        self._notices: deque[Notice] = deque(maxlen=MOST)
        self._ids = itertools.count(1)
        self.post(
            "board", "Welcome. Whoever may write can put a notice up here; whoever administers can take all down."
        )

    def all(self) -> list[Notice]:
        """Return all: pinned ones first, then newest first."""
        return sorted(self._notices, key=lambda notice: (not notice.pinned, -notice.id))

    def post(self, author: str, text: str) -> None:
        """Put a notice up; of more than fifty the oldest goes."""
        self._notices.append(
            Notice(id=next(self._ids), author=author, text=text, at=time.time_ns() // 1_000_000),
        )

    def pin(self, id: int, pinned: bool) -> bool:
        """Pin a notice, or no longer; return whether there is such a notice."""
        for notice in self._notices:
            if notice.id == id:
                notice.pinned = pinned
                return True
        return False

    def clear(self) -> None:
        """Take down all that are not pinned."""
        kept = [notice for notice in self._notices if notice.pinned]
        self._notices.clear()
        self._notices.extend(kept)
