"""A hundred of a thousand members stall, in every way there is; the others do not notice."""

import asyncio
import gc
import os
import resource
import socket
import weakref
import zlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self

import pytest

from tests.envelopes import app_of
from tests.paths import KIB, PORTABLE, SEND_BUFFER
from tests.support import Server, eventually, no_task_left, serve
from tests.wire import request
from wsrouter import CloseInfo, Connection, Hub, Limits, Message, RoomOptions, WebSocketHandler
from wsrouter.outbox import Overflow
from wsrouter.transports import framed
from wsrouter.uvicorn import WebSocketProtocol

MEMBERS: Final = 1000
STALLED: Final = 100
READING: Final = ["reads a byte a second", "half-closed and reading"]
KINDS: Final = ["never reads", "half-closed", "vanished", *READING]


class QuickProtocol(WebSocketProtocol):
    """Waits for 0.5 s where the class that it is made of waits for 10."""

    close_timeout = 0.5


each_path = pytest.mark.parametrize("ws", [QuickProtocol, PORTABLE], ids=["direct", "portable"])


class Chunk(Message):
    number: int
    filler: str = "x" * 8 * KIB


class Member(WebSocketHandler):
    """Notes of which kind of client it was, and how it ended."""

    def __init__(self, connection: Connection, kind: str) -> None:
        self.state: Any = connection.scope["app"].state
        self.kind = kind
        self.state.connections.setdefault(kind, []).append(weakref.ref(connection))

    async def on_connect(self) -> None:
        await self.join("a")

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.state.ends[self.kind][close.code] += 1


class Reading(asyncio.Protocol):
    """A client that reads all that comes, and keeps no more of it than a checksum."""

    total = 0
    """Bytes that all of them have read."""

    def __init__(self) -> None:
        self.checksum = 0
        self.size = 0
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(request("/?kind=reads"))

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = None if end else head
            if not end:
                return
        self.checksum = zlib.crc32(data, self.checksum)
        self.size += len(data)
        Reading.total += len(data)


class Stalled:
    """A client that is connected, and does not read as it should."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def connect(self, port: int) -> Self:
        """Connect, and be a good client so far."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        self.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", port))
        await loop.sock_sendall(self.socket, request(f"/?kind={self.kind.replace(' ', '%20')}"))
        assert (await loop.sock_recv(self.socket, 4 * KIB)).startswith(b"HTTP/1.1 101")
        return self

    async def stall(self) -> None:
        """Be a bad one from now on, until it is cancelled."""
        loop = asyncio.get_running_loop()
        if self.kind.startswith("half-closed"):
            self.socket.shutdown(socket.SHUT_WR)
        try:
            at_once, pause = (1, 1.0) if self.kind == "reads a byte a second" else (64 * KIB, 0.0)
            while self.kind in READING and await loop.sock_recv(self.socket, at_once):
                if pause:
                    await asyncio.sleep(pause)
        except ConnectionResetError:
            pass
        await asyncio.Event().wait()


class DroppingProxy:
    """Passes on what comes, until it is told to drop everything without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._tasks.add(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.drop()
        for end in (self._listener, *self._ends):
            end.close()

    async def drop(self) -> None:
        """Neither read nor write nor close anything any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            server.setblocking(False)
            self._ends += [client, server]
            await loop.sock_connect(server, ("127.0.0.1", self._port))
            for one, other in (client, server), (server, client):
                self._tasks.add(asyncio.create_task(self._pass_on(one, other)))

    async def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(one, 4 * KIB):
            await loop.sock_sendall(other, data)


class Hall:
    """A served hub with many members."""

    def __init__(self, hub: Hub, server: Server, state: Any, proxy: DroppingProxy, readers: list[Reading]) -> None:
        self.hub = hub
        self.server = server
        self.proxy = proxy
        self.readers = readers
        self.ends: dict[str, Counter[int]] = state.ends
        self.connections: dict[str, list[weakref.ref[Connection]]] = state.connections
        self._published = 0
        self._expected = 0
        self._size = 0

    async def broadcast(self) -> None:
        """Broadcast, and wait until everybody who reads has it."""
        chunk = Chunk(number=self._published)
        self._published += 1
        frame = framed(f'{{"type":"chunk","room":"a","data":{chunk.model_dump_json()}}}')
        self._expected = zlib.crc32(frame, self._expected)
        self._size += len(frame)
        await self.hub.broadcast("a", chunk)
        await eventually(lambda: Reading.total >= self._size * len(self.readers), timeout=30)

    def check(self) -> None:
        """Check that everybody who reads has got everything once, in order."""
        assert {(reader.size, reader.checksum) for reader in self.readers} == {(self._size, self._expected)}

    def pending(self) -> list[int]:
        """Return how many bytes wait for each connection that is not ended."""
        return [connection.pending_bytes for connection in self.hub.connections.values()]


def places() -> int:
    """Return for how many members there are file descriptors, two for each and some for all else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MEMBERS + 500
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return min(MEMBERS, (soft - 500) // 2)


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def hall(ws: Any, overflow: Overflow, **limits: Any) -> AsyncGenerator[Hall]:
    """Serve a hub, and connect those of its members that read."""
    Reading.total = 0
    hub = Hub(rooms={"*": RoomOptions(overflow=overflow)})
    app = app_of(Member, hub=hub, limits=Limits(outbox_frames=16, close=0.5, **limits))
    app.state.ends = {kind: Counter[int]() for kind in [*KINDS, "reads"]}
    app.state.connections = {}
    loop = asyncio.get_running_loop()
    async with (
        serve(app, ws=ws, send_buffer=SEND_BUFFER, ws_ping_interval=None, access_log=False) as server,
        DroppingProxy(server.port) as proxy,
    ):
        readers: list[Reading] = []
        try:
            while len(readers) < places() - STALLED:
                connecting = [loop.create_connection(Reading, "127.0.0.1", server.port) for _ in range(50)]
                readers.extend(reader for _, reader in await asyncio.gather(*connecting))
            await eventually(lambda: hub.rooms == {"a": len(readers)}, timeout=30)
            yield Hall(hub, server, app.state, proxy, readers)
        finally:
            for reader in readers:
                reader.transport.abort()
            await eventually(lambda: not hub.connections, timeout=10)


@asynccontextmanager
async def stalling(here: Hall) -> AsyncGenerator[None]:
    """Let as many members of each kind join, and stall."""
    members: list[Stalled] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        for kind in KINDS:
            for _ in range(STALLED // len(KINDS)):
                port = here.proxy.port if kind == "vanished" else here.server.port
                members.append(await Stalled(kind).connect(port))
        await eventually(lambda: here.hub.rooms == {"a": len(here.readers) + STALLED}, timeout=30)
        await here.proxy.drop()
        tasks += [asyncio.create_task(member.stall()) for member in members]
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for member in members:
            member.socket.close()


@each_path
@pytest.mark.parametrize("overflow", ["disconnect", "drop_old"])
async def test_nobody_notices_a_hundred_stalled_members(ws: Any, overflow: Overflow) -> None:
    """The others get everything, once and in order; who stalls ends by the policy, or because it takes nothing.

    All that was held for them is given back: memory, tasks, and with the protocol class file descriptors, although
    no client has closed anything. Other servers keep a socket until the client or the kernel gives it up.
    """
    files = open_files()
    tasks = asyncio.all_tasks()
    deadline = 60.0 if overflow == "disconnect" else 1.0
    async with hall(ws, overflow, send=deadline) as here:
        await here.broadcast()
        settled = open_files()
        serving = len(asyncio.all_tasks())
        async with stalling(here):
            own = open_files() - settled - STALLED
            for _ in range(45):
                await here.broadcast()
                assert sum(here.pending()) < STALLED * (16 * 9 + 64 + 32) * KIB
            await eventually(lambda: len(here.hub.connections) == len(here.readers), timeout=20)
            await here.broadcast()
            here.check()
            each = STALLED // len(KINDS)
            # `on_disconnect`, which notes them, comes after the connection has left the hub.
            await eventually(lambda: sum(ends.total() for ends in here.ends.values()) == STALLED)
            assert here.ends == {
                "never reads": {4508: each},
                "reads a byte a second": {4508: each},
                "half-closed": {1006: each},
                "half-closed and reading": {1006: each},
                "vanished": {4508: each},
                "reads": {},
            }
            assert here.hub.stats().slow == 3 * each
            assert here.hub.rooms == {"a": len(here.readers)}

            def held() -> list[str]:
                gc.collect()
                return [kind for kind in KINDS for ref in here.connections[kind] if ref() is not None]

            if ws is QuickProtocol:
                await eventually(lambda: open_files() <= settled + own, timeout=10)
                await eventually(lambda: not held(), timeout=10)
            await eventually(lambda: len(asyncio.all_tasks()) <= serving + STALLED, timeout=10)
        await eventually(lambda: not held(), timeout=10)
        await eventually(lambda: len(asyncio.all_tasks()) <= serving, timeout=10)
        await here.broadcast()
        here.check()
    await no_task_left(but=tasks)
    await eventually(lambda: open_files() <= files, timeout=10)


@pytest.mark.parametrize("ws", [QuickProtocol, PORTABLE], ids=["direct", "portable"])
async def test_members_that_vanish_from_a_room_in_which_nothing_happens(ws: Any) -> None:
    """Nothing is sent to them, so only the server's ping finds out; then they are gone as well."""
    hub = Hub()
    app = app_of(Member, hub=hub, limits=Limits(close=0.2))
    app.state.ends = {"vanished": Counter[int]()}
    app.state.connections = {}
    async with (
        serve(app, ws=ws, ws_ping_interval=0.2, ws_ping_timeout=0.2) as server,
        DroppingProxy(server.port) as proxy,
        AsyncExitStack() as stack,
    ):
        for _ in range(5):
            stack.callback((await Stalled("vanished").connect(proxy.port)).socket.close)
        await eventually(lambda: hub.rooms == {"a": 5})
        await proxy.drop()
        await eventually(lambda: sum(app.state.ends["vanished"].values()) == 5, timeout=10)
        assert not hub.connections
