"""Three nodes, a Redis, proxies in between, clients and publishers: all that a fault can be tried on."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle
from math import inf
from pathlib import Path
from typing import Any, Final

from tests.cluster.clients import Client, Link
from tests.cluster.nodes import Node
from tests.cluster.proxy import Proxy
from tests.cluster.publishers import Publisher, Worker, pace
from tests.cluster.records import Log, Sent
from tests.cluster.settings import USER, Settings
from tests.redis_server import RedisServer
from tests.support import eventually

NODES: Final = 3
HISTORY: Final = [f"history:{number}" for number in range(8)]
TIGHT: Final = [f"tight:{number}" for number in range(2)]
PLAIN: Final = [f"plain:{number}" for number in range(4)]
HERE: Final = "here:0"
USERS: Final = [f"{USER}user-{number}" for number in range(3)]
TARGETS: Final = [*HISTORY, *TIGHT, *PLAIN, HERE, *USERS]
PASSWORD: Final = "in-no-log-line"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a fault is tried on."""

    ttl: float = 60.0
    heartbeat: float = 2.0
    presence_grace: float = 15.0
    rate: float = 240.0
    """Publications a second."""

    redis: Sequence[str] = ()
    """Options of the server."""

    @property
    def is_quick(self) -> bool:
        """Whether one can wait until who is gone is gone from presence too."""
        return self.ttl + self.presence_grace <= 10

    crowd: int = 0
    """Rooms with history that there are beside, each with one member on every node."""


@dataclass
class Cluster:
    """What runs."""

    directory: Path
    """Where nodes and servers write."""

    redis: RedisServer
    proxies: list[Proxy]
    """Between Redis and each node; the last one is for a worker."""

    settings: list[Settings]
    """Of each node and the worker."""

    nodes: list[Node]
    servers: list[RedisServer] = field(default_factory=list[RedisServer])
    """Further ones that a fault has started."""

    clients: list[Client] = field(default_factory=list[Client])
    publishers: list[Publisher] = field(default_factory=list[Publisher])
    workers: list[Worker] = field(default_factory=list[Worker])
    tell: Callable[[str], None] = print
    """Is told how far it is."""

    here: dict[str, dict[str, set[str]]] = field(default_factory=dict[str, dict[str, set[str]]])
    """Who was in the room with presence at the end, as each client saw it."""

    began: float = 0.0
    """When it began to flow..."""

    ended: float = inf
    """...and when clients began to say goodbye."""

    fault_began: float = 0.0
    fault_ended: float = 0.0
    """When the broker, or the process, was back."""

    excused: list[tuple[int, float, float]] = field(default_factory=list[tuple[int, float, float]])
    """Nodes that could not do anything, from when to when."""

    @property
    def links(self) -> list[Link]:
        return [*self.clients, *self.publishers]

    @property
    def steady(self) -> list[Client]:
        """Clients that do not go away by themselves."""
        return [client for client in self.clients if not client.is_restless]

    @property
    def devices(self) -> Counter[str]:
        """How many devices of each user there are at the end."""
        return Counter(client.user for client in self.clients)

    @property
    def logs(self) -> list[Log]:
        return [log for client in self.clients for log in client.all_logs]

    @property
    def senders(self) -> list[Publisher | Worker]:
        return [*self.publishers, *self.workers]

    @property
    def sent(self) -> list[Sent]:
        return [sent for sender in self.senders for sent in sender.ledger.sent]

    def kill_servers(self) -> None:
        """End what a fault has started."""
        for server in self.servers:
            server.kill()

    def excuses(self, node: int | None, begin: float, end: float) -> bool:
        """Tell whether a node could not do anything at some time in between."""
        return any(each == node and begin < until and since < end for each, since, until in self.excused)

    async def command(self, line: str, server: RedisServer | None = None) -> str:
        """Give the server a command directly, and return its reply: a line, or a text."""
        port = (server or self.redis).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"AUTH {PASSWORD}\r\n{line}\r\n".encode())
        await reader.readline()
        reply = (await reader.readline()).decode().strip()
        if reply.startswith("$"):
            reply = (await reader.readexactly(int(reply[1:]))).decode()
        writer.close()
        return reply


@asynccontextmanager
async def start(setting: Setting, directory: Path) -> AsyncGenerator[Cluster]:
    """Start Redis, the proxies and the nodes, without clients."""
    async with AsyncExitStack() as stack:
        redis = RedisServer(str(directory), options=("--requirepass", PASSWORD, *setting.redis))
        stack.callback(redis.kill)
        stack.callback(redis.thaw)
        redis.start()
        proxies = [await stack.enter_async_context(Proxy(redis.port).serve()) for _ in range(NODES + 1)]
        settings = [
            Settings(
                url=f"redis://:{PASSWORD}@127.0.0.1:{proxy.port}/0",
                ttl=setting.ttl,
                heartbeat=setting.heartbeat,
                presence_grace=setting.presence_grace,
            )
            for proxy in proxies
        ]
        nodes = [Node(number, settings[number], directory) for number in range(NODES)]
        for node in nodes:
            stack.push_async_callback(asyncio.to_thread, node.stop)
            node.spawn()
        await eventually(lambda: all(node.is_up() for node in nodes), 60, what="all nodes are up")
        cluster = Cluster(directory, redis, proxies, settings, nodes)
        stack.callback(cluster.kill_servers)
        yield cluster


@asynccontextmanager
async def traffic(cluster: Cluster, setting: Setting, tell: Callable[[str], None]) -> AsyncGenerator[None]:
    """Let clients join and everybody publish; it begins when all are members.

    At the end those who publish stop first, and everybody has the time to get the last.

    Args:
        cluster: where.
        setting: how many.
        tell: is told how far it is.
    """
    crowd = [f"history:crowd-{number}" for number in range(setting.crowd)]
    cluster.clients += _clients(cluster.nodes, crowd)
    cluster.publishers += [Publisher(f"publisher-{node}", cluster.nodes, node) for node in range(NODES)]
    async with cluster.settings[-1].hub() as hub, AsyncExitStack() as stack:
        cluster.workers.append(Worker("worker", hub))
        tell("clients join")
        await stack.enter_async_context(running(cluster.links))
        await eventually(lambda: all(client.is_member() for client in cluster.steady), 60, what="all are members")
        await eventually(lambda: all(publisher.ws for publisher in cluster.publishers), 20)
        targets = [each for pair in zip(crowd, cycle(TARGETS), strict=False) for each in pair] or TARGETS
        share = setting.rate / len(cluster.senders)
        cluster.began = time.monotonic()
        paces = [asyncio.create_task(pace(each, targets, share)) for each in cluster.senders]
        try:
            yield
        finally:
            await _end(paces)
        tell("publishers stop")
        for client in cluster.clients:
            client.settle()
        with suppress(AssertionError):
            await eventually(lambda: not any(each.pending for each in cluster.senders), 4)
        with suppress(AssertionError):
            await eventually(lambda: _is_quiet(cluster), 6)
        # Who was on a node that was killed, or dropped its connection, is there until the ttl, or the grace, is over.
        patience = setting.ttl + setting.presence_grace if setting.is_quick else 0
        with suppress(AssertionError):
            await eventually(lambda: _agree(cluster, exactly=setting.is_quick), 8 + patience)
        cluster.ended = time.monotonic()
        cluster.here = {client.name: deepcopy(client.presence[HERE].members) for client in cluster.steady}


@asynccontextmanager
async def running(links: Sequence[Link]) -> AsyncGenerator[None]:
    """Run clients and publishers, and let them say goodbye."""
    tasks = [asyncio.create_task(link.run(), name=link.name) for link in links]
    try:
        yield
    finally:
        for link in links:
            await link.stop()
        _, late = await asyncio.wait(tasks, timeout=5)
        for task in late:
            task.cancel()
        await _end(tasks)


def _clients(nodes: Sequence[Node], crowd: Sequence[str]) -> list[Client]:
    """Return clients of all nodes: each in half of all rooms, and as many devices of each user on every node."""
    clients: list[Client] = []
    for node in range(NODES):
        for number in range(4):
            half = number % 2
            rooms = [*HISTORY[half::2], *TIGHT[half::2], *PLAIN[half::2], HERE, *crowd[number::4]]
            user = USERS[number % len(USERS)].removeprefix(USER)
            clients.append(Client(f"client-{node}-{number}", nodes, node, rooms, user=user))
        rooms = [HISTORY[node], TIGHT[0], PLAIN[node], HERE]
        clients.append(Client(f"restless-{node}", nodes, node, rooms, restless=1.5))
    return clients


def _is_quiet(cluster: Cluster) -> bool:
    """Whether everybody is a member, and nothing comes any more."""
    newest = max(log.events[-1].at for log in cluster.logs if log.events)
    newest = max(newest, *(client.presence[HERE].at for client in cluster.steady))
    return all(client.is_member() for client in cluster.clients) and newest < time.monotonic() - 0.5


def _agree(cluster: Cluster, *, exactly: bool) -> bool:
    """Whether everybody sees the same members, and exactly those that there are."""
    views = [client.presence[HERE].members for client in cluster.steady]
    devices = {user: len(refs) for user, refs in views[0].items()}
    return all(view == views[0] for view in views) and (devices == cluster.devices or not exactly)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
