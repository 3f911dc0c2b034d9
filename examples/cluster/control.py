"""The connection between the page and the control process."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide

from examples.cluster.processes import Action
from examples.cluster.supervisor import Report, Supervisor
from wsrouter import Message, WebSocketError, WebSocketHandler, on

NODES: Final = ("node-1", "node-2", "node-3")
ROOM: Final = "cluster"


class Act(Message):
    """Do something to a process.

    Attributes:
        name: ``redis``, or that of a node.
    """

    name: Literal["redis", "node-1", "node-2", "node-3"]
    action: Action


class Roll(Message):
    """Restart all nodes, one after the other. The answers are their names, one in each ``$item``, then ``$ok``."""


class Status(Message):
    """How all processes are: first the Redis, then the nodes."""

    processes: list[Report]


class Container(containers.DeclarativeContainer):
    supervisor = providers.Dependency(instance_of=Supervisor)


@dataclass
class Control(WebSocketHandler):
    """A page: it is told how all processes are, and says what shall be done to them."""

    max_in_flight = 4  # a node can be killed while all are being restarted

    supervisor: Annotated[Supervisor, Provide[Container.supervisor]]

    async def on_connect(self) -> Status:
        await self.join(ROOM)
        return Status(processes=self.supervisor.reports())

    @on
    async def act(self, message: Act) -> None:
        try:
            self.supervisor.act(message.name, message.action)
        except ValueError as error:
            raise WebSocketError("conflict", str(error)) from error
        await self.broadcast(ROOM, Status(processes=self.supervisor.reports()))

    @on
    async def roll(self, message: Roll) -> AsyncIterator[str]:
        try:
            async for name in self.supervisor.restart_nodes():
                yield name
        except ValueError as error:
            raise WebSocketError("conflict", str(error)) from error
