"""What tests share: real servers on a free port, clients, and waits with a deadline.

``serve`` runs an application on uvicorn or hypercorn in the event loop of the test, ``connect`` opens a
connection to it, ``vanish`` ends one as a dead client would, and ``eventually`` waits until something holds.
"""

import asyncio
import atexit
import inspect
import logging
import os
import shutil
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import uvicorn
from hypercorn.asyncio import (  # its own types are incomplete
    serve as serve_with_hypercorn,  # pyright: ignore[reportUnknownVariableType]
)
from hypercorn.config import Config as HypercornConfig
from hypercorn.config import Sockets
from hypercorn.typing import ASGIFramework
from hypercorn.utils import LifespanFailureError
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect

from tests.certificate import Certificate, make_certificate

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """A running server; ``port`` is its port on 127.0.0.1."""

    port: int
    certificate: Certificate | None = None
    """Of a server that speaks TLS."""

    @property
    def trust(self) -> ssl.SSLContext | None:
        """What a client takes to speak TLS with it, ``None`` where it speaks none."""
        return None if self.certificate is None else self.certificate.trust

    def url(self, path: str = "/") -> str:
        """Return the ``ws://`` address of a path."""
        return f"ws{'' if self.certificate is None else 's'}://127.0.0.1:{self.port}{path}"

    def http(self, path: str = "/") -> str:
        """Return the ``http://`` address of a path."""
        return f"http{'' if self.certificate is None else 's'}://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def serve(
    app: ASGIApp,
    *,
    server: Literal["uvicorn", "hypercorn"] = "uvicorn",
    ws: str | type[asyncio.Protocol] | None = None,
    stop_timeout: float = 10.0,
    send_buffer: int | None = None,
    **options: Any,  # whatever uvicorn.Config or hypercorn's Config takes
) -> AsyncGenerator[Server]:
    """Run a real server in the event loop of the test, on a free port of 127.0.0.1.

    The block begins when the application's lifespan has started. Leaving it ends the server as SIGTERM would:
    uvicorn closes what is still connected with 1012, gives handlers 3 s (``timeout_graceful_shutdown``),
    cancels those that go on and logs that as an error; then the lifespan shuts down. hypercorn tells nobody:
    it waits for 3 s (``graceful_timeout``) and cancels, which asyncio logs as an error. So close clients
    within the block.

    Args:
        app: The application. An ASGI callable that knows no lifespan needs ``lifespan="off"`` (uvicorn only).
        server: Which server.
        ws: uvicorn's WebSocket implementation. Default: the environment's ``WSROUTER_TEST_WS``, else
            ``websockets-sansio``. With ``WSROUTER_TEST_TLS`` set uvicorn speaks TLS.
        send_buffer: Bytes that the kernel takes for each connection (``SO_SNDBUF``). Default: as many as it likes, on
            loopback some 2.5 MB.
        stop_timeout: Seconds that the server has to end before it is cancelled and the test fails.
        options: Options of ``uvicorn.Config``, or attributes of hypercorn's ``Config``.

    Raises:
        Exception: What the application's lifespan raised, or the server itself, at the start or at the end.
            A failure of the block goes first and carries that of the server as a note.
        TimeoutError: The server did not end within ``stop_timeout``.
    """
    watched = _Watched(app)
    certificate = None
    if server == "uvicorn" and os.environ.get("WSROUTER_TEST_TLS"):
        certificate = _certificate()
        options = {**certificate.options, **options}
    started, stop = asyncio.Event(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if server == "uvicorn":
            running = _run_uvicorn(watched, listener, started, stop, ws, options)
        else:
            running = _run_hypercorn(watched, listener, started, stop, options)
        task = asyncio.create_task(running, name=f"{server} on port {port}")
        try:
            await _first_of(task, started)
            if not task.done():
                yield Server(port, certificate)
        except BaseException as failure:
            try:
                await _finish(task, stop, watched, stop_timeout)
            except Exception as another:
                failure.add_note(f"Then the server failed as well: {another!r}")
            raise
        else:
            await _finish(task, stop, watched, stop_timeout)


@cache
def _certificate() -> Certificate:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return make_certificate(folder)


async def _first_of(task: asyncio.Task[None], event: asyncio.Event) -> None:
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def _finish(task: asyncio.Task[None], stop: asyncio.Event, watched: "_Watched", timeout: float) -> None:
    stop.set()
    try:
        ended, _ = await asyncio.wait([task], timeout=timeout)
    finally:
        task.cancel()
    if not ended:
        await asyncio.wait([task], timeout=1)
        raise TimeoutError(f"{task.get_name()} did not end within {timeout} s")
    if failure := watched.failure or task.exception():
        raise failure


class _Watched:
    """An application that remembers what its lifespan raised: servers only log it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except LifespanFailureError as failure:  # hypercorn raises it in the application that tells of its own
            self.failure = cast(Exception, failure.__context__)
            raise
        except Exception as failure:
            if scope["type"] == "lifespan":
                self.failure = failure
            raise


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers, ended by an event instead of a look every 0.1 s."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event, stop: asyncio.Event) -> None:
        super().__init__(config)
        self.started_event = started
        self.stop_event = stop

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as exit:  # would end the event loop of the test
            raise RuntimeError("uvicorn did not start; its log says why") from exit
        self.started_event.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop_event.wait()


async def _run_uvicorn(
    app: ASGIApp,
    listener: socket.socket,
    started: asyncio.Event,
    stop: asyncio.Event,
    ws: str | type[asyncio.Protocol] | None,
    options: dict[str, Any],
) -> None:
    settings: dict[str, Any] = {
        "lifespan": "on",
        "log_config": None,
        "timeout_graceful_shutdown": 3,
        **options,
    }
    settings["ws"] = ws or os.environ.get("WSROUTER_TEST_WS") or "websockets-sansio"
    server = _Uvicorn(uvicorn.Config(app, **settings), started, stop)
    try:
        await server.serve(sockets=[listener])
    finally:
        # A transport that waits for a client that does not read would outlive the server.
        for connection in server.server_state.connections:
            connection.transport.abort()
        await asyncio.sleep(0)


class _HypercornConfig(HypercornConfig):
    """Gives hypercorn our socket, and tells when it asks for it: after the application's start-up."""

    def __init__(self, listener: socket.socket, started: asyncio.Event) -> None:
        self.listener = listener
        self.started_event = started

    def create_sockets(self) -> Sockets:
        self.listener.setblocking(False)
        self.started_event.set()
        return Sockets([], [self.listener], [])


async def _run_hypercorn(
    app: ASGIApp,
    listener: socket.socket,
    started: asyncio.Event,
    stop: asyncio.Event,
    options: dict[str, Any],
) -> None:
    config = _HypercornConfig(listener, started)
    settings: dict[str, Any] = {
        "errorlog": logging.getLogger("hypercorn.error"),
        "backlog": 2048,
        "graceful_timeout": 3.0,
        **options,
    }
    for name, value in settings.items():
        setattr(config, name, value)
    await serve_with_hypercorn(cast(ASGIFramework, app), config, shutdown_trigger=stop.wait, mode="asgi")


def connect(
    server: Server,
    path: str = "/",
    **options: Any,  # whatever websockets' own connect takes
) -> websockets_connect:
    """Open a connection to a path: ``async with connect(...) as ws`` or ``ws = await connect(...)``.

    It is websockets' own ``connect``, never through a proxy.
    """
    return websockets_connect(server.url(path), proxy=None, ssl=server.trust, **options)


async def vanish(ws: ClientConnection) -> None:
    """End a client's TCP connection with RST and without a close frame, as when its machine is gone.

    Returns when the socket is closed. What the server had not yet read may be lost.
    """
    linger_for_no_time = struct.pack("ii", 1, 0)
    client_socket: socket.socket = ws.transport.get_extra_info("socket")
    client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_no_time)
    ws.transport.abort()
    await ws.wait_closed()


async def eventually(
    condition: Callable[[], T],
    timeout: float = 2.0,
    *,
    what: str | None = None,
) -> T:
    """Wait until ``condition()`` is true, and return its value.

    Looks in every iteration of the event loop at first, then every few milliseconds.

    Args:
        condition: Called again and again. What it raises ends the wait.
        timeout: Seconds.
        what: What is waited for, for the text of the failure. Default: the condition's source.

    Raises:
        AssertionError: It was not true in time. The text says what was waited for and what came last.
    """
    __tracebackhide__ = True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = 0.0
    looks = 1
    while not (value := condition()):
        if loop.time() >= deadline:
            raise AssertionError(
                f"not within {timeout} s: {what or _source_of(condition)} (was {value!r}, {looks} looks)"
            )
        await asyncio.sleep(pause)
        looks += 1
        if looks > 50:
            pause = min(pause + 0.0005, 0.01)
    return value


async def at_rest(count: Callable[[], int]) -> int:
    """Wait until a number has not changed for 50 ms, and return it."""
    before = -1
    while before != count():
        before = count()
        for _ in range(50):
            await asyncio.sleep(0.001)
    return before


def _source_of(function: Callable[..., object]) -> str:
    try:
        return " ".join(inspect.getsource(function).split())
    except (OSError, TypeError):
        return repr(function)


def pending_tasks(*, but: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return the tasks of this event loop that are not done, without the current one and those in ``but``."""
    return [task for task in asyncio.all_tasks() - but if task is not asyncio.current_task()]


async def no_task_left(*, but: set[asyncio.Task[Any]], timeout: float = 1.0) -> None:
    """Wait until no task is pending besides those in ``but``.

    Args:
        but: Tasks that may go on.
        timeout: Seconds that tasks which are about to end have for it.

    Raises:
        AssertionError: Some are left. The text has each one's name, coroutine and place.
    """
    __tracebackhide__ = True
    try:
        await eventually(lambda: not pending_tasks(but=but), timeout)
    except AssertionError:
        left = "\n".join(f"  {_describe(task)}" for task in pending_tasks(but=but))
        raise AssertionError(f"tasks that outlive the test:\n{left}") from None


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = cast(Coroutine[Any, Any, Any], task.get_coro())
    frames = task.get_stack(limit=1)
    place = f", at {frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else ""
    return f"{task.get_name()}: {getattr(coroutine, '__qualname__', coroutine)}{place}"
