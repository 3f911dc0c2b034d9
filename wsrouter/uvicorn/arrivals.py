"""What has arrived and the application has not received yet."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import Message as Event

from wsrouter.codecs import Frame

MAX_MESSAGES: Final = 16
MAX_BYTES: Final = 65_536


class Arrivals:
    """The events behind an ASGI ``receive``: in order, and the end of the connection after all of them.

    From 16 messages or 64 KiB on it is `full`, until all are received; nothing more is to be added then.

    Args:
        loop: the event loop.
        emptied: called when the last message was received.
    """

    __slots__ = ("_arrived", "_bytes", "_emptied", "_end", "_events", "_loop", "_told", "full")

    def __init__(self, loop: asyncio.AbstractEventLoop, emptied: Callable[[], object]) -> None:
        self._loop = loop
        self._emptied = emptied
        self._events: list[Event] = []
        self._bytes = 0
        self.full = False
        self._arrived: asyncio.Future[None] | None = None
        self._end: Event | None = None
        self._told = False

    def begin(self) -> None:
        """Let ``websocket.connect`` come first."""
        self._events.append({"type": "websocket.connect"})

    def add(self, message: Frame) -> None:
        """Add a message."""
        self._events.append({"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message})
        self._bytes += len(message)
        if self._bytes >= MAX_BYTES or len(self._events) >= MAX_MESSAGES:
            self.full = True
        self._wake()

    def end(self, code: int, reason: str = "") -> None:
        """Let ``websocket.disconnect`` come after all else. The first call counts."""
        if self._end is None:
            self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._wake()

    async def receive(self) -> Event:
        """Return the next event, when there is one; at the end the last one again and again."""
        events = self._events
        while not events:
            if self._end is not None:
                if self._told:
                    await asyncio.sleep(0)  # who asks for ever may not hold the event loop
                self._told = True
                return self._end
            if self._arrived is not None:
                await asyncio.wait([self._arrived])
                continue
            self._arrived = self._loop.create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        event = events.pop(0)
        if not events:
            self._bytes = 0
            self.full = False
            self._emptied()
        return event

    def forget(self) -> None:
        """Let go of the callback, when nobody receives any more."""
        self._emptied = _nothing

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _nothing() -> None:
    """Take the place of the callback when all is over."""
