"""The way straight to the socket: what `DirectTransport` promises, on both event loops, with and without TLS."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect as websockets_connect

from tests.certificate import Certificate
from tests.support import Server, connect, eventually, serve
from tests.uvicorn.conftest import Run
from tests.uvicorn.serving import OURS, Recorder, StalledClient, close, fill, frame, frames_until_end
from wsrouter.transports import framed
from wsrouter.uvicorn import WebSocketProtocol
from wsrouter.uvicorn.link import Link

CHUNK = framed(b"x" * 5000)


@dataclass
class Stalled:
    """A client that does not read, and the application that serves it."""

    client: StalledClient
    app: Recorder
    server: Server


@asynccontextmanager
async def stalled(tls: Certificate | None, ws: str | type[WebSocketProtocol] = OURS) -> AsyncGenerator[Stalled]:
    app = Recorder()
    options: dict[str, Any] = tls.options if tls else {}
    async with (
        serve(app, ws=ws, lifespan="off", **options) as server,
        StalledClient(server, tls.trust if tls else None) as client,
    ):
        assert await client.handshake() == 101
        await app.opened.wait()
        yield Stalled(client, app, server)


def test_it_pauses_above_64_kib_and_resumes(run: Run, tls: Certificate | None) -> None:
    """It pauses when more than 64 KiB wait for the kernel, and tells when it goes on. Nothing is lost."""

    async def test() -> None:
        async with stalled(tls) as each:
            transport = each.app.direct
            resumed = asyncio.Event()
            transport.attach(resumed.set, lambda: None)
            assert (transport.paused, transport.buffered()) == (False, 0)
            count = fill(transport, CHUNK)
            assert 65_536 < transport.buffered() < 65_536 + 2 * len(CHUNK)
            assert not resumed.is_set()
            assert await each.client.read(count * len(CHUNK)) == CHUNK * count
            await asyncio.wait_for(resumed.wait(), 5)
            assert not transport.paused

    run(test())


def test_a_frame_does_not_wait_for_the_one_before(run: Run, tls: Certificate | None) -> None:
    """Nagle's algorithm is off, also for a socket that uvicorn has bound: a reply and what follows go out at once."""

    async def test() -> None:
        async with stalled(tls) as each:
            assert isinstance(each.app.direct, Link)
            end = each.app.direct.transport.get_extra_info("socket")
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(test())


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the platform has no such bound")
def test_the_kernel_takes_little_that_it_can_not_send(run: Run, tls: Certificate | None) -> None:
    """What a client does not take waits in the outbox, where policies see it; by itself Linux takes 4 MB here."""

    async def test() -> None:
        async with stalled(tls) as each:
            each.app.direct.attach(lambda: None, lambda: None)
            assert fill(each.app.direct, CHUNK) * len(CHUNK) < 1_000_000

    run(test())


def test_what_is_written_arrives_in_order(run: Run, tls: Certificate | None) -> None:
    """Frames of both paths arrive in the order in which they were given."""

    async def test() -> None:
        app = Recorder(echoes=True)
        async with serve(app, ws=OURS, lifespan="off", **(tls.options if tls else {})) as server:
            url = server.url().replace("ws:", "wss:") if tls else server.url()
            async with websockets_connect(url, proxy=None, ssl=tls.trust if tls else None) as ws:
                await app.opened.wait()
                app.direct.write(framed("one") + framed(b"two"))
                await ws.send("three")
                assert [await ws.recv() for _ in range(3)] == ["one", b"two", "three"]

    run(test())


def test_a_close_that_can_not_finish_is_an_abort(run: Run, tls: Certificate | None) -> None:
    """A client that does not read is gone when the time for closing is up, and the application is told."""

    async def test() -> None:
        async with stalled(tls) as each:
            fill(each.app.direct, CHUNK)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            each.app.direct.close(4508, "slow", 0.2)
            assert each.app.direct.paused
            await asyncio.wait_for(each.app.ended.wait(), 5)
            assert 0.15 < loop.time() - begin < 2
            assert each.app.events[-1]["code"] == 1006

    run(test())


def test_a_close_comes_after_what_is_buffered(run: Run, tls: Certificate | None) -> None:
    """The close frame stands behind all that was written, a second close does nothing, and nothing follows."""

    async def test() -> None:
        async with stalled(tls) as each:
            transport = each.app.direct
            count = fill(transport, CHUNK)
            transport.close(4000, "€" * 100, 5)
            transport.close(4001, "again", 5)
            transport.write(framed("late"))
            assert await each.client.read(count * len(CHUNK)) == CHUNK * count
            assert await each.client.frame() == (8, (4000).to_bytes(2, "big") + "€".encode() * 41)
            assert not each.app.ended.is_set()
            each.client.send(close(4000))
            assert await each.client.end() == b""
            await asyncio.wait_for(each.app.ended.wait(), 5)
            assert [(event["code"], event["reason"]) for event in each.app.events] == [(4000, "")]

    run(test())


def test_an_abort_is_at_once(run: Run, tls: Certificate | None) -> None:
    """After an abort the application is told that the client is gone, whatever was buffered."""

    async def test() -> None:
        async with stalled(tls) as each:
            fill(each.app.direct, CHUNK)
            each.app.direct.abort()
            await asyncio.wait_for(each.app.ended.wait(), 5)
            each.app.direct.abort()
            each.app.direct.close(1000, "", 1)
            each.app.direct.write(b"late")
            assert each.app.direct.paused

    run(test())


async def test_an_abort_never_raises() -> None:
    """A socket that does not take the option for a reset, since it is closed already, is let go of all the same."""

    class Ended(asyncio.Transport):
        aborted = False

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            with socket.socket() as end:
                return end

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

        def abort(self) -> None:
            self.aborted = True

    link = Link(asyncio.get_running_loop(), max_size=1, ping_interval=None, ping_timeout=None)
    link.connection_made(transport := Ended())
    link.abort()
    assert transport.aborted


def test_a_client_that_half_closes_and_does_not_read_is_aborted(run: Run) -> None:
    """FIN without a close frame ends the connection, even if what is buffered never leaves."""

    async def test() -> None:
        class Quick(WebSocketProtocol):
            close_timeout = 0.2

        async with stalled(None, Quick) as each:
            fill(each.app.direct, CHUNK)
            each.client.half_close()
            await asyncio.wait_for(each.app.ended.wait(), 5)
            assert each.app.events[-1]["code"] == 1006

    run(test())


async def test_it_is_paused_until_accept_and_after_the_end() -> None:
    """Nothing is to be written before the handshake is accepted, and after the client's close frame."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        transport = scope["extensions"]["wsrouter.transport"]["transport"]
        seen.append(transport.paused)
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(transport.paused)
        await receive()
        seen.append(transport.paused)

    async with serve(app, ws=OURS, lifespan="off") as server:
        ws = await connect(server)
        await ws.close()
    assert seen == [True, False, True]


@pytest.mark.parametrize("code", [0, 1005, 1006, 2000, 5000])
async def test_a_close_never_raises(code: int) -> None:
    """A code that nobody may send becomes 1011."""
    app = Recorder()
    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as ws:
        await app.opened.wait()
        app.direct.close(code, "", 1)
        await ws.wait_closed()
        assert ws.close_code == 1011


async def test_replies_are_compressed_where_that_pays() -> None:
    """A long message that compresses well is compressed, each on its own; others are not."""
    app = Recorder()
    noise = random.Random(1).randbytes(3000)
    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as ws:
        await app.opened.wait()
        transport = app.direct
        assert transport.window_bits == 12
        long = transport.frame("long " * 1000)
        assert len(long) < 200
        assert transport.frame("short") == framed("short")
        assert transport.frame(noise) == framed(noise)
        transport.write(long + framed("x" * 2000) + transport.frame(b"\0" * 100_000) + long)
        received = [await ws.recv() for _ in range(4)]
        assert received == ["long " * 1000, "x" * 2000, b"\0" * 100_000, "long " * 1000]


async def test_nothing_is_compressed_for_a_client_that_does_not_offer_it() -> None:
    """Without permessage-deflate every frame goes out as it is."""
    app = Recorder()
    async with serve(app, ws=OURS, lifespan="off") as server, connect(server, compression=None):
        await app.opened.wait()
        assert app.direct.window_bits is None
        assert app.direct.frame("long " * 1000) == framed("long " * 1000)


async def test_a_frame_may_be_shared_by_connections() -> None:
    """A frame that was compressed for one connection can be read by another, in any order."""
    apps = [Recorder(), Recorder()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await apps[int(scope["path"][1:])](scope, receive, send)

    async with (
        serve(app, ws=OURS, lifespan="off") as server,
        connect(server, "/0") as one,
        connect(server, "/1") as two,
    ):
        for each in apps:
            await each.opened.wait()
        frames = [apps[0].direct.frame(f"message {number} " * 500) for number in range(3)]
        apps[1].direct.write(frames[2] + frames[0])
        apps[0].direct.write(frames[0] + frames[1] + frames[2])
        assert [await two.recv() for _ in range(2)] == [f"message {number} " * 500 for number in (2, 0)]
        assert [await one.recv() for _ in range(3)] == [f"message {number} " * 500 for number in range(3)]


async def test_pings_stand_between_whole_frames() -> None:
    """The server's pings and pongs never stand inside of what was written in one piece."""
    app = Recorder()
    async with serve(app, ws=OURS, lifespan="off", ws_ping_interval=0.01) as server, StalledClient(server) as client:
        await client.handshake()
        await app.opened.wait()
        for number in range(50):
            app.direct.write(framed(b"x" * 200) * 20)
            client.send(frame(9, bytes([number])))
            await asyncio.sleep(0.002)
        app.direct.close(1000, "", 5)
        client.send(close(1000))
        found = await frames_until_end(client)
    assert {first for first, _ in found} == {0x82, 0x88, 0x89, 0x8A}
    assert [payload for first, payload in found if first == 0x8A] == [bytes([number]) for number in range(50)]
    assert all(payload == b"x" * 200 for first, payload in found if first == 0x82)
    await eventually(app.ended.is_set)
