"""Deadlines that are fair to a process which was stopped."""

import asyncio
from collections.abc import Callable
from typing import Final

_LATE: Final = 0.25
"""Seconds: a timer that comes so late comes from a loop that stood still."""

_MORE: Final = 0.5
"""Seconds that a loop has then to read."""

_TURNS: Final = 0.02
"""Seconds in which a loop that runs takes what has arrived; a timer that is due is called before that."""

_MOST: Final = 3
"""How often it is put off: a loop that always stands still comes to no end of it."""


class Alarm:
    """Calls something after some seconds, and a little later in a loop that stood still.

    A process that was stopped, or busy, finds its timers due and its sockets full when it goes on. It reads first: else
    it would take others for dead that had answered in time. That takes up to two seconds more where the loop stands
    still again and again, beside what it stands still.

    Args:
        seconds: from now.
        callback: what is called.
    """

    __slots__ = ("_callback", "_due", "_handle", "_has_read", "_loop", "_put_off")

    def __init__(self, seconds: float, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._put_off = 0
        self._has_read = False
        self._set(seconds)

    def cancel(self) -> None:
        """Call nothing."""
        self._handle.cancel()

    def _set(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._handle = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        late = self._loop.time() - self._due
        if late > _LATE and self._put_off < _MOST:
            self._put_off += 1
            self._set(_MORE)
        elif not self._has_read:
            self._has_read = True
            self._set(_TURNS + 2 * min(late, _LATE))
        else:
            self._callback()
