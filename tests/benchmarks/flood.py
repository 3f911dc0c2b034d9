"""How long a client that floods holds up its neighbour, beyond what the server itself does.

    python -m tests.benchmarks.flood [--rounds 5] [--seconds 2] [--ws websockets-sansio]

One client sends as fast as TCP takes it; another one echoes, one message after the other. Each round measures
the neighbour's 99th percentile on the same server beside a bare ASGI application, beside one that gives the loop
back after every message, so that only the server's own parsing is left, and beside handlers of ours that do the
same. Target: at most 10 ms more than the parsing.

With ``--ws wsrouter.uvicorn:WebSocketProtocol`` the bare application is measured on what uvicorn takes by itself
too (``stock``), and the target is at most 10 ms more than without a flood.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

from tests.benchmarks.servers import OURS, STOCK
from wsrouter import Message, WebSocketHandler, WebSocketRouter, on

TARGET: Final = 10.0
"""Milliseconds that we may add to the neighbour's 99th percentile."""
FLOODS: Final = {
    "2 bytes": "{}",
    "64 bytes": '{"type":"note","data":{"text":"' + "x" * 30 + '"}}',
}
ECHO: Final = '{"type":"echo","id":1,"data":{"text":"?"}}'


class Note(Message):
    text: str


class Echo(Message):
    text: str


class Raw(WebSocketHandler):
    """Answers the neighbour, and takes the flood without a word."""

    async def on_message(self, message: str) -> str | None:
        return message if message == ECHO else None


class Typed(WebSocketHandler):
    """The same with typed messages."""

    @on
    async def echo(self, message: Echo) -> Echo:
        return message

    @on
    async def note(self, message: Note) -> None: ...


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The same without anything of ours."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event["text"] == ECHO:
            await send({"type": "websocket.send", "text": event["text"]})


async def yielding(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, giving the loop back before every message."""

    async def receive_in_turn() -> Event:
        await asyncio.sleep(0)
        return await receive()

    await bare(scope, receive_in_turn, send)


def app_of(handler: type[WebSocketHandler]) -> FastAPI:
    """Return an application with one handler."""
    router = WebSocketRouter()
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


CONTENDERS: Final = ("bare", "parsing", "raw", "typed")
HANDLERS: Final = ("raw", "typed")


def contenders(ws: str) -> dict[str, str]:
    """Return who is measured, and the protocol class of each."""
    stock = {"stock": STOCK} if ws == OURS else {}
    return stock | dict.fromkeys(CONTENDERS, ws)


def application(name: str) -> ASGIApp:
    """Return what a contender serves."""
    applications: dict[str, ASGIApp] = {
        "stock": bare,
        "bare": bare,
        "parsing": yielding,
        "raw": app_of(Raw),
        "typed": app_of(Typed),
    }
    return applications[name]


@contextmanager
def child(*arguments: object) -> Generator[None]:
    """Run this module in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.flood", *map(str, arguments)]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def served(name: str, ws: str) -> Generator[int]:
    """Serve a contender, and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with child("--serve", name, "--port", port, "--ws", ws):
        deadline = perf_counter() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if perf_counter() > deadline:
                    raise
        yield port


def flood(port: int, text: str) -> None:
    """Send a text as fast as the server takes it, for ever."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        frames = Frame(Opcode.TEXT, text.encode()).serialize(mask=True) * 4096
        while True:
            connection.sendall(frames)


async def neighbour(port: int, seconds: float) -> list[float]:
    """Echo for some seconds, and return how many milliseconds each took."""
    took: list[float] = []
    async with connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as ws:
        end = perf_counter() + seconds
        while (began := perf_counter()) < end:
            await ws.send(ECHO)
            await ws.recv()
            took.append((perf_counter() - began) * 1000)
            await asyncio.sleep(0.001)
    return took


def p99(took: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(took)[int(len(took) * 0.99)]


def measure(rounds: int, seconds: float, ws: str) -> None:
    """Measure every contender in every round, and print what comes of it."""
    classes = contenders(ws)
    cells = [(what, name) for what in FLOODS for name in classes if (what, name) != ("2 bytes", "typed")]
    floods: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    calm: dict[str, list[float]] = {name: [] for name in classes}
    with ExitStack() as servers:
        ports = {name: servers.enter_context(served(name, its)) for name, its in classes.items()}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", file=sys.stderr)
            for name in classes:
                calm[name].append(p99(asyncio.run(neighbour(ports[name], seconds / 4))))
            for what, name in cells:
                with child("--flood", FLOODS[what], "--port", ports[name]):
                    asyncio.run(neighbour(ports[name], 0.5))  # until the flood is there
                    floods[what, name].append(p99(asyncio.run(neighbour(ports[name], seconds))))
    report(calm, floods, ws)


def report(calm: dict[str, list[float]], floods: dict[tuple[str, str], list[float]], ws: str) -> None:
    """Print medians, and how much more they are, round by round, than without a flood and than the parsing."""
    rounds = len(calm["bare"])
    print(f"A neighbour's echo, 99th percentile in ms, median of {rounds} rounds, {ws}")
    print(f"  {'flood':10} {'beside':8} {'p99':>8}  {'to calm':>8}  {'to parsing':>10}")
    for name, took in calm.items():
        print(f"  {'none':10} {name:8} {statistics.median(took):8.2f}")
    for (what, name), took in floods.items():
        to_calm = more(took, calm[name])
        to_parsing = more(took, floods[what, "parsing"])
        aim = to_calm if ws == OURS else to_parsing
        verdict = ("ok" if aim <= TARGET else "TOO MUCH") if name in HANDLERS else ""
        print(f"  {what:10} {name:8} {statistics.median(took):8.2f}  {to_calm:+8.2f}  {to_parsing:+10.2f}  {verdict}")


def more(took: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of the differences."""
    return statistics.median(mine - other for mine, other in zip(took, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each flood; default: 2")
    parser.add_argument(
        "--ws",
        default=os.environ.get("WSROUTER_TEST_WS") or STOCK,
        help=f"uvicorn's option of that name; default: WSROUTER_TEST_WS, else {STOCK}",
    )
    for inner in "--serve", "--flood":
        parser.add_argument(inner, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvicorn.run(application(options.serve), port=options.port, ws=options.ws, log_level="error", lifespan="auto")
    elif options.flood:
        flood(options.port, options.flood)
    else:
        measure(options.rounds, options.seconds, options.ws)


if __name__ == "__main__":
    main()
