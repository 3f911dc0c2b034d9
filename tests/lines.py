"""Clients without a server: they read what their connection writes, stop reading, and read again."""

import asyncio
from typing import Final, TypeAlias

from starlette.types import Message as Event

from tests.sockets import Socket, direct, frames_of, portable
from wsrouter import Limits
from wsrouter.connection import ServerConnection


class DirectSocket:
    """A client at the end of a transport."""

    def __init__(self, user: str, limits: Limits) -> None:
        self.socket = Socket(capacity=400)
        self.connection: ServerConnection = direct(self.socket, self._accept, limits=limits, user=user or None)
        self._read = 0

    async def _accept(self, event: Event) -> None:
        self.socket.open()

    def take(self) -> list[str]:
        """Return the frames that came since the last time."""
        writes, self._read = self.socket.writes[self._read :], len(self.socket.writes)
        return [bytes(frame.data).decode() for frame in frames_of(b"".join(writes))]

    @property
    def stalled(self) -> bool:
        return self.socket.paused

    def stall(self) -> None:
        self.socket.pause()

    def resume(self) -> None:
        self.socket.take()


class PortableSocket:
    """A client at the end of an ASGI server that holds its sender back."""

    def __init__(self, user: str, limits: Limits) -> None:
        self.connection: ServerConnection = portable(self.send, limits=limits, user=user or None)
        self._texts: list[str] = []
        self._reads = asyncio.Event()
        self._reads.set()

    async def send(self, event: Event) -> None:
        if not self._reads.is_set():
            await self._reads.wait()
        if event["type"] == "websocket.send":
            self._texts.append(event["text"])

    def take(self) -> list[str]:
        """Return the frames that came since the last time."""
        texts, self._texts = self._texts, []
        return texts

    @property
    def stalled(self) -> bool:
        return not self._reads.is_set()

    def stall(self) -> None:
        self._reads.clear()

    def resume(self) -> None:
        self._reads.set()


class BareSocket(PortableSocket):
    """The same, where the server's own ``send`` is not wrapped by any middleware."""

    __module__ = "uvicorn.protocols.websockets.tests"


Way: TypeAlias = type[DirectSocket] | type[PortableSocket]
WAYS: Final[list[Way]] = [DirectSocket, PortableSocket, BareSocket]


async def turns(count: int = 6) -> None:
    """Let the event loop go around."""
    for _ in range(count):
        await asyncio.sleep(0)
