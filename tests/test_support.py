"""The helpers that the other tests stand on, proven with an application that has nothing of ours in it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import httpx
import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.ports import free_port
from tests.support import connect, eventually, pending_tasks, serve, vanish

ServerName = Literal["uvicorn", "hypercorn"]
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])


class Recorder(FastAPI):
    """An echo that notes what happens to it in `events`."""

    def __init__(self) -> None:
        super().__init__(lifespan=self.run)
        self.events: list[str] = []
        self.add_api_websocket_route("/echo", self.echo)
        self.add_api_websocket_route("/denied", self.deny)
        self.add_api_websocket_route("/stubborn", self.outstay)
        self.add_api_route("/health", self.health)

    @asynccontextmanager
    async def run(self, app: FastAPI) -> AsyncGenerator[None]:
        self.events.append("startup")
        yield
        self.events.append("shutdown")

    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as left:
            self.events.append(f"left {left.code}")

    async def deny(self, websocket: WebSocket) -> None:
        await websocket.close(4403)

    async def outstay(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("cancelled")

    async def health(self) -> str:
        return "well"


def fail_with(failure: Exception) -> None:
    """Raise what is given; to a type checker, code goes on after it."""
    raise failure


@pytest.mark.parametrize(
    ("server_name", "code_of_a_client_that_left"),
    [
        ("uvicorn", 1000),
        ("hypercorn", 1006),  # whatever the client said
    ],
)
async def test_serves_websockets_and_http_with_lifespan(
    server_name: ServerName, code_of_a_client_that_left: int
) -> None:
    """A server answers at once, and has run the lifespan to its end when the block is left."""
    app = Recorder()
    async with serve(app, server=server_name) as server:
        assert app.events == ["startup"]
        async with connect(server, "/echo") as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
        async with httpx.AsyncClient(trust_env=False, verify=server.trust or True) as http:
            assert (await http.get(server.http("/health"))).json() == "well"
        await eventually(lambda: f"left {code_of_a_client_that_left}" in app.events)
    assert app.events == ["startup", f"left {code_of_a_client_that_left}", "shutdown"]


@pytest.mark.parametrize(
    ("argument", "environment", "protocol"),
    [
        (None, None, "WebSocketsSansIOProtocol"),
        (None, "wsproto", "WSProtocol"),
        ("websockets-sansio", "wsproto", "WebSocketsSansIOProtocol"),
        ("wsproto", None, "WSProtocol"),
    ],
)
async def test_chooses_the_websocket_protocol(
    argument: str | None, environment: str | None, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument goes before the environment, and websockets-sansio is the default."""
    monkeypatch.delenv("WSROUTER_TEST_WS", raising=False)
    if environment is not None:
        monkeypatch.setenv("WSROUTER_TEST_WS", environment)
    used: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        used.append(type(getattr(receive, "__self__", None)).__name__)
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with serve(app, ws=argument, lifespan="off") as server, connect(server) as ws:
        await ws.wait_closed()
    assert used == [protocol]


async def test_leaving_the_block_closes_connections() -> None:
    """Clients that are still connected when uvicorn ends get 1012, and their handlers end first."""
    app = Recorder()
    async with AsyncExitStack() as clients:
        async with serve(app) as server:
            ws = await clients.enter_async_context(connect(server, "/echo"))
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1012
    assert app.events == ["startup", "left 1012", "shutdown"]


@pytest.mark.logs_errors
async def test_hypercorn_cancels_what_is_still_connected() -> None:
    """Clients that are still connected when hypercorn ends get 1011, because their handlers are cancelled."""
    app = Recorder()
    async with AsyncExitStack() as clients:
        async with serve(app, server="hypercorn", graceful_timeout=0.05) as server:
            ws = await clients.enter_async_context(connect(server, "/stubborn"))
        await ws.wait_closed()
        assert ws.close_code == 1011
    assert app.events == ["startup", "cancelled", "shutdown"]


@pytest.mark.logs_errors
async def test_a_handler_that_never_ends_is_cancelled() -> None:
    """A handler that ignores the end of the server is cancelled after the graceful time."""
    app = Recorder()
    async with AsyncExitStack() as clients:
        async with serve(app, timeout_graceful_shutdown=0) as server:
            await clients.enter_async_context(connect(server, "/stubborn"))
        await eventually(lambda: "cancelled" in app.events)


@each_server
@pytest.mark.logs_errors
async def test_a_lifespan_that_fails_to_start(server_name: ServerName) -> None:
    """What the application raises at start comes out of the block, which never begins."""

    @asynccontextmanager
    async def fail(app: FastAPI) -> AsyncGenerator[None]:
        fail_with(LookupError("no database"))
        yield

    with pytest.raises(LookupError, match="no database"):
        async with serve(FastAPI(lifespan=fail), server=server_name) as server:
            pytest.fail(f"{server} has started")


@each_server
@pytest.mark.logs_errors
async def test_a_lifespan_that_fails_to_end(server_name: ServerName) -> None:
    """What the application raises at its end comes out too: as a note where the block itself failed."""

    @asynccontextmanager
    async def fail(app: FastAPI) -> AsyncGenerator[None]:
        yield
        raise LookupError("not flushed")

    with pytest.raises(LookupError, match="not flushed"):
        async with serve(FastAPI(lifespan=fail), server=server_name):
            pass
    with pytest.raises(ZeroDivisionError) as failure:
        async with serve(FastAPI(lifespan=fail), server=server_name):
            raise ZeroDivisionError
    assert "not flushed" in failure.value.__notes__[0]


@pytest.mark.logs_errors
async def test_a_server_that_does_not_end() -> None:
    """A server that is held up is cancelled when its time is over, and the test fails."""
    ends: list[str] = []

    @asynccontextmanager
    async def hang(app: FastAPI) -> AsyncGenerator[None]:
        yield
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    with pytest.raises(TimeoutError, match=r"uvicorn on port \d+ did not end within 0\.5 s"):
        async with serve(FastAPI(lifespan=hang), stop_timeout=0.5):
            pass
    for task in pending_tasks(but=set()):
        task.cancel()
    await eventually(lambda: ends)


async def test_a_denial_is_no_logged_error() -> None:
    """uvicorn logs each denied handshake as an error, which does not fail a test."""
    async with serve(Recorder()) as server:
        with pytest.raises(InvalidStatus) as denied:
            await connect(server, "/denied")
        assert denied.value.response.status_code == 403


@each_server
async def test_vanish(server_name: ServerName) -> None:
    """The server sees a client that vanished at once, and no close frame from it."""
    app = Recorder()
    async with serve(app, server=server_name) as server:
        ws = await connect(server, "/echo")
        await ws.send("hi")
        await ws.recv()
        await vanish(ws)
        assert ws.close_code == 1006
        await eventually(lambda: app.events[1:])
    assert app.events[1] in {"left 1005", "left 1006"}


async def test_eventually_waits_and_returns_the_value() -> None:
    """It returns what the condition returned, as soon as that is true."""
    values = iter([0, 0, 7])
    assert await eventually(lambda: next(values)) == 7


async def test_eventually_says_what_it_waited_for() -> None:
    """A condition that does not become true fails with its source, its last value and the deadline."""
    seen: list[int] = []
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: .*lambda: seen.* \(was \[\]"):
        await eventually(lambda: seen, timeout=0.05)
    with pytest.raises(AssertionError, match="the third message"):
        await eventually(lambda: seen, timeout=0, what="the third message")


FIXTURES_AT_WORK = """
import asyncio
import logging

import pytest

tasks = set()


async def test_leaves_a_task():
    tasks.add(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))


async def test_ends_its_task():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))


@pytest.mark.parametrize("name", ["wsrouter", "wsrouter.session", "uvicorn.error", "asyncio"])
def test_logs_an_error(name):
    logging.getLogger(name).error("it broke")


@pytest.mark.logs_errors
def test_logs_an_error_on_purpose():
    logging.getLogger("wsrouter").error("it broke")


def test_logs_what_is_allowed():
    logging.getLogger("wsrouter").warning("careful")
    logging.getLogger("elsewhere").error("not ours")
    logging.getLogger("uvicorn.error").error("ASGI callable returned without completing handshake.")
"""


def test_fixtures_fail_a_test_that_leaks_or_logs_errors(tmp_path: Path) -> None:
    """A task left behind and an error in the log each fail the test that is to blame, and no other."""
    root = Path(__file__).parent.parent
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_cases.py").write_text(FIXTURES_AT_WORK)
    command = [sys.executable, "-m", "pytest", "-c", str(root / "pyproject.toml"), "--rootdir", str(tmp_path)]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "8 passed, 5 errors" in run.stdout, run.stdout + run.stderr
    assert run.stdout.count("ERROR at teardown of test_leaves_a_task") == 1
    assert "forgotten: Event.wait, at " in run.stdout
    assert run.stdout.count("ERROR at teardown of test_logs_an_error[") == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only there can a port be held for a server")
async def test_a_free_port_is_nobody_elses() -> None:
    """It is taken for whoever looks for a free one, while a server can listen on it, and again."""
    port = free_port()
    for _ in range(2):
        with socket.socket() as probe, pytest.raises(OSError, match="in use"):
            probe.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()
