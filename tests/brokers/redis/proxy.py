"""What stands between a node and Redis, and may cut, hold back or swallow everything."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes on what comes on either side, on a port of 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self.swallows = False
        """Whether all that comes is read and dropped, and connections stay open."""
        self.refuses = False
        """Whether new connections are closed at once."""
        self.refused = 0
        """How many were."""
        self.passes = asyncio.Event()
        """Set unless what comes is held back, to be passed on later."""
        self.passes.set()
        self.delay = 0.0
        """Seconds that all that comes takes longer."""
        self.port = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            self.refused += 1
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        writers = {writer, server_writer}
        self._writers |= writers
        try:
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))
        finally:
            self._writers -= writers

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.passes.wait()
                await asyncio.sleep(self.delay)
                if not self.swallows:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def serve_proxy(target: int) -> AsyncGenerator[Proxy]:
    """Run a proxy to a port of 127.0.0.1."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.passes.set()
        proxy.cut()
        await server.wait_closed()
