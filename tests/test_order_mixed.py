"""Everything that one connection is sent arrives in the order in which it was sent, however it reads."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from tests.envelopes import app_of, receive, send
from tests.paths import DIRECT, KIB, SEND_BUFFER, connect_with_small_buffer, each_path, is_direct
from tests.support import Server, connect, eventually, serve
from wsrouter import Connection, Hub, Limits, Message, WebSocketHandler, on


class Sent(Message):
    number: int
    filler: str = ""


class Record:
    """Numbers what is sent to one client, at the moment at which it is sent."""

    def __init__(self, chance: random.Random) -> None:
        self.numbers = 0
        self.sizes = [10]
        self._chance = chance

    def next(self) -> Sent:
        """Return the next message to that client: it has to be sent at once."""
        self.numbers += 1
        return Sent(number=self.numbers, filler="x" * self._chance.choice(self.sizes))


def room_of(connection: Connection) -> str:
    """Return a room that it is in: "b", if it has not left that for the moment."""
    return "b" if "b" in connection.rooms else "a"


class Watched(WebSocketHandler):
    """The client in question."""

    def __init__(self, connection: Connection) -> None:
        self.record: Record = connection.scope["app"].state.record

    async def on_connect(self) -> None:
        await self.join("a")
        await self.join("b")

    @on("reply")
    async def answer(self, message: int) -> Sent:
        for _ in range(message):
            await asyncio.sleep(0)
        return self.record.next()

    @on("sync")
    def answer_from_thread(self, message: int) -> None: ...

    @on("stream")
    async def stream(self, message: int) -> AsyncIterator[Sent]:
        for _ in range(message):
            if message % 2:
                await asyncio.sleep(0)
            yield self.record.next()

    @on("mix")
    async def mix(self, message: str) -> Sent:
        await self.broadcast("a", self.record.next())
        await self.send(self.record.next())
        if message == "suspend":
            await asyncio.sleep(0)
        await self.broadcast(room_of(self.connection), self.record.next())
        await self.broadcast("b", Sent(number=-1), exclude=self.connection.id)
        await self.broadcast("a", self.record.next())
        return self.record.next()


class Reader:
    """Reads what comes until the call "last" is answered, except while it is told to be slow."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._reads = asyncio.Event()
        self._reads.set()
        self.numbers: list[int] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        envelope: dict[str, Any] = {}
        while envelope.get("id") != "last":
            await self._reads.wait()
            envelope = json.loads(await self._ws.recv())
            if "filler" in (envelope.get("data") or ()):
                self.numbers.append(envelope["data"]["number"])
            else:  # the answer of a method that has nothing to say
                assert envelope["type"] == "$ok"

    def stop(self) -> None:
        """Cease to read."""
        self._reads.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reads.set()


class Senders:
    """Sends to the client in question in every way there is."""

    def __init__(self, chance: random.Random, app: FastAPI, server: Server, ws: ClientConnection) -> None:
        self._chance = chance
        self._record: Record = app.state.record
        self._hub: Hub = app.state.hub
        (self.connection,) = self._hub.connections.values()
        self._http = httpx.AsyncClient(trust_env=False, verify=server.trust or True, base_url=server.http())
        self._ws = ws
        self._ways: list[Callable[[], Awaitable[object]]] = [
            self.ask,
            self.ask,
            self.broadcast,
            self.burst,
            self.to_others,
            self.send,
            self.to_user,
            self.leave_and_join,
            self.post,
        ]

    async def act(self, times: int) -> None:
        """Send in so many ways."""
        for _ in range(times):
            await self._chance.choice(self._ways)()
            if self._chance.random() < 0.3:
                await asyncio.sleep(0)

    async def ask(self) -> None:
        type = self._chance.choice(["reply", "stream", "mix", "sync"])
        data = self._chance.choice(["go", "suspend"]) if type == "mix" else self._chance.randrange(4)
        await send(
            self._ws, type, data, **({"id": self._chance.randrange(10**9)} if self._chance.random() < 0.5 else {})
        )

    async def broadcast(self) -> None:
        await self._hub.broadcast(self._chance.choice(["a", room_of(self.connection)]), self._record.next())

    async def burst(self) -> None:
        for _ in range(self._chance.randrange(2, 100)):
            await self._hub.broadcast("a", self._record.next())

    async def to_others(self) -> None:
        await self._hub.broadcast("a", Sent(number=-1), exclude=[self.connection.id])

    async def send(self) -> None:
        await self.connection.send(self._record.next())

    async def to_user(self) -> None:
        await self._hub.send_to_user("ann", self._record.next())

    async def leave_and_join(self) -> None:
        await self._hub.leave(self.connection, "b")
        await self._hub.broadcast("b", Sent(number=-1))
        await self._hub.join(self.connection, "b")

    async def post(self) -> None:
        assert (await self._http.post("/announce")).status_code == 200

    async def aclose(self) -> None:
        await self._http.aclose()


async def log_in(connection: Connection) -> None:
    connection.scope["user"] = type("User", (), {"id": "ann"})


@each_path
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("seed", range(3))
async def test_what_is_sent_arrives_in_order(ws: str, compression: str | None, seed: int) -> None:
    """Replies, streams, sends and broadcasts, mixed, while the client is fast, slow and fast again."""
    chance = random.Random(seed)
    hub = Hub()
    limits = Limits(outbox_bytes=10**9, outbox_frames=10**6, send=60)
    app = app_of(Watched, hub=hub, guards=[log_in], limits=limits)
    app.state.hub, app.state.record = hub, Record(chance)
    record: Record = app.state.record

    @app.post("/announce")
    async def announce() -> None:
        await hub.broadcast("a", record.next())

    async with (
        serve(app, ws=ws, send_buffer=SEND_BUFFER) as server,
        await connect_with_small_buffer(server, compression=compression) as client,
        AsyncExitStack() as stack,
    ):
        reader = Reader(client)
        stack.callback(reader.task.cancel)
        await eventually(lambda: len(hub.rooms) == 2)
        senders = Senders(chance, app, server, client)
        stack.push_async_callback(senders.aclose)
        assert is_direct(senders.connection) is (ws == DIRECT)

        async def all_at_once(times: int) -> None:
            await asyncio.gather(*(senders.act(times) for _ in range(3)))

        await all_at_once(20)
        reader.stop()
        record.sizes = [10, 100, 4 * KIB, 20 * KIB]
        await all_at_once(20)
        while senders.connection.pending_bytes < 256 * KIB:
            await senders.burst()
            await asyncio.sleep(0)
        await all_at_once(5)
        reader.go_on()
        await all_at_once(20)
        record.sizes = [10]
        await eventually(lambda: senders.connection.pending_bytes == 0, timeout=20)
        await all_at_once(10)
        await send(client, "sync", 0, id="last")
        async with asyncio.timeout(20):
            await reader.task
        assert reader.numbers == list(range(1, record.numbers + 1))


@each_path
async def test_nobody_else_notices(ws: str) -> None:
    """Another member of the same rooms gets its own share in order while the first one does not read."""
    hub = Hub()
    app = app_of(Watched, hub=hub, limits=Limits(outbox_bytes=10**9, outbox_frames=10**6, send=60))
    app.state.record = record = Record(random.Random(1))
    record.sizes = [20 * KIB]
    async with serve(app, ws=ws, send_buffer=SEND_BUFFER) as server, connect(server) as other:
        await send(other, "sync", 1, id=1)
        await receive(other)
        stalled = await connect_with_small_buffer(server)
        await eventually(lambda: hub.rooms == {"a": 2, "b": 2})
        for number in range(100):
            await hub.broadcast("ab"[number % 2], record.next())
            assert (await receive(other))["data"]["number"] == number + 1
        for number in range(100):
            assert (await receive(stalled))["data"]["number"] == number + 1
        await stalled.close()
