"""Clients that do not read for a while, or never again: what becomes of their publications, and of them."""

import asyncio
import json
import select
import time
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.envelopes import app_of, close_of, receive, send
from tests.paths import DIRECT, KIB, PORTABLE, SEND_BUFFER, connect_with_small_buffer, each_path, is_direct
from tests.support import Server, at_rest, connect, eventually, serve
from wsrouter import CloseInfo, Connection, Hub, Limits, Message, RoomOptions, WebSocketHandler, on
from wsrouter.outbox import Overflow


class Chunk(Message):
    number: int
    filler: str = ""


class Price(Message, key="symbol"):
    symbol: str
    number: int
    filler: str = ""


class Member(WebSocketHandler):
    """Joins the rooms that its query names."""

    def __init__(self, connection: Connection) -> None:
        self.ends: list[CloseInfo] = connection.scope["app"].state.ends

    async def on_connect(self) -> None:
        for room in self.connection.query_params.getlist("room"):
            await self.join(room)

    @on("echo")
    async def echo(self, message: int) -> int:
        return message

    @on("flood")
    async def flood(self, message: int) -> str:
        state = self.connection.scope["app"].state
        for number in range(message):
            await self.send(chunk(number))
            state.sent = number
        return "done"

    @on("join")
    async def enter(self, message: str) -> None:
        await self.join(message)

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.ends.append(close)


def chunk(number: int) -> Chunk:
    return Chunk(number=number, filler="x" * 8 * KIB)


async def log_in(connection: Connection) -> None:
    connection.scope["user"] = type("User", (), {"id": connection.query_params.get("user")})


class Hall:
    """A served hub, a client that does not read, and one that does."""

    def __init__(self, hub: Hub, server: Server, stalled: ClientConnection, neighbour: ClientConnection) -> None:
        self.hub = hub
        self.server = server
        self.stalled = stalled
        self.neighbour = neighbour
        self.connection = next(each for each in hub.connections.values() if "stalled" in each.query_params)
        self.ends: list[CloseInfo] = self.connection.scope["app"].state.ends
        self.heard: list[Any] = []

    async def broadcast(self, *messages: Message, room: str = "a") -> None:
        """Broadcast, and see that the neighbour gets it at once."""
        for message in messages:
            await self.hub.broadcast(room, message)
            self.heard.append(await receive(self.neighbour))
            assert self.heard[-1]["data"] == message.model_dump()

    async def fill(self) -> int:
        """Broadcast until the kernel and the transport are full; return how much."""
        count = 0
        full = 64 * KIB + SEND_BUFFER if is_direct(self.connection) else 0
        while self.connection.pending_bytes <= full:
            await self.broadcast(chunk(count))
            count += 1
        return count


@asynccontextmanager
async def hall(
    ws: str,
    options: RoomOptions | None = None,
    *,
    handler: type[WebSocketHandler] = Member,
    rooms: dict[str, RoomOptions] | None = None,
    query: str = "room=a",
    **limits: Any,
) -> AsyncGenerator[Hall]:
    """Serve a hub with two members of its rooms, one of which reads nothing."""
    hub = Hub(rooms=rooms or {"*": options or RoomOptions()})
    limits = {"outbox_frames": 20, **limits}
    app = app_of(handler, hub=hub, limits=Limits(**limits), guards=[log_in])
    app.state.ends = []
    app.state.sent = 0
    async with serve(app, ws=ws, send_buffer=SEND_BUFFER) as server, AsyncExitStack() as stack:
        stalled = await connect_with_small_buffer(server, f"/?stalled=1&user=u&{query}")
        stack.callback(stalled.transport.abort)
        neighbour = await stack.enter_async_context(connect(server, f"/?{query}", compression=None, max_size=None))
        await eventually(lambda: len(hub.connections) == 2 and set(hub.rooms.values()) == {2})
        here = Hall(hub, server, stalled, neighbour)
        assert is_direct(here.connection) is (ws == DIRECT)
        yield here


async def read_until(ws: ClientConnection, type: str) -> list[Any]:
    """Return what comes until a frame of some type does."""
    frames: list[Any] = []
    while not frames or frames[-1]["type"] != type:
        frames.append(await receive(ws))
    return frames


async def read_to_the_end(ws: ClientConnection) -> list[Any]:
    """Return what comes until the connection ends."""
    frames: list[Any] = []
    with suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            while True:
                frames.append(json.loads(await ws.recv()))
    return frames


def account(frames: list[Any], room: str = "a") -> tuple[list[int], int]:
    """Return the numbers that came of a room, and how many the gaps tell of; each gap has to be in its place."""
    numbers: list[int] = []
    gaps = 0
    dropped = 0
    for frame in frames:
        if frame.get("room") != room:
            continue
        if frame["type"] == "$gap":
            assert set(frame["data"]) == {"dropped"}
            gaps += frame["data"]["dropped"]
            continue
        before = numbers[-1] if numbers else -1
        assert frame["data"]["number"] == before + 1 + gaps
        dropped, gaps = dropped + gaps, 0
        numbers.append(frame["data"]["number"])
    return numbers, dropped + gaps


@each_path
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
@pytest.mark.parametrize("bound", [{"outbox_frames": 20}, {"outbox_bytes": 160 * KIB}])
async def test_a_gap_tells_what_was_dropped(ws: str, overflow: Overflow, bound: dict[str, Any]) -> None:
    """A member that reads again gets frames and gaps that account for all that was published, in its place.

    Its neighbour misses nothing, and the hub counts.
    """
    async with hall(ws, RoomOptions(overflow=overflow), **bound) as here:
        published = await here.fill()
        await here.broadcast(*map(chunk, range(published, published + 60)))
        published += 60
        assert here.connection.pending_bytes <= 20 * 9 * KIB + 100 * KIB, "the transport's part included"
        assert here.hub.stats().dropped >= 40
        await send(here.stalled, "echo", 1, id="end")
        frames = await read_until(here.stalled, "$ok")
        numbers, dropped = account(frames[:-1])
        assert len(numbers) + dropped == published
        assert dropped == here.hub.stats().dropped
        assert (here.hub.stats().slow, here.hub.stats().superseded) == (0, 0)
        if overflow == "drop_old":
            assert numbers[-1] == published - 1, "the newest are kept"
        else:
            gap = next(place for place, frame in enumerate(frames) if frame["type"] == "$gap")
            assert gap == len(frames) - 2, "the oldest are kept"
        await here.broadcast(chunk(published))
        assert (await receive(here.stalled))["data"]["number"] == published
        await eventually(lambda: here.connection.pending_bytes == 0)


@each_path
async def test_stalled_again_and_again(ws: str) -> None:
    """However often it stalls and reads a little, nothing is unaccounted for."""
    async with hall(ws, RoomOptions(overflow="drop_old"), outbox_frames=5) as here:
        published = 0
        frames: list[Any] = []
        for _ in range(6):
            await here.broadcast(*map(chunk, range(published, published + 40)))
            published += 40
            frames += [await receive(here.stalled) for _ in range(15)]
        await send(here.stalled, "echo", 1, id="end")
        frames += await read_until(here.stalled, "$ok")
        numbers, dropped = account(frames[:-1])
        assert len(numbers) + dropped == published
        assert dropped == here.hub.stats().dropped > 0


@each_path
async def test_the_latest_of_each_key(ws: str) -> None:
    """What waits is superseded by what is newer of the same key, so that a member that reads again is up to date."""
    async with hall(ws, RoomOptions(overflow="latest"), outbox_frames=20) as here:
        published = await here.fill()
        symbols = "xyz"
        for number in range(50):
            for symbol in symbols:
                await here.broadcast(Price(symbol=symbol, number=number, filler="x" * KIB))
        assert here.connection.pending_bytes < 200 * KIB
        stats = here.hub.stats()
        assert stats.superseded > 80
        assert (stats.dropped, stats.slow) == (0, 0)
        await send(here.stalled, "echo", 1, id="end")
        frames = (await read_until(here.stalled, "$ok"))[:-1]
        assert [frame["data"]["number"] for frame in frames if frame["type"] == "chunk"] == list(range(published))
        prices = [frame["data"] for frame in frames if frame["type"] == "price"]
        for symbol in symbols:
            numbers = [price["number"] for price in prices if price["symbol"] == symbol]
            assert numbers == sorted(set(numbers))
            assert numbers[-1] == 49
        assert len(prices) + stats.superseded == 150


@each_path
async def test_more_keys_than_fit(ws: str) -> None:
    """Then the oldest are dropped, a gap says so, and the newest are there."""
    async with hall(ws, RoomOptions(overflow="latest"), outbox_frames=10) as here:
        published = await here.fill()
        for number in range(100):
            await here.broadcast(Price(symbol=str(number), number=number))
        stats = here.hub.stats()
        assert stats.dropped >= 80
        await send(here.stalled, "echo", 1, id="end")
        frames = (await read_until(here.stalled, "$ok"))[:-1]
        gaps = sum(frame["data"]["dropped"] for frame in frames if frame["type"] == "$gap")
        assert gaps == stats.dropped
        assert len(frames) - sum(frame["type"] == "$gap" for frame in frames) + gaps == published + 100
        assert [frame["data"]["number"] for frame in frames[-5:]] == [95, 96, 97, 98, 99]


@each_path
async def test_a_policy_is_about_its_own_room(ws: str) -> None:
    """Frames of another room, and replies, are not dropped; in the outbox of a connection each room has its own gap."""
    rooms = {"a": RoomOptions(overflow="drop_old"), "b": RoomOptions(overflow="drop_new")}
    async with hall(ws, rooms=rooms, query="room=a&room=b", outbox_frames=10) as here:
        published = await here.fill()
        others = 0
        for number in range(30):
            await here.broadcast(chunk(published + number))
            if number % 3 == 0:
                await here.broadcast(chunk(others), room="b")
                others += 1
        await send(here.stalled, "echo", 7, id="end")
        frames = await read_until(here.stalled, "$ok")
        assert frames[-1] == {"type": "$ok", "id": "end", "data": 7}
        for room, count in [("a", published + 30), ("b", others)]:
            numbers, dropped = account(frames, room)
            assert len(numbers) + dropped == count


@each_path
async def test_a_member_that_does_not_keep_up_is_closed(ws: str) -> None:
    """Where the policy is `disconnect`: 4508 behind an unbroken beginning, and its neighbour misses nothing."""
    async with hall(ws) as here:
        published = await here.fill()
        while here.connection.closed is None:
            await here.broadcast(chunk(published))
            published += 1
        assert here.connection.closed == CloseInfo(4508, "slow consumer", "server")
        assert here.hub.stats().slow == 1
        await here.broadcast(chunk(published))
        frames = await read_to_the_end(here.stalled)
        assert (here.stalled.close_code, here.stalled.close_reason) == (4508, "slow consumer")
        numbers = [frame["data"]["number"] for frame in frames]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) < published
        await eventually(lambda: here.ends == [CloseInfo(4508, "slow consumer", "server")])
        assert here.hub.rooms == {"a": 1}
        assert here.hub.stats().connections == 1


@each_path
async def test_messages_to_a_user_that_does_not_read(ws: str) -> None:
    """Their policy is `disconnect`, whatever that of the rooms is."""
    async with hall(ws, RoomOptions(overflow="drop_old")) as here:
        for number in range(10_000):
            await here.hub.send_to_user("u", chunk(number))
            await asyncio.sleep(0)
            if here.connection.closed is not None:
                break
        assert here.connection.closed == CloseInfo(4508, "slow consumer", "server")
        assert here.hub.stats().dropped == 0


@each_path
async def test_a_reply_waits_for_so_long(ws: str) -> None:
    """A handler whose client does not read waits for `Limits.send` seconds; then 4508, and it is over."""
    async with hall(ws, send=0.3, drain=0.1) as here:
        began = time.monotonic()
        await send(here.stalled, "flood", 100_000)
        await eventually(lambda: here.connection.closed, timeout=10)
        assert time.monotonic() - began > 0.3
        assert here.connection.closed == CloseInfo(4508, "slow consumer", "server")
        await eventually(lambda: here.ends == [CloseInfo(4508, "slow consumer", "server")], timeout=10)
        assert here.hub.stats().slow == 1


@each_path
async def test_a_reply_waits_and_goes_on(ws: str) -> None:
    """A client that reads in time gets everything, and what the handler returns at last."""
    async with hall(ws) as here:
        await send(here.stalled, "flood", 200, id=1)
        await at_rest(lambda: here.connection.scope["app"].state.sent)
        assert here.connection.scope["app"].state.sent < 100
        frames = await read_until(here.stalled, "$ok")
        assert [frame["data"]["number"] for frame in frames[:-1]] == list(range(200))
        assert frames[-1]["data"] == "done"


@each_path
async def test_a_few_bytes_that_nobody_takes(ws: str) -> None:
    """A client that takes nothing for `Limits.send` seconds is gone, also where the outbox is far from full."""
    async with hall(ws, RoomOptions(overflow="drop_old"), send=0.3, outbox_frames=10_000) as here:
        published = await here.fill()
        await here.broadcast(chunk(published), chunk(published + 1))
        await eventually(lambda: here.connection.closed == CloseInfo(4508, "slow consumer", "server"), timeout=10)


@each_path
async def test_a_slow_client_is_not_a_stalled_one(ws: str) -> None:
    """One that takes something all the time is not closed, however long the whole takes."""
    async with hall(ws, RoomOptions(overflow="drop_old"), send=0.5, outbox_frames=30) as here:
        published = await here.fill()
        await here.broadcast(*map(chunk, range(published, published + 30)))
        published += 30
        frames: list[Any] = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            frames += [await receive(here.stalled) for _ in range(8)]
            await here.broadcast(*map(chunk, range(published, published + 8)))
            published += 8
            await asyncio.sleep(0.05)
        assert here.connection.closed is None
        await send(here.stalled, "echo", 1, id="end")
        frames += await read_until(here.stalled, "$ok")
        numbers, dropped = account(frames)
        assert len(numbers) + dropped == published


class Raw(WebSocketHandler):
    def __init__(self, connection: Connection) -> None:
        self.ends: list[CloseInfo] = connection.scope["app"].state.ends

    async def on_connect(self) -> None:
        await self.join("raw")

    async def on_message(self, message: bytes) -> None: ...

    async def on_disconnect(self, close: CloseInfo) -> None:
        self.ends.append(close)


@each_path
async def test_raw_rooms(ws: str) -> None:
    """Frames go out as they are given; who does not keep up is closed, since no frame could tell of a gap."""
    async with hall(ws, RoomOptions(raw=True), handler=Raw) as here:
        for number in range(10_000):
            frame = number.to_bytes(4) + b"x" * 8 * KIB
            await here.hub.broadcast("raw", frame)
            assert await here.neighbour.recv() == frame
            if here.connection.closed is not None:
                break
        await here.hub.broadcast("raw", "text")
        assert await here.neighbour.recv() == "text"
        numbers: list[int] = []
        with suppress(ConnectionClosed):
            while True:
                numbers.append(int.from_bytes(bytes((await here.stalled.recv(decode=False))[:4])))
        assert here.stalled.close_code == 4508
        assert numbers == list(range(len(numbers)))


@each_path
async def test_how_many_members(ws: str) -> None:
    """A client that asks for a place in a full room learns that there is none."""
    async with hall(ws, rooms={"a": RoomOptions(max_members=2)}) as here, connect(here.server, "/") as third:
        await send(third, "join", "a", id=1)
        assert (await receive(third))["error"] == {
            "code": "conflict",
            "message": "No more than 2 members in this room",
            "retry": False,
        }
        await here.neighbour.close()
        await eventually(lambda: here.hub.rooms == {"a": 1})
        await send(third, "join", "a", id=2)
        assert await receive(third) == {"type": "$ok", "id": 2}


def sockets_of(port: int) -> int:
    """Return how many sockets of a server the kernel has, besides the one that listens."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if int(local.split(":")[1], 16) == port and state != "0A":
            count += 1
    return count


def is_reset(client: ClientConnection) -> bool:
    """Whether the server has reset a connection, of which its kernel keeps nothing then."""
    poll = select.poll()
    poll.register(client.transport.get_extra_info("socket").fileno(), 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


async def test_a_stalled_socket_is_gone_from_the_kernel() -> None:
    """On the direct path within 2 s of the limit, although the client never reads; memory is bounded all the while."""
    async with hall(DIRECT, outbox_frames=10**6, outbox_bytes=KIB * KIB) as here:
        most = 0
        tracemalloc.start()
        try:
            published = await here.fill()
            before, _ = tracemalloc.get_traced_memory()
            while here.connection.closed is None:
                await here.broadcast(chunk(published))
                here.heard.clear()
                most = max(most, here.connection.pending_bytes)
                published += 1
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        limit = time.monotonic()
        assert KIB * KIB < most < KIB * KIB + 128 * KIB
        assert after - before < 2 * KIB * KIB
        assert not is_reset(here.stalled)
        await eventually(lambda: is_reset(here.stalled), timeout=5)
        assert time.monotonic() - limit < 2.5
        assert sockets_of(here.server.port) == 1
        await eventually(lambda: here.ends == [CloseInfo(4508, "slow consumer", "server")])
        await eventually(lambda: here.hub.stats().connections == 1)
        await here.broadcast(chunk(published))


async def test_a_stalled_socket_on_another_server_outlives_its_connection() -> None:
    """On the portable path the connection ends in time, and its memory with it; the socket is the server's affair."""
    async with hall(PORTABLE, close=0.2, send=0.5) as here:
        published = await here.fill()
        while here.connection.closed is None:
            await here.broadcast(chunk(published))
            published += 1
        await eventually(lambda: here.ends, timeout=10)
        await eventually(lambda: here.hub.stats().connections == 1)
        assert here.connection.pending_bytes == 0
        await here.broadcast(chunk(published))


@each_path
async def test_a_close_is_not_held_up_by_a_client_that_does_not_read(ws: str) -> None:
    """The server closes a stalled client, and `on_disconnect` runs in time."""
    async with hall(ws, close=0.2, drain=0.2, outbox_frames=1000) as here:
        published = await here.fill()
        await here.broadcast(*map(chunk, range(published, published + 20)))
        began = time.monotonic()
        await here.hub.disconnect_user("u")
        await eventually(lambda: here.ends, timeout=10)
        assert time.monotonic() - began < 3
        assert here.ends == [CloseInfo(4403, "", "server")]


async def test_the_socket_of_a_stalled_client_that_was_closed_is_gone() -> None:
    """On the direct path `Limits.close` seconds after the close, whatever waits for it."""
    async with hall(DIRECT, close=0.2, drain=0.2, outbox_frames=1000) as here:
        published = await here.fill()
        await here.broadcast(*map(chunk, range(published, published + 20)))
        await here.hub.disconnect_user("u")
        await eventually(lambda: is_reset(here.stalled), timeout=5)


@each_path
async def test_a_client_that_reads_while_it_is_closed(ws: str) -> None:
    """All that was sent before `close` comes before the close frame."""
    async with hall(ws, outbox_frames=1000) as here:
        published = await here.fill()
        await here.broadcast(*map(chunk, range(published, published + 20)))
        closing = asyncio.create_task(here.connection.close(4000, "enough"))
        await asyncio.sleep(0)
        await here.broadcast(chunk(published + 20))
        frames = await read_to_the_end(here.stalled)
        assert (here.stalled.close_code, here.stalled.close_reason) == (4000, "enough")
        assert [frame["data"]["number"] for frame in frames] == list(range(published + 20))
        await closing


@each_path
async def test_a_client_that_keeps_up_is_never_late(ws: str) -> None:
    """A burst far above the bounds of the outbox reaches a client that reads, whole."""
    async with hall(ws, outbox_frames=200) as here:
        reading = asyncio.create_task(read_until(here.stalled, "price"))
        for number in range(1000):
            await here.hub.broadcast("a", Chunk(number=number))
            if number % 50 == 49:
                await eventually(lambda: here.connection.pending_bytes == 0)
        await here.hub.broadcast("a", Price(symbol="x", number=0))
        frames = await reading
        assert [frame["data"]["number"] for frame in frames[:-1]] == list(range(1000))
        for number in range(1000):
            assert (await receive(here.neighbour))["data"]["number"] == number


@each_path
async def test_a_close_code_comes_through(ws: str) -> None:
    """A client that reads sees why it was closed."""
    async with hall(ws) as here:
        await here.hub.disconnect_user("u", code=4409, reason="replaced")
        assert await close_of(here.stalled) == (4409, "replaced")
