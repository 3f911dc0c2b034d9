"""What stands between a process and Redis, and can fall silent, stall and cut."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal, TypeAlias

Direction: TypeAlias = Literal["requests", "replies"]

PIECE: Final = 4096
"""Bytes that it holds of each direction, beside what the kernels hold."""


class Proxy:
    """Forwards every connection to a port of 127.0.0.1.

    What is held back while it is silent goes on its way afterwards, as in a network that comes back: also what was
    written by a client that has given up since.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        """The port that new connections are forwarded to."""
        self._gates: dict[Direction, asyncio.Event] = {"requests": asyncio.Event(), "replies": asyncio.Event()}
        self._subscribers_gate = asyncio.Event()
        self._links: set[_Link] = set()
        self.speak()

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator["Proxy"]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.speak()
            self.cut()
            await server.wait_closed()
            await asyncio.gather(*(link.ended.wait() for link in self._links))

    def silence(self, *directions: Direction) -> None:
        """Forward nothing in these directions, by default in both. New connections are taken, and as silent."""
        for direction in directions or ("requests", "replies"):
            self._gates[direction].clear()

    def stall_subscribers(self) -> None:
        """Read nothing more of what the server sends to connections that have subscribed."""
        self._subscribers_gate.clear()

    def subscribers(self) -> list[int]:
        """Return the ports from where connections that have subscribed reach the server."""
        return [link.server_side for link in self._links if link.subscribes]

    def speak(self) -> None:
        """Forward everything again."""
        for gate in (*self._gates.values(), self._subscribers_gate):
            gate.set()

    def cut(self) -> None:
        """Reset every connection. New ones are taken."""
        for link in self._links:
            link.reset()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            upstream = socket.socket()
            upstream.setblocking(False)
            # So that what is not read piles up at the server, and not in between.
            upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
            with suppress(OSError):
                await asyncio.get_running_loop().sock_connect(upstream, ("127.0.0.1", self.target))
                server_reader, server_writer = await asyncio.open_connection(sock=upstream, limit=PIECE)
                link.writers.append(server_writer)
                link.server_side = upstream.getsockname()[1]
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(link, "requests", reader, server_writer))
                    group.create_task(self._pump(link, "replies", server_reader, writer))
            upstream.close()
        finally:
            link.reset()
            self._links.discard(link)
            link.ended.set()

    async def _pump(
        self, link: "_Link", direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward what comes until either side ends, and then end the other."""
        with suppress(OSError):
            while True:
                await self._gates[direction].wait()
                if direction == "replies" and link.subscribes:
                    await self._subscribers_gate.wait()
                data = await reader.read(PIECE)
                await self._gates[direction].wait()
                if direction == "replies" and link.subscribes:
                    await self._subscribers_gate.wait()
                if not data:
                    break
                link.subscribes |= direction == "requests" and b"SUBSCRIBE" in data.upper()
                writer.write(data)
                await writer.drain()
        writer.close()


class _Link:
    """One connection, with both its ends."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]
        self.server_side = 0
        self.subscribes = False
        self.ended = asyncio.Event()

    def reset(self) -> None:
        linger_for_no_time = struct.pack("ii", 1, 0)
        for writer in self.writers:
            if not writer.is_closing():
                end: socket.socket = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
            writer.transport.abort()
