"""Two nodes in one process, each a hub on a server of its own, and a broker between them that fails as told."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeAlias, TypeVar

from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection

from tests.support import Server, connect, eventually, serve
from wsrouter import (
    BrokerError,
    Connection,
    History,
    Hub,
    Message,
    Position,
    RoomOptions,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.brokers import Broker, Entry, Link, MemoryBroker, Publication, Receiver, Slot
from wsrouter.brokers.base import Target
from wsrouter.handler import Guard
from wsrouter.history import Recovery, Streams

Name: TypeAlias = tuple[Target, str]
BrokerT = TypeVar("BrokerT", bound=Broker)


class Said(Message, type="said"):
    n: int


class ShakyBroker(MemoryBroker):
    """A broker whose link to a server breaks, loses and delays as it is told."""

    def __init__(self, *, beside: "ShakyBroker | None" = None) -> None:
        super().__init__(beside=beside)
        self.up = True
        """Whether its server answers."""
        self.flowing = True
        """Whether what is published comes at once; else it waits until `flow`."""
        self.stubborn = ""
        """A name that can't be unsubscribed from."""
        self.waiting: deque[Publication | Name] = deque()
        """What was published, and names that something was lost of."""
        self.heard: Callable[[Publication | Sequence[Name]], object] = lambda _: None
        """Called with what the hub is told: publications, and names that something was lost of."""
        self.latency = 0.0
        """Seconds that a question takes to the server at most, and its answer back."""
        self.random = Random(0)
        self.gates: deque[asyncio.Event] = deque()
        """For what the answers to the next questions wait, one each."""
        self.fails = 0
        """How often it does not answer from now on."""
        self.releasing = asyncio.Event()
        """Set unless it answers nobody who gives a slot back."""
        self.releasing.set()
        self.names: set[Name] = set()
        self.asked: list[str] = []
        """What it was asked that needs the server."""
        self._hub: Receiver | None = None

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        self._hub = receiver
        await super().start(node, _Reader(self, receiver), grace)

    def link(self) -> Link:
        return Link("up" if self.up else "down")

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if not self.up:
            if history is None and (_target_of(publication), publication.name) in self.names:
                self._hand_over(publication)
            raise BrokerError("the server is away")
        await super().publish(publication, history)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        await self._ask(f"subscribe {target} {name}")
        await super().subscribe(target, name, history)
        self.names.add((target, name))
        await self._answer()

    async def unsubscribe(self, target: Target, name: str) -> None:
        if name == self.stubborn:
            raise ConnectionError("no")
        self.names.discard((target, name))
        await super().unsubscribe(target, name)

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        await self._ask(f"recover {room}")
        recovery = await super().recover(room, history, since)
        if self.gates:
            await self.gates.popleft().wait()
        await self._answer()
        return recovery

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        await self._ask(f"announce {room}")
        return await super().announce(room, entries)

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        await self._ask(f"withdraw {room}")
        await super().withdraw(room, refs)

    async def entries(self, room: str) -> Sequence[Entry]:
        await self._ask(f"entries {room}")
        return await super().entries(room)

    async def acquire(self, name: str, holder: str, most: int, *, replace: bool) -> Slot:
        await self._ask(f"acquire {name}")
        slot = await super().acquire(name, holder, most, replace=replace)
        if self.gates:
            await self.gates.popleft().wait()
        return slot

    async def release(self, name: str, holder: str) -> None:
        await super().release(name, holder)
        await self.releasing.wait()

    def take(self, publication: Publication) -> None:
        """Take what comes from the server, or let it wait."""
        self.waiting.append(publication)
        if self.flowing:
            self.flow()

    def flow(self, count: int | None = None) -> None:
        """Hand over what waits, or the first of it."""
        for _ in range(len(self.waiting) if count is None else min(count, len(self.waiting))):
            each = self.waiting.popleft()
            if isinstance(each, Publication):
                self._hand_over(each)
            else:
                self.tell([each])

    def drop(self, place: int, *, tell: bool) -> None:
        """Lose one of what waits; what is not told of it, only offsets tell."""
        lost = self.waiting[place]
        if isinstance(lost, Publication):
            if tell or lost.offset is None:
                self.waiting[place] = _target_of(lost), lost.name
            else:
                del self.waiting[place]

    def lose(self, *, tell: bool = True) -> None:
        """Lose what waits, and say so."""
        self.waiting.clear()
        if tell:
            self.tell()

    def tell(self, names: Sequence[Name] | None = None) -> None:
        """Say that something of these names, or all, may have been lost."""
        assert self._hub is not None
        names = sorted(self.names) if names is None else names
        self.heard(names)
        self._hub.lost(names)

    def restore(self) -> None:
        """Let the server answer again, and say so."""
        assert self._hub is not None
        self.up = True
        self._hub.restored()

    def begin_anew(self) -> None:
        """Let the server forget all streams, as after a flush."""
        self._server.streams = Streams()

    def _hand_over(self, publication: Publication) -> None:
        assert self._hub is not None
        self.heard(publication)
        self._hub.deliver(publication)

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        await self._answer()
        if self.fails:
            self.fails -= 1
            raise BrokerError("the server does not answer")
        if not self.up:
            raise BrokerError("the server is away")

    async def _answer(self) -> None:
        if self.latency:
            await asyncio.sleep(self.random.uniform(0, self.latency))


def _target_of(publication: Publication) -> Target:
    return "room" if publication.target == "room" else "user"


class _Reader:
    """What the server of a `ShakyBroker` talks to."""

    def __init__(self, broker: ShakyBroker, hub: Receiver) -> None:
        self._broker = broker
        self._hub = hub

    def deliver(self, publication: Publication) -> None:
        self._broker.take(publication)

    def lost(self, names: Collection[Name]) -> None:
        self._hub.lost(names)

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        self._hub.present(room, changed, gone)

    def departed(self, node: str) -> None:
        self._hub.departed(node)

    def restored(self) -> None:
        self._hub.restored()


@dataclass
class User:
    id: str


async def log_in(connection: Connection) -> None:
    """Take the user's name from the query."""
    if user := connection.query_params.get("user"):
        connection.scope["user"] = User(user)


class Desk(WebSocketHandler):
    """Does with rooms what its client asks for."""

    guards = [log_in]
    client_rooms = ["*"]
    max_in_flight = 4

    async def on_connect(self) -> None:
        for room in self.connection.query_params.getlist("room"):
            await self.join(room)

    @on("say")
    async def say(self, message: tuple[str, int]) -> None:
        room, n = message
        await self.broadcast(room, Said(n=n))

    @on("say to others")
    async def say_to_others(self, message: tuple[str, int]) -> None:
        room, n = message
        await self.broadcast(room, Said(n=n), exclude=self.connection.id)

    @on("id")
    async def id(self, message: None) -> str:
        return self.connection.id


ROOMS: Mapping[str, RoomOptions] = {
    "feed:*": RoomOptions(history=History()),
    "small:*": RoomOptions(history=History(size=3)),
    "desk:*": RoomOptions(presence=True),
    "raw:*": RoomOptions(raw=True),
}


class Node(Generic[BrokerT]):
    """A hub on a server, and its broker."""

    def __init__(self, broker: BrokerT, hub: Hub, server: Server, clients: AsyncExitStack) -> None:
        self.broker = broker
        self.hub = hub
        self.server = server
        self._clients = clients

    async def enter(self, query: str = "", path: str = "/", **options: Any) -> ClientConnection:
        """Connect a client, and wait until it is in the rooms of its query."""
        before = self.hub.connections
        ws = await self._clients.enter_async_context(connect(self.server, f"{path}?{query}", **options))
        rooms = frozenset(room for key, _, room in (each.partition("=") for each in query.split("&")) if key == "room")
        await eventually(
            lambda: any(each.rooms == rooms for id, each in self.hub.connections.items() if id not in before)
        )
        return ws


@asynccontextmanager
async def nodes_on(
    brokers: Sequence[BrokerT],
    *,
    handlers: Mapping[str, type[WebSocketHandler]] | None = None,
    guards: Callable[[], Sequence[Guard]] = lambda: (),
    **options: Any,
) -> AsyncGenerator[list[Node[BrokerT]]]:
    """Serve a hub on each of some brokers, each on a server of its own.

    Args:
        brokers: that share a server.
        handlers: by path; by default `Desk` at ``/``.
        guards: makes those of the router of each node.
        options: of the routers.
    """
    async with AsyncExitStack() as servers, AsyncExitStack() as clients:
        made: list[Node[BrokerT]] = []
        for broker in brokers:
            hub = Hub(broker, rooms=ROOMS)
            router = WebSocketRouter(hub=hub, guards=guards(), **options)
            for path, handler in (handlers or {"/": Desk}).items():
                router.add_handler(path, handler)
            app = FastAPI()
            app.include_router(router)
            server = await servers.enter_async_context(serve(app))
            made.append(Node(broker, hub, server, clients))
        yield made


def nodes(count: int = 2, **options: Any) -> AbstractAsyncContextManager[list[Node[ShakyBroker]]]:
    """Serve several hubs on brokers beside each other.

    Args:
        count: how many.
        options: of `nodes_on`.
    """
    first = ShakyBroker()
    return nodes_on([first, *(ShakyBroker(beside=first) for _ in range(count - 1))], **options)


def go_away(*all_of: Node[ShakyBroker]) -> None:
    """Let the server be away, for these nodes."""
    for node in all_of:
        node.broker.up = node.broker.flowing = False


def come_back(*all_of: Node[ShakyBroker]) -> None:
    """Let the server be there again: what came meanwhile is lost."""
    for node in all_of:
        node.broker.up = node.broker.flowing = True
        node.broker.lose()
