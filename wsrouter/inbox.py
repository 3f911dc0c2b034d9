"""What one connection received and nobody handled yet; the only place that calls ``receive``."""

import asyncio
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from starlette.types import Message as Event
from starlette.types import Receive

from wsrouter.limits import Limits
from wsrouter.tasks import current_task, wait_for_end

TURN_MESSAGES: Final = 64
TURN_SECONDS: Final = 0.005
"""A session that handled so many messages, or for so long, without suspending gives the loop back."""


class Sized(Protocol):
    size: int


class Owner(Protocol):
    """Whom an inbox tells what it can't do."""

    def overflowed(self) -> None:
        """Take notice that the inbox was full for ``Limits.inbox_full`` seconds."""

    def unreadable(self, exc: Exception) -> None:
        """Take notice that ``receive`` raised."""


ItemT = TypeVar("ItemT", bound=Sized)
ItemT_co = TypeVar("ItemT_co", bound=Sized, covariant=True)


class Source(Protocol[ItemT_co]):
    """What makes items of events."""

    def read(self, event: Event) -> ItemT_co | None:
        """Return the item of an event, ``None`` where there is nothing to handle."""


class Inbox(Generic[ItemT]):
    """Reads one connection, so that somebody always does.

    The session's task reads itself while it waits for a message. While it waits for something else, a
    *reader* task reads ahead; it ends when it has handed a message to a session that waits, so that a
    pending ``receive`` is never cancelled while the client is there.

    Args:
        receive: the ASGI ``receive``.
        source: makes items of events.
        limits: bounds of what waits.
        owner: is told when it is full for too long, and when ``receive`` raised.
    """

    __slots__ = (
        "_bytes",
        "_gave_up",
        "_items",
        "_limits",
        "_listening",
        "_owner",
        "_reader",
        "_receive",
        "_returned",
        "_room",
        "_source",
        "_task",
        "_turn",
        "_turn_seconds",
        "_waiter",
        "ended",
    )

    def __init__(
        self,
        receive: Receive,
        source: Source[ItemT],
        limits: Limits,
        owner: Owner,
    ) -> None:
        self._receive: Receive = receive
        self._source = source
        self._limits = limits
        self._owner = owner
        self.ended = False
        """Whether nothing more will come."""
        self._items: deque[ItemT] | None = None
        self._bytes = 0
        self._reader: asyncio.Task[None] | None = None
        self._task = current_task()
        self._listening = False
        self._gave_up = False
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._turn = 0
        self._turn_seconds = 0.0
        self._returned = 0.0

    async def next(self) -> ItemT | None:
        """Return the next item, in the order in which they came; ``None`` when there will be none."""
        if self._turn:
            self._turn_seconds += monotonic() - self._returned
        else:
            self._turn_seconds = 0.0
        while True:
            self._turn += 1
            if self._turn > TURN_MESSAGES or self._turn_seconds > TURN_SECONDS:
                await asyncio.sleep(0)
                self._turn, self._turn_seconds = 1, 0.0
            found: ItemT | None
            if self._items:
                found = self._items.popleft()
                self._taken(found)
            elif self.ended:
                return None
            elif self._reader is None:
                self._listening = True
                try:
                    event = await self._receive()
                except (Exception, asyncio.CancelledError) as exc:
                    if self._is_end(exc):
                        continue
                    raise
                finally:
                    self._listening = False
                self._returned = monotonic()
                found = self._source.read(event)
                if found is None:
                    self._turn_seconds += monotonic() - self._returned
                    continue
                return found
            else:
                await self._wait_for_reader()
                continue
            self._returned = monotonic()
            return found

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._items

    def suspended(self) -> None:
        """Read ahead from here on: the session's task waits for something else."""
        self._turn = 0
        if self._reader is None and not self.ended:
            self._reader = asyncio.get_running_loop().create_task(self._read_ahead(), name="wsrouter reader")

    def end(self) -> None:
        """Note that nothing more will come; what waits can still be taken."""
        self.ended = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._wake()

    def give_up(self) -> None:
        """Cease to wait for the server's ``websocket.disconnect``."""
        self.end()
        if self._listening:
            self._gave_up = True
            self._task.cancel()

    def drop(self) -> Iterable[ItemT]:
        """Return what waits, and forget it."""
        items, self._items = self._items or (), None
        self._bytes = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return items

    def remove(self, item: ItemT) -> bool:
        """Remove an item; false if it is not, or no longer, here."""
        if not self._items or item not in self._items:
            return False
        self._items.remove(item)
        self._taken(item)
        return True

    async def aclose(self) -> None:
        """End the reader."""
        self.ended = True
        if self._reader is not None:
            self._reader.cancel()
            cancelled = await wait_for_end(self._reader)
            if cancelled is not None:
                raise cancelled

    def forget(self) -> None:
        """Let go of what refers back to it, when all is over; a task that was cancelled does by its traceback."""
        del self._source, self._owner, self._task

    def _taken(self, item: ItemT) -> None:
        self._bytes -= item.size
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _is_end(self, exc: BaseException) -> bool:
        """Whether nothing more comes, as an exception says that ``receive`` raised."""
        if isinstance(exc, Exception):
            self._owner.unreadable(exc)
            self.ended = True
        elif self._gave_up:
            self._task.uncancel()
        else:
            return False
        return True

    async def _wait_for_reader(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _read_ahead(self) -> None:
        read, seconds = 0, 0.0
        try:
            while not self.ended:
                read += 1
                if read > TURN_MESSAGES or seconds > TURN_SECONDS:
                    await asyncio.sleep(0)
                    read, seconds = 1, 0.0
                event = await self._receive()
                began = monotonic()
                item = self._source.read(event)
                seconds += monotonic() - began
                if item is None:
                    continue
                if self._items is None:
                    self._items = deque()
                self._items.append(item)
                self._bytes += item.size
                if self._waiter is not None:
                    return
                await self._until_room()
        except Exception as exc:
            self._owner.unreadable(exc)
            self.ended = True
        finally:
            self._reader = None
            self._wake()

    async def _until_room(self) -> None:
        limits = self._limits
        while not self.ended and self._items:
            if len(self._items) < limits.inbox_messages and self._bytes < limits.inbox_bytes:
                return
            self._room = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(limits.inbox_full):
                    await self._room
            except TimeoutError:
                self._owner.overflowed()
                return
            finally:
                self._room = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
