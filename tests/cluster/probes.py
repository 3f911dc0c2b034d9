"""Asks the nodes how they are, again and again, as whoever starts and restarts processes does."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

from tests.cluster.nodes import Node

EVERY = 0.25
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe was answered."""

    node: int
    at: float
    """When it was asked."""

    took: float
    status: int | None
    """``None`` if there was no answer."""


@dataclass
class Probes:
    """All answers."""

    answers: list[Answer] = field(default_factory=list[Answer])

    def noticed(self, node: int, since: float) -> float:
        """Return how many seconds after a time a node said that it is not ready; infinitely many if it did not."""
        not_ready = (each.at for each in self.answers if each.node == node and each.at > since and each.status == 503)
        return next(not_ready, math.inf) - since

    def ready(self, since: float) -> float:
        """Return how many seconds after a time a node said for the last time that it is not ready."""
        return max((each.at - since for each in self.answers if each.at > since and each.status == 503), default=0.0)


@asynccontextmanager
async def probing(nodes: Sequence[Node]) -> AsyncGenerator[Probes]:
    """Ask every node whether it is ready."""
    probes = Probes()
    async with httpx.AsyncClient(timeout=2) as client:
        tasks = [asyncio.create_task(_probe(probes, client, node)) for node in nodes]
        try:
            yield probes
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _probe(probes: Probes, client: httpx.AsyncClient, node: Node) -> None:
    while True:
        at, status = time.monotonic(), None
        with suppress(httpx.HTTPError):
            status = (await client.get(node.http("/health/ready"))).status_code
        probes.answers.append(Answer(node.number, at, time.monotonic() - at, status))
        await asyncio.sleep(EVERY)
