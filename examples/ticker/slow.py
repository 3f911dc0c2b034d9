"""A client that reads as slowly as it is told.

A page can't be it: most browsers read a WebSocket whether the page wants it or not. So it runs beside the server, on a
connection like any other.
"""

import asyncio
import json
import socket
import time
from contextlib import suppress
from typing import Final, Literal

from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from examples.ticker.messages import Board, Price
from wsrouter import Hub

Pace = Literal["off", "fast", "slow", "stalled"]

SLOW: Final = 24 * 1024
"""Bytes that it reads in a second when it is slow: about a quarter of what comes."""
RECEIVE_BUFFER: Final = 4096
"""Bytes that its kernel keeps for it, so that it is felt at once that it does not read."""
GLANCE: Final = 0.1
"""Seconds between two looks at whether it is still connected, while it does not read."""


class SlowReport(BaseModel):
    """How the client is doing.

    Attributes:
        pace: How it reads: not at all and without a connection (``off``), everything (``fast``), too little
            (``slow``), or nothing (``stalled``).
        given_up: Whether the server has closed the connection because it did not read.
        pending_bytes: What waits for it in the server's process.
        received: Prices that it has read on this connection.
        missed: Prices that it never saw, because newer ones had taken their place.
        behind_ms: How old the newest price is that it has read. Milliseconds.
    """

    pace: Pace = "off"
    given_up: bool = False
    pending_bytes: int = 0
    received: int = 0
    missed: int = 0
    behind_ms: int = 0


class SlowClient:
    """One for all who look at the page.

    Args:
        hub: where it is looked up how much waits for it.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._report = SlowReport()
        self._connection = ""
        self._serials: dict[str, int] = {}
        self._newest = 0
        self._task: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    def report(self) -> SlowReport:
        """Return how it is doing now."""
        report, connection = self._report, self._hub.connections.get(self._connection)
        return report.model_copy(
            update={
                "pending_bytes": 0 if connection is None else connection.pending_bytes,
                "behind_ms": _now() - self._newest if report.received and report.pace != "off" else 0,
            }
        )

    async def read(self, pace: Pace, host: str, port: int) -> None:
        """Read at another pace, from now on; connect, if it is not connected.

        Args:
            pace: how fast.
            host: address of the server.
            port: its port.
        """
        async with self._changing:
            if pace == "off" or self._task is None or self._task.done() or self._report.given_up:
                await self.aclose()
            if pace != "off" and self._task is None:
                self._report, self._serials = SlowReport(), {}
                self._task = asyncio.create_task(self._run(host, port), name="slow client")
            self._report.pace = pace

    async def aclose(self) -> None:
        """Leave."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self, host: str, port: int) -> None:
        with suppress(OSError, InvalidHandshake, ConnectionClosed):
            async with connect(
                f"ws://{host}:{port}/ws/prices",
                sock=await _socket(host, port),
                compression=None,
                max_queue=1,
                ping_interval=None,
                close_timeout=0.5,
                proxy=None,
            ) as websocket:
                board = Board.model_validate(json.loads(await websocket.recv())["data"])
                self._connection = board.connection
                await self._read(websocket)
        self._report.pace = "off"

    async def _read(self, websocket: ClientConnection) -> None:
        while True:
            while self._report.pace == "stalled":
                # Who does not read does not notice either that nobody sends any more.
                if self._connection not in self._hub.connections:
                    self._report.given_up = True
                    return
                await asyncio.sleep(GLANCE)
            frame = await websocket.recv()
            envelope = json.loads(frame)
            if envelope["type"] == Price.__message_type__:
                self._take(Price.model_validate(envelope["data"]))
            if self._report.pace == "slow":
                await asyncio.sleep(len(frame) / SLOW)

    def _take(self, price: Price) -> None:
        report = self._report
        report.received += 1
        report.missed += price.serial - self._serials.get(price.symbol, price.serial - 1) - 1
        self._serials[price.symbol] = price.serial
        self._newest = price.at


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _socket(host: str, port: int) -> socket.socket:
    connecting = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, (host, port))
    except BaseException:
        connecting.close()
        raise
    return connecting
