"""What a client may cost: reads in slices, bounded memory, and an end to every wait for it."""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.certificate import Certificate
from tests.support import Server, connect, eventually, serve
from tests.uvicorn.conftest import Run
from tests.uvicorn.serving import OURS, Recorder, StalledClient, fill, frame, turns
from tests.wire import RawClient, request, text
from wsrouter.transports import framed
from wsrouter.uvicorn import WebSocketProtocol

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def flooding(server: Server, data: bytes, *, reads: bool = True) -> Generator[Callable[[], int]]:
    """Send data again and again, from a thread of its own; yields what tells how often it went out."""
    count = 0
    stopped = threading.Event()

    def flood() -> None:
        nonlocal count
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request())
            assert b" 101 " in client.recv(4096)
            client.settimeout(0.05)
            reader = threading.Thread(target=read, args=[client])
            reader.start()
            rest = memoryview(data)
            while not stopped.is_set():
                try:
                    rest = rest[client.send(rest) :] or memoryview(data)
                    count += len(rest) == len(data)
                except TimeoutError:
                    continue
                except OSError:
                    break
            reader.join()

    def read(client: socket.socket) -> None:
        while reads and not stopped.is_set():
            try:
                if not client.recv(1 << 20):
                    break
            except TimeoutError:
                continue
            except OSError:
                break

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield lambda: count
    finally:
        stopped.set()
        thread.join(10)


async def longest_turn(seconds: float) -> float:
    """Return the most that this thread computed between two turns of the event loop."""
    longest = 0.0
    end = time.monotonic() + seconds
    gc.disable()  # what the other tests have left behind takes its time too
    try:
        while time.monotonic() < end:
            computed = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - computed)
    finally:
        gc.enable()
    return longest


async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive, and do nothing."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"{}") * 40_000,
        frame(1) * 40_000,
        frame(9) * 40_000,
        frame(9, b"p" * 125) * 2000,
        frame(10) * 40_000,
        (frame(1, fin=False) + frame(0, fin=False) * 1000 + frame(0)) * 40,
        (frame(1, b"x", fin=False) + frame(0, b"x")) * 20_000,
    ],
    ids=["messages", "empty messages", "pings", "long pings", "pongs", "empty fragments", "fragments"],
)
async def test_a_flood_is_read_in_slices(data: bytes) -> None:
    """A client that sends as fast as it can never holds the event loop for 10 ms."""
    async with serve(swallow, ws=OURS, lifespan="off") as server:
        with flooding(server, data) as count:
            await eventually(lambda: count() > 0, 10)
            # The best of three: what runs on the other cores makes this one slower at times.
            assert min([await longest_turn(0.2) for _ in range(3)]) < 0.01


async def test_receive_gives_the_loop_back() -> None:
    """An application that only receives takes 16 messages between two turns of the event loop."""
    taken: list[int] = []
    turn = 0
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            taken.append(turn)
        done.set()

    async with serve(app, ws=OURS, lifespan="off") as server, RawClient(server) as client:
        await client.handshake()
        client.send(text("{}") * 5000 + frame(8))
        while not done.is_set():
            turn += 1
            await asyncio.sleep(0)
    assert len(taken) == 5000
    assert max(taken.count(each) for each in set(taken)) <= 16


async def test_pings_are_answered_while_messages_lie_unread() -> None:
    """An application that is busy does not make its client look dead: a few messages may wait."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (await receive())["type"] == "websocket.receive":
            pass

    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as ws:
        for number in range(15):
            await ws.send(str(number))
        await asyncio.wait_for(await ws.ping(), 5)
        go.set()


async def test_no_more_is_read_than_is_received() -> None:
    """With 16 messages or 64 KiB unread the socket is not read; all arrives when the application goes on."""
    go = asyncio.Event()
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (event := await receive())["type"] == "websocket.receive":
            seen.append(event["text"][:8])

    async with serve(app, ws=OURS, lifespan="off") as server, StalledClient(server) as client:
        await client.handshake()
        for number in range(200):
            client.send(frame(1, f"{number:08}".encode() + b"x" * 100_000))
        await turns(500)
        assert client.unsent > 10_000_000
        go.set()
        client.send(frame(8))
        await client.end()
        await eventually(lambda: len(seen) == 200, 10)
    assert seen == [f"{number:08}" for number in range(200)]


async def test_a_client_that_answers_no_ping_is_gone() -> None:
    """A client that does not even read is aborted after the ping's time and the time for closing."""

    class Quick(WebSocketProtocol):
        close_timeout = 0.2

    app = Recorder()
    options: dict[str, Any] = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
    async with serve(app, ws=Quick, lifespan="off", **options) as server, StalledClient(server) as client:
        await client.handshake()
        await app.opened.wait()
        fill(app.direct, framed(b"x" * 5000))
        begin = time.monotonic()
        await asyncio.wait_for(app.ended.wait(), 5)
        assert app.events == [{"type": "websocket.disconnect", "code": 1006, "reason": "keepalive ping timeout"}]
        await eventually(lambda: app.direct.buffered() == 0)
        assert 0.3 < time.monotonic() - begin < 3


async def test_a_client_that_answers_pings_stays() -> None:
    """Pongs keep the connection, also those of a client to which much is sent."""
    app = Recorder(echoes=True)
    options: dict[str, Any] = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.2}
    async with serve(app, ws=OURS, lifespan="off", **options) as server, connect(server) as ws:
        for number in range(20):
            await ws.send("x" * 1000 * number)
            assert len(await ws.recv()) == 1000 * number
            await asyncio.sleep(0.03)


async def test_a_slow_client_is_pinged_when_it_takes_something() -> None:
    """A client that takes longer for what is buffered than a ping's interval gets the ping behind it, and stays."""
    app = Recorder()
    options: dict[str, Any] = {"ws_ping_interval": 0.1, "ws_ping_timeout": 2}
    async with serve(app, ws=OURS, lifespan="off", **options) as server, StalledClient(server) as client:
        await client.handshake()
        await app.opened.wait()
        message = framed(b"x" * 5000)
        count = fill(app.direct, message)
        await asyncio.sleep(0.3)
        await client.read(count * len(message))
        opcode, payload = await client.frame()
        assert opcode == 9
        client.send(frame(10, payload))
        opcode, _ = await client.frame()
        assert opcode == 9
        assert not app.ended.is_set()


async def test_a_client_that_ignores_our_close_is_gone() -> None:
    """After a close of the application's, a client that floods on in place of answering is aborted."""

    class Quick(WebSocketProtocol):
        close_timeout = 0.3

    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        ended.set()

    async with serve(app, ws=Quick, lifespan="off") as server:
        with flooding(server, frame(1, b"more") * 1000) as count:
            await asyncio.wait_for(ended.wait(), 5)
            await asyncio.sleep(0.5)
            before = count()
            await asyncio.sleep(0.2)
            assert count() == before


def test_the_close_frame_for_a_breach_reaches_a_client_that_sends_on(run: Run, tls: Certificate | None) -> None:
    """The close frame arrives although the client has much more under way."""

    async def test() -> None:
        options: dict[str, Any] = {"ws_max_size": 1000, **(tls.options if tls else {})}
        served = serve(swallow, ws=OURS, lifespan="off", **options)
        async with served as server, StalledClient(server, tls.trust if tls else None) as client:
            await client.handshake()
            client.send(frame(1, b"x" * 5_000_000))
            assert await client.close_code() == 1009
            assert await client.end() == b""

    run(test())


@asynccontextmanager
async def server_process() -> AsyncGenerator[tuple[Server, int]]:
    """Run uvicorn in a process of its own, and yield its address and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = ["--ws", OURS, "--fd", str(listener.fileno()), "--lifespan", "off", "--log-level", "warning"]
        command = [sys.executable, "-m", "uvicorn", "tests.uvicorn.test_limits:swallow", *arguments]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, pass_fds=[listener.fileno()])
        server = Server(listener.getsockname()[1])
    try:
        async with RawClient(server) as client:
            assert await client.handshake() == 101
        yield server, process.pid
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize(
    ("data", "reads"),
    [
        (frame(9, b"p" * 125) * 1000, False),
        (frame(9) * 10_000, False),
        (frame(9, b"p" * 125) * 1000, True),
        (frame(1, fin=False) + frame(0, fin=False) * 10_000, True),
        (frame(1, b"x") * 10_000, True),
    ],
    ids=["pings of a client that never reads", "empty pings", "pings", "endless fragments", "messages"],
)
async def test_a_flood_does_not_fill_the_memory(data: bytes, reads: bool) -> None:
    """Whatever a client sends, and for how long, the server grows by less than 10 MB."""
    async with server_process() as (server, pid):
        before = memory(pid)
        with flooding(server, data, reads=reads) as count:
            await asyncio.sleep(2)
            grown = memory(pid) - before
        assert count() > 0
        assert grown < 10_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
@pytest.mark.parametrize(
    "data",
    [
        request("/", [("X-Long", "x" * 9000)]),
        request("/", [(f"X-{number}", "x" * 30) for number in range(200)]),
        request("/", [("Content-Length", "100000000")]) + b"x" * 10_000_000,
    ],
    ids=["a header of 9 KiB", "200 headers", "a body"],
)
async def test_bad_handshakes_do_not_fill_the_memory(data: bytes) -> None:
    """Two hundred of them leave the server as it was."""
    number = 200 if len(data) < 1_000_000 else 20
    async with server_process() as (server, pid):
        before = memory(pid)
        for _ in range(number):
            async with RawClient(server) as client:
                client.send(data)
                await asyncio.sleep(0)
        assert memory(pid) - before < 10_000_000
