"""Short benchmarks against plain FastAPI, side by side in one run: ``make bench``.

Every figure is taken per second of the server's CPU, and only ratios within a round are compared: the median
over the rounds is printed, with the lowest and the highest. A ratio above 1 means that wsrouter is faster, or
needs less memory.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import typer
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MESSAGE = b'{"type":"echo","data":{"id":1234567,"text":"aaaaaaaaaaaaaaa"}}'


@dataclass(frozen=True)
class Contender:
    """A server's application and the path that is measured."""

    app: str
    path: str


WSROUTER = "tests.benchmarks.app:app"
PLAIN = "tests.benchmarks.plain:app"


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Bytes of memory that it has in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def serve(app: str) -> Generator[Running]:
    """Run an application on uvicorn in a process of its own, on one core where there are two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--loop",
        "uvloop",
        "--log-level",
        "warning",
        "--no-access-log",
        "--backlog",
        "4096",
    ]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", app, *options], cwd=ROOT)
    os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{app} did not start") from None
                time.sleep(0.05)
        yield Running(port, server.pid)
    finally:
        server.terminate()
        server.wait(10)


class Client(asyncio.Protocol):
    """One connection that sends a message again as soon as the reply is there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.replies = 0
        self.running = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._buffer += data
            head, found, _ = self._buffer.partition(b"\r\n\r\n")
            if found:
                assert b" 101 " in head.split(b"\r\n")[0], head
                self.opened.set_result(None)
            return
        self.replies += 1
        if self.running:
            self.send()

    def send(self) -> None:
        """Send the message, masked with zeros."""
        assert self._transport is not None
        self._transport.write(bytes((0x81, 0x80 | len(MESSAGE), 0, 0, 0, 0)) + MESSAGE)

    def close(self) -> None:
        """Leave."""
        assert self._transport is not None
        self._transport.close()


async def connect(server: Running, path: str, count: int) -> list[Client]:
    """Open connections, at most 100 handshakes at a time."""
    places = asyncio.Semaphore(100)
    loop = asyncio.get_running_loop()

    async def one() -> Client:
        async with places:
            _, client = await loop.create_connection(lambda: Client(path), "127.0.0.1", server.port)
            await asyncio.wait_for(client.opened, 30)
            return client

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def echo(server: Running, path: str, seconds: float) -> float:
    """Return messages per second of the server's CPU, over 100 connections."""
    clients = await connect(server, path, 100)
    for client in clients:
        client.running = True
        client.send()
    await asyncio.sleep(0.2)
    before, cpu = sum(client.replies for client in clients), server.cpu()
    await asyncio.sleep(seconds)
    messages, used = sum(client.replies for client in clients) - before, server.cpu() - cpu
    for client in clients:
        client.close()
    return messages / used


async def handshakes(server: Running, path: str, seconds: float) -> float:
    """Return handshakes per second of the server's CPU."""
    cpu, count = server.cpu(), int(500 * seconds)
    clients = await connect(server, path, count)
    used = server.cpu() - cpu
    for client in clients:
        client.close()
    return count / used


async def idle(server: Running, path: str, seconds: float) -> float:
    """Return connections per MiB that they keep in use while they are idle."""
    before = server.memory()
    clients = await connect(server, path, 1000)
    await asyncio.sleep(0.5)
    used = server.memory() - before
    for client in clients:
        client.close()
    return len(clients) / (used / 2**20)


Measure: TypeAlias = Callable[[Running, str, float], Coroutine[Any, Any, float]]

BENCHMARKS: dict[str, tuple[Measure, Contender, Contender, float]] = {
    "typed echo / the common way": (echo, Contender(WSROUTER, "/echo"), Contender(PLAIN, "/echo"), 1.25),
    "typed echo / the fast way": (echo, Contender(WSROUTER, "/echo"), Contender(PLAIN, "/echo-fast"), 1.0),
    "echo with a dependency / without": (echo, Contender(WSROUTER, "/echo-dep"), Contender(WSROUTER, "/echo"), 0.93),
    "handshakes": (handshakes, Contender(WSROUTER, "/echo"), Contender(PLAIN, "/echo"), 0.85),
    "connections per MiB": (idle, Contender(WSROUTER, "/echo"), Contender(PLAIN, "/echo"), 0.65),
}


def ratio(measure: Measure, ours: Contender, theirs: Contender, seconds: float) -> float:
    """Return one round: both on fresh servers, one after the other."""
    rates: list[float] = []
    for contender in (ours, theirs):
        with serve(contender.app) as server:
            rates.append(uvloop.run(measure(server, contender.path, seconds)))
    return rates[0] / rates[1]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each benchmark.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of load in each round.")] = 1.0,
    only: Annotated[str, typer.Option(help="Only benchmarks whose name contains this.")] = "",
) -> None:
    """Compare wsrouter with plain FastAPI, side by side on this machine."""
    console = Console()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    table = Table("benchmark", "ratio (median)", "lowest to highest", "target")
    for name, (measure, ours, theirs, target) in BENCHMARKS.items():
        if only not in name:
            continue
        with console.status(f"{name} ..."):
            ratios: Sequence[float] = [ratio(measure, ours, theirs, seconds) for _ in range(rounds)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        table.add_row(name, f"{statistics.median(ratios):.2f}", spread, f"{target:.2f}")
        console.print(f"{name}: {statistics.median(ratios):.2f} ({spread})")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
