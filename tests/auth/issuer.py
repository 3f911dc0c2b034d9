"""An issuer's address of keys, as a real HTTP server that can be slow, wrong, or gone."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any


class Issuer:
    """Serves ``keys`` at ``url`` and counts how often they are fetched."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.fetches = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        """In place of the keys."""
        self.hold: asyncio.Event | None = None
        """Answers wait for it."""
        self.delay = 0.0
        """Seconds until the answer."""
        self.asked = asyncio.Event()
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    async def start(self) -> None:
        """Listen, after a stop on the same port."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            self.asked.set()
            if self.hold is not None:
                await self.hold.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
            lines = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in self.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def issuing(*keys: Any) -> AsyncGenerator[Issuer]:
    """Run an issuer with some keys."""
    issuer = Issuer()
    issuer.keys = list(keys)
    await issuer.start()
    try:
        yield issuer
    finally:
        if issuer.hold is not None:
            issuer.hold.set()
        await issuer.stop()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
