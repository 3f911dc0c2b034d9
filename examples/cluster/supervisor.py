"""Looks after the Redis and the nodes: does to them what it is told to, and asks how they are."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import BaseModel, TypeAdapter

from examples.cluster.processes import HOST, Action, Process, State
from wsrouter import HubHealth

REDIS: Final = "redis"
PATIENCE: Final = 1.0
"""Seconds that a process has to answer."""

HEALTH: Final = TypeAdapter(HubHealth)


@dataclass
class Answer:
    """What a process says of itself, if it says something."""

    ready: bool
    health: HubHealth | None = None


class Report(BaseModel):
    """How a process is.

    Attributes:
        name: ``redis``, or that of a node.
        address: Where it listens.
        state: What was made of it.
        code: What it ended with, the last time that it ended.
        answers: Whether it answered when it was asked last.
        ready: Whether it said that it can work.
        health: What a node says of its hub.
    """

    name: str
    address: str
    state: State
    code: int | None
    answers: bool
    ready: bool
    health: HubHealth | None


class Supervisor:
    """Has an eye on all processes of the cluster.

    Args:
        processes: the Redis, which has the name ``redis``, and the nodes.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = {process.name: process for process in processes}
        self._answers: dict[str, Answer | None] = {}
        self._looked = asyncio.Condition()

    def start(self) -> None:
        """Start all processes."""
        for process in self._processes.values():
            process.act("start")

    def close(self) -> None:
        """Kill all processes."""
        for process in self._processes.values():
            process.close()

    def act(self, name: str, action: Action) -> None:
        """Do something to a process.

        Raises:
            ValueError: it makes no sense in its state.
        """
        self._processes[name].act(action)

    async def restart_nodes(self) -> AsyncGenerator[str]:
        """Restart one node after the other, and yield the name of each when it is ready again.

        Raises:
            ValueError: one of them does not run, or does not start.
        """
        for node in self._processes.values():
            if node.name != REDIS:
                await self._restart(node)
                yield node.name

    async def _restart(self, node: Process) -> None:
        def is_ready() -> bool:
            answer = self._answers.get(node.name)
            return answer is not None and answer.ready

        node.act("stop")
        await self._until(lambda: node.state == "stopped" and not is_ready())
        node.act("start")
        await self._until(lambda: node.state != "running" or is_ready())
        if node.state != "running":
            raise ValueError(f"{node.name} did not start again")

    async def look(self, http: httpx.AsyncClient) -> None:
        """Ask all processes how they are."""
        names = [*self._processes]
        answers = await asyncio.gather(*(self._ask(process, http) for process in self._processes.values()))
        async with self._looked:
            self._answers = dict(zip(names, answers, strict=True))
            self._looked.notify_all()

    def reports(self) -> list[Report]:
        """Return how all processes are, as far as is known."""
        return [self._report(process) for process in self._processes.values()]

    def _report(self, process: Process) -> Report:
        state = process.state
        answer = self._answers.get(process.name) if state == "running" else None
        return Report(
            name=process.name,
            address=f"{HOST}:{process.port}",
            state=state,
            code=process.code,
            answers=answer is not None,
            ready=answer is not None and answer.ready,
            health=None if answer is None else answer.health,
        )

    async def _ask(self, process: Process, http: httpx.AsyncClient) -> Answer | None:
        if process.state != "running":
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                if process.name == REDIS:
                    return await ping(process.port)
                health = HEALTH.validate_json((await http.get(f"http://{HOST}:{process.port}/hub")).content)
                return Answer(health.state == "up", health)
        except (OSError, TimeoutError, ValueError, httpx.HTTPError):
            return None

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._looked:
            await self._looked.wait_for(holds)


async def ping(port: int) -> Answer:
    """Ask a Redis whether it is there."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(b"PING\r\n")
        return Answer(await reader.readline() == b"+PONG\r\n")
    finally:
        writer.close()
