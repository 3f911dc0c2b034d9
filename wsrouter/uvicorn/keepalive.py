"""Pings that find out whether a client is still there (RFC 6455, section 5.5.2)."""

import asyncio
import random
from collections.abc import Callable


class Keepalive:
    """Pings a client at an interval, and tells when it does not answer.

    Args:
        loop: the event loop.
        interval: seconds from one ping to the next; ``None`` or 0 pings never.
        timeout: seconds for the pong; ``None`` waits for none.
        ping: sends a ping with a payload.
        expired: called once if the pong does not come in time.
    """

    __slots__ = ("_expired", "_interval", "_loop", "_payload", "_ping", "_sent_at", "_timeout", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval: float | None,
        timeout: float | None,
        *,
        ping: Callable[[bytes], object],
        expired: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._interval = interval or 0.0
        self._timeout = timeout
        self._ping = ping
        self._expired = expired
        self._payload: bytes | None = None
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether a ping is followed by a wait for its pong, so that there is never more than one."""
        return self._timeout is not None

    def start(self) -> None:
        """Send the first ping when the interval has passed."""
        if self._interval > 0:
            self._timer = self._loop.call_later(self._interval, self._send)

    def stop(self) -> None:
        """Send no more pings, wait for no pong, and let go of the callbacks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ping = self._expired = _nothing

    def answered(self, payload: bytes) -> None:
        """Take note of a pong; one that answers another ping, or none, does not count."""
        if self._timer is None or self._timeout is None or payload != self._payload:
            return
        self._payload = None
        self._timer.cancel()
        self._timer = self._loop.call_at(max(self._sent_at + self._interval, self._loop.time()), self._send)

    def _send(self) -> None:
        self._sent_at = self._loop.time()
        self._payload = random.randbytes(4)
        if self._timeout is None:
            self._timer = self._loop.call_later(self._interval, self._send)
        else:
            self._timer = self._loop.call_later(self._timeout, self._expired)
        self._ping(self._payload)


def _nothing(payload: bytes = b"") -> None:
    """Take the place of the callbacks when all is over."""
