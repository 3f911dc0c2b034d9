"""Keys that stay while this node has a use for them: they would go by themselves."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, NamedTuple

from wsrouter.deadlines import Deadlines
from wsrouter.errors import BrokerError

_MOST_AT_ONCE: Final = 500
_AGAIN: Final = 1.0
"""Seconds until the next try, where Redis is down."""


class _Kept(NamedTuple):
    every: float
    command: bytes


class Upkeep:
    """Sends a command for each key again and again.

    Args:
        send: sends the command of a key.
    """

    def __init__(self, send: Callable[[bytes, bytes], "asyncio.Future[Any]"]) -> None:
        self._send = send
        self._kept: dict[str, _Kept] = {}
        self._deadlines = Deadlines()
        self._wanted = asyncio.Event()

    def hold(self, key: bytes, every: float, command: bytes) -> None:
        """Have a command sent every so many seconds, for the first time after so many."""
        name = key.decode()
        self._kept[name] = _Kept(every, command)
        earlier = self._deadlines.next
        due = monotonic() + every
        self._deadlines.add(name, due)
        if earlier is None or due < earlier:
            self._wanted.set()

    def release(self, key: bytes) -> None:
        """Send it no longer; nothing happens if it is not."""
        self._kept.pop(key.decode(), None)

    async def run(self) -> None:
        """Send what is due, until this is cancelled."""
        while True:
            self._wanted.clear()
            due = self._deadlines.next
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - monotonic())):
                    await self._wanted.wait()
            except TimeoutError:
                await self._send_what_is_due()

    async def _send_what_is_due(self) -> None:
        now = monotonic()
        replies: list[asyncio.Future[Any]] = []
        names: list[str] = []
        while len(names) < _MOST_AT_ONCE and (name := self._deadlines.pop(now)) is not None:
            kept = self._kept.get(name)
            if kept is not None:
                names.append(name)
                replies.append(self._reply(name.encode(), kept.command))
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        for name, outcome in zip(names, outcomes, strict=True):
            kept = self._kept.get(name)
            if kept is not None:
                failed = isinstance(outcome, BrokerError)
                self._deadlines.add(name, monotonic() + (min(_AGAIN, kept.every) if failed else kept.every))

    def _reply(self, key: bytes, command: bytes) -> "asyncio.Future[Any]":
        try:
            return self._send(key, command)
        except BrokerError as exc:  # no server is known to have the key
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(exc)
            return failed

    def __len__(self) -> int:
        return len(self._kept)
