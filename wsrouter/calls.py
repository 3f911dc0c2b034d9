"""Work that can be cancelled, and the call: one message on its way through."""

import asyncio
from typing import Any, Literal, TypeAlias

from wsrouter.chain import Bound
from wsrouter.codecs import Id
from wsrouter.errors import WebSocketError

Cause: TypeAlias = Literal["cancelled", "timeout", "ended"]
"""Why a call is cancelled: by the client's ``$cancel``, by its deadline, because the connection ends."""


class Attempt:
    """Work that may be cancelled, and only while it is open: its clean-up is not."""

    task: "asyncio.Task[Any] | None" = None
    """Where it runs; a cancellation before that keeps it from beginning."""
    cause: Cause | None = None
    open: bool = False
    _interruptions: int = 0

    def begin(self) -> None:
        """Let cancellations in from here on.

        Raises:
            asyncio.CancelledError: one came before.
        """
        if self.cause is not None:
            raise asyncio.CancelledError(self.cause)
        self.open = True

    def cancel(self, cause: Cause, *, again: bool = False) -> None:
        """Cancel the work if it is open or has not begun; what has returned is left alone.

        The first cause counts. Work is interrupted once, and not by itself: one that closes its own connection
        goes on until somebody else cancels it.

        Args:
            cause: why.
            again: interrupt also what was interrupted before, and goes on.
        """
        if self.cause is None:
            self.cause = cause
        if self._interruptions and not again:
            return
        if self.open and self.task is not None and self.task is not asyncio.current_task():
            self._interruptions += 1
            self.task.cancel(self.cause)

    def abandon(self) -> None:
        """Cancel the work whatever it is at, its clean-up too; for what did not end in all the time that it had."""
        self.cause = self.cause or "ended"
        if self.task is not None and not self.task.done():
            self._interruptions += 1
            self.task.cancel(self.cause)

    def end(self) -> None:
        """Keep cancellations out from here on, and take back those that were delivered."""
        self.open = False
        if self.task is not None:
            while self._interruptions:
                self._interruptions -= 1
                self.task.uncancel()


class Call(Attempt):
    """One message on its way through."""

    failure: WebSocketError | None = None
    """What answers a message that could not be read."""

    def __init__(self, type: str, data: Any, id: Id | None, size: int, bound: Bound | None) -> None:
        self.type = type
        self.data = data
        self.id = id
        self.size = size
        self.bound = bound

    @property
    def streams(self) -> bool:
        return self.bound is not None and self.bound.streams
