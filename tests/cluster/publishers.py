"""Publishers: they send at their rate, whatever comes of it, and write down what does."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import count, cycle
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.cluster.clients import Link, Wait
from tests.cluster.nodes import Node
from tests.cluster.publishing import Note, Publish, publish
from tests.cluster.records import Sent
from tests.cluster.settings import USER
from wsrouter import Hub

EXCLUDED: Final = "user-0"
"""The user that some publications are not for."""


class Ledger:
    """All that one publisher sent."""

    def __init__(self, publisher: str) -> None:
        self.publisher = publisher
        self.sent: list[Sent] = []
        self._numbers: dict[str, count[int]] = defaultdict(lambda: count(1))

    def enter(self, target: str, node: int | None) -> Sent:
        """Note what is being sent now; every fifth publication to a room excludes a user."""
        sent = Sent(target, self.publisher, next(self._numbers[target]), time.monotonic(), node)
        if sent.number % 5 == 0 and not target.startswith(USER):
            sent.excludes = EXCLUDED
        self.sent.append(sent)
        return sent


class Paced(Protocol):
    """What `pace` drives."""

    async def send(self, target: str) -> None: ...


async def pace(publisher: Paced, targets: Sequence[str], rate: float) -> None:
    """Send to one target after the other, so many times a second, until cancelled."""
    began, done, turns = time.monotonic(), 0, cycle(targets)
    while True:
        due = int((time.monotonic() - began) * rate)
        for _ in range(due - done):
            await publisher.send(next(turns))
        done = max(due, done)
        await asyncio.sleep(1 / rate)


class Publisher(Link):
    """Publishes through a node: each publication is a call of its own."""

    def __init__(self, name: str, nodes: Sequence[Node], home: int) -> None:
        super().__init__(name, nodes, home)
        self.ledger = Ledger(name)
        self._ids = count(1)
        self._pending: dict[int, Sent] = {}

    @property
    def pending(self) -> int:
        """Calls that are not answered."""
        return len(self._pending)

    async def send(self, target: str, pad: str = "") -> None:
        """Publish; nothing happens while it is not connected."""
        if self.ws is None:
            return
        id, sent = next(self._ids), self.ledger.enter(target, self.node)
        self._pending[id] = sent
        message = Publish(target=target, publisher=self.name, number=sent.number, pad=pad, excludes=sent.excludes)
        with suppress(ConnectionClosed):
            await self.ws.send(json.dumps({"type": "publish", "id": id, "data": message.model_dump()}))

    async def serve(self, ws: ClientConnection) -> None:
        async for frame in ws:
            self._receive(json.loads(frame), time.monotonic())

    def lost(self) -> None:
        self._pending = {}

    def _receive(self, frame: dict[str, Any], at: float) -> None:
        if frame["type"] == "$gap":
            return  # of what is sent to its user, which is nothing
        sent = self._pending.pop(frame.get("id", 0), None)
        if sent is None or frame["type"] != "$ok":
            self.surprises.append(f"{at:.3f} {json.dumps(frame)[:500]}")
        if sent is not None and frame["type"] == "$ok":
            sent.answered, sent.outcome, sent.took = at, frame["data"]["outcome"], frame["data"]["took"]
            self.waits.append(Wait("call", self.node, sent.at, at - sent.at, sent.outcome))


class Worker:
    """Publishes from a process without connections: this one."""

    def __init__(self, name: str, hub: Hub) -> None:
        self.ledger = Ledger(name)
        self._hub = hub
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Publications that are under way."""
        return len(self._tasks)

    async def send(self, target: str) -> None:
        """Publish, and do not wait."""
        task = asyncio.create_task(self._publish(target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, target: str) -> None:
        sent = self.ledger.enter(target, None)
        note = Note(publisher=self.ledger.publisher, number=sent.number)
        result = await publish(self._hub, target, note, sent.excludes)
        sent.answered, sent.outcome, sent.took = time.monotonic(), result.outcome, result.took
