"""What members see of each other when they are on several nodes: hubs with servers and brokers of their own."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from time import monotonic
from typing import Any, TypeAlias

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.brokers.redis.proxy import serve_proxy
from tests.envelopes import receive, send
from tests.nodes import ShakyBroker
from tests.redis_server import RedisServer, executables, serve_redis
from tests.support import Server, connect, eventually, vanish
from tests.test_presence_live import ROOM, Watcher, devices, patient, served, watching
from wsrouter import BrokerError, Hub, RoomOptions
from wsrouter.brokers import Broker, Entry, MemoryBroker, Receiver
from wsrouter.brokers.redis import RedisBroker

Make: TypeAlias = Callable[[], Broker]
WS = "wsrouter.uvicorn:WebSocketProtocol"
TTL = 1.5
"""Seconds, in place of 60."""


@dataclass
class Node:
    """A hub on a server, and what it is on."""

    hub: Hub
    server: Server


@asynccontextmanager
async def node_on(broker: Broker, **options: Any) -> AsyncGenerator[Node]:
    """Serve a hub whose desks have presence."""
    hub = patient(Hub(broker, rooms={"desk:*": RoomOptions(presence=True)}), **{"grace": 15.0, **options})
    async with served(hub, WS) as server:
        yield Node(hub, server)


@asynccontextmanager
async def nodes_on(make: Make, count: int = 2, **options: Any) -> AsyncGenerator[list[Node]]:
    """Serve several."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node_on(make(), **options)) for _ in range(count)]
        await up(*nodes)
        yield nodes


async def up(*nodes: Node) -> None:
    """Wait until the brokers of all nodes have their server."""
    await eventually(lambda: all(node.hub.health().state == "up" for node in nodes), 5)


def on_redis(url: str, prefix: str = "") -> Make:
    """Return what makes brokers on a server."""
    prefix = prefix or token_hex(4)
    return lambda: RedisBroker(url, prefix=prefix, timeout=0.4, heartbeat=0.1, ttl=TTL)


@pytest.fixture(params=["memory", *executables().items()], ids=["memory", *executables()])
async def make(request: pytest.FixtureRequest) -> AsyncGenerator[Make]:
    """Return what makes brokers beside each other: in memory, and on every Redis that there is."""
    if request.param == "memory":
        first = MemoryBroker()
        yield lambda: MemoryBroker(beside=first)
        return
    with serve_redis(request.param[1]) as server:
        yield on_redis(server.url)


@pytest.fixture(params=executables().values(), ids=[*executables()])
def redis(request: pytest.FixtureRequest) -> Any:
    """Return a Redis of the test's own."""
    with serve_redis(request.param) as server:
        yield server


async def all_see(watchers: list[Watcher], users: set[str]) -> None:
    """Read until every page has these users, and no others."""
    for watcher in watchers:
        await watcher.until(lambda members: members.keys() == users)


async def was_told(node: Node, user: str) -> None:
    """Wait until the broker knows that the connection of a user was dropped by a node."""
    async with asyncio.timeout(5):
        while True:
            entries = await node.hub.node.broker.entries(ROOM)
            if any(entry.dropped and entry.node == node.hub.node.id for entry in entries if entry.user == user):
                return
            await asyncio.sleep(0.001)


async def nobody_in(node: Node) -> None:
    """Wait until a node knows of nobody in the room."""
    async with asyncio.timeout(5):
        while True:
            if not await node.hub.presence(ROOM):
                return
            await asyncio.sleep(0.001)


async def test_who_is_here_on_all_nodes(make: Make) -> None:
    """Members see those of other nodes come, change and go, as their own; `hub.presence` says the same anywhere."""
    async with nodes_on(make, 3) as (a, b, c), watching(a.server, "ada") as ada:
        async with watching(b.server, "bob") as bob:
            assert {"ada", "bob"} == bob.members.keys()
            await all_see([ada], {"ada", "bob"})
            async with connect(a.server, "/?name=eve&status=here") as eve:
                await all_see([ada, bob], {"ada", "bob", "eve"})
                assert bob.members["eve"] == [{"status": "here"}]
                await send(eve, "status", {"status": "away"})
                await bob.until(lambda members: members["eve"] == [{"status": "away"}])
                assert bob.page is not None
                for node in (a, b, c):  # on the last nobody is in the room
                    assert devices(await node.hub.presence(ROOM)) == bob.page.members
                async with Hub(make(), rooms={"desk:*": RoomOptions(presence=True)}) as script:
                    await eventually(lambda: script.health().state == "up", 5)
                    assert {member.user for member in await script.presence(ROOM)} == {"ada", "bob", "eve"}
            await all_see([ada, bob], {"ada", "bob"})
        await all_see([ada], {"ada"})
        await eventually(lambda: b.hub.rooms == {})
        for node in (a, b, c):
            assert [member.user for member in await node.hub.presence(ROOM)] == ["ada"]
        await ada.socket.close(1000)
        for node in (a, b, c):
            await nobody_in(node)


async def test_who_comes_to_another_node_has_never_been_away(make: Make) -> None:
    """Dropped here and back there: nobody sees a leave or a join, on any node."""
    async with (
        nodes_on(make, 3) as nodes,
        watching(nodes[0].server, "ada") as ada,
        watching(nodes[1].server, "bob") as bob,
    ):
        socket = await connect(nodes[0].server, "/?name=eve&status=here")
        await all_see([ada, bob], {"ada", "bob", "eve"})
        for number in range(1, 7):
            before, after = nodes[(number - 1) % 3], nodes[number % 3]
            await vanish(socket)
            await was_told(before, "eve")
            socket = await connect(after.server, "/?name=eve&status=here")
            eve = Watcher(socket)
            await eve.next()
            assert eve.members["eve"] == [{"status": "here"}]
        told = len(ada.told), len(bob.told)
        await ada.nothing_for(0.3)
        await bob.nothing_for(0.3)
        assert (len(ada.told), len(bob.told)) == told
        await socket.close(1000)
        await all_see([ada, bob], {"ada", "bob"})


async def test_who_is_back_elsewhere_before_that_is_known_has_never_been_away(make: Make) -> None:
    """A node hears of the drop when the client is back there already."""
    async with nodes_on(make) as (a, b), watching(b.server, "bob") as bob:
        socket = await connect(a.server, "/?name=eve")
        await all_see([bob], {"bob", "eve"})
        told = len(bob.told)
        async with connect(b.server, "/?name=eve") as back:
            await eventually(lambda: b.hub.rooms == {ROOM: 2})
            await vanish(socket)
            await bob.nothing_for(0.5)
            assert len(bob.told) == told
            await back.close(1000)
            await all_see([bob], {"bob"})


class Client:
    """A client that goes to another server when its own is gone, as a page does behind a load balancer."""

    def __init__(self, name: str, servers: list[Server], place: int) -> None:
        self.name = name
        self.servers = servers
        self.place = place
        self.watcher: Watcher | None = None
        self.told: Counter[str] = Counter()
        """Frames of presence since it was here for the first time."""
        self.seen: list[set[str]] = []
        """Who was here, by each of them."""
        self.task = asyncio.create_task(self.run())

    @property
    def members(self) -> set[str]:
        return set() if self.watcher is None else set(self.watcher.members)

    async def run(self) -> None:
        while True:
            with suppress(OSError, WebSocketException):
                async with connect(self.servers[self.place % len(self.servers)], f"/?name={self.name}") as socket:
                    self.watcher = Watcher(socket)
                    while True:
                        frame = await self.watcher.next()
                        self.told[frame["type"]] += 1
                        self.seen.append(self.members)
            self.place += 1
            await asyncio.sleep(random.uniform(0.02, 0.15))

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def enter_node(stack: AsyncExitStack, make: Make) -> Server:
    """Start a node, and return its server when it is ready."""
    node = await stack.enter_async_context(node_on(make()))
    await up(node)
    return node.server


async def all_are_told(clients: list[Client], states: int) -> None:
    """Wait until so many times somebody was told who is here, on coming."""
    await eventually(lambda: sum(client.told["$presence"] for client in clients) == states, 10)


async def test_a_rolling_restart_is_no_leave_and_join(make: Make) -> None:
    """All nodes end, one after the other, and others take their place: nobody is told of anybody's leave, or join."""
    users = {f"u{number}" for number in range(24)}
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(AsyncExitStack()) for _ in range(3)]
        servers = [await enter_node(node, make) for node in nodes]
        clients = [Client(user, servers, number) for number, user in enumerate(sorted(users))]
        for client in clients:
            stack.push_async_callback(client.aclose)
        await eventually(lambda: all(client.members == users for client in clients), 10)
        for client in clients:
            client.told.clear()
            client.seen.clear()
        for place, node in enumerate(nodes):
            moving = sum(client.place % 3 == place for client in clients)
            moved = sum(client.told["$presence"] for client in clients) + moving
            await node.aclose()
            await all_are_told(clients, moved)
            servers[place] = await enter_node(node, make)
        assert all(seen == users for client in clients for seen in client.seen)
        assert sum(client.told["$presence"] for client in clients) >= len(users)
        assert sum(client.told["$presence_diff"] for client in clients) == 0
        for client in clients:
            await client.aclose()


NODE = """
import asyncio, sys
from tests.test_presence_nodes import node_on, on_redis, up

async def main():
    async with node_on(on_redis(*sys.argv[1:])()) as node:
        await up(node)
        print(node.server.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_node_that_is_killed_leaves_nobody_behind(redis: RedisServer) -> None:
    """All of its members leave in one frame, within the ttl of the broker, and a later one finds none of them."""
    prefix = token_hex(4)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, redis.url, prefix, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        killed = Server(int(await process.stdout.readline()))
        async with node_on(on_redis(redis.url, prefix)()) as node, AsyncExitStack() as stack:
            await up(node)
            ada = await stack.enter_async_context(watching(node.server, "ada"))
            users = {f"u{number}" for number in range(20)}
            sockets = [await stack.enter_async_context(connect(killed, f"/?name={user}")) for user in users]
            await all_see([ada], {"ada", *users})
            process.kill()
            began, told = monotonic(), len(ada.told)
            await all_see([ada], {"ada"})
            assert monotonic() - began < TTL + 1.0
            assert len(ada.told) == told + 1
            for socket in sockets:
                await socket.wait_closed()
            async with node_on(on_redis(redis.url, prefix)()) as late:
                await up(late)
                assert [member.user for member in await late.hub.presence(ROOM)] == ["ada"]
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_node_that_is_gone_leaves_nobody_behind(redis: RedisServer, dropped: bool) -> None:
    """Its members leave within the ttl of the broker, and come back when it does."""
    prefix = token_hex(4)
    async with (
        serve_proxy(redis.port) as proxy,
        node_on(on_redis(redis.url, prefix)()) as here,
        node_on(on_redis(proxy.url, prefix)()) as there,
    ):
        await up(here, there)
        async with (
            watching(here.server, "ada") as ada,
            connect(there.server, "/?name=bob") as bob,
            connect(there.server, "/?name=eve"),
        ):
            await all_see([ada], {"ada", "bob", "eve"})
            if dropped:
                await vanish(bob)
                await eventually(lambda: there.hub.rooms == {ROOM: 1})
            proxy.swallows = True
            began, told = monotonic(), len(ada.told)
            await all_see([ada], {"ada"})
            assert monotonic() - began < TTL + 1.0
            assert len(ada.told) == told + 1, "all leave in one frame"
            assert [member.user for member in await here.hub.presence(ROOM)] == ["ada"]
            assert {member.user for member in await there.hub.presence(ROOM)} == {"ada", "bob", "eve"}
            proxy.swallows = False
            await all_see([ada], {"ada", "bob", "eve"})


async def test_a_redis_that_forgets_everything_makes_nobody_leave(redis: RedisServer) -> None:
    """All nodes announce again who is there; no member is told anything, and a newcomer sees all."""
    async with nodes_on(on_redis(redis.url), 3, settling=1.0) as nodes, AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(watching(node.server, f"u{number}")) for number, node in enumerate(nodes)
        ]
        users = {"u0", "u1", "u2"}
        await all_see(watchers, users)
        told = [len(watcher.told) for watcher in watchers]
        redis.ask("FLUSHALL")
        await eventually(lambda: redis.ask("KEYS", "*entries*"), 5)
        await asyncio.gather(*(watcher.nothing_for(2.0) for watcher in watchers))
        assert [len(watcher.told) for watcher in watchers] == told
        async with watching(nodes[0].server, "late") as late:
            assert late.members.keys() == {*users, "late"}


async def test_a_redis_that_is_killed_makes_nobody_leave(redis: RedisServer) -> None:
    """While it is away members of one node still see each other come and go; then all see all."""
    async with (
        nodes_on(on_redis(redis.url)) as (a, b),
        watching(a.server, "ada") as ada,
        watching(b.server, "bob") as bob,
        connect(b.server, "/?name=eve") as eve,
    ):
        await all_see([ada, bob], {"ada", "bob", "eve"})
        redis.kill()
        await eventually(lambda: a.hub.health().state == b.hub.health().state == "down", 5)
        async with connect(a.server, "/?name=ada&status=phone"):
            await ada.until(lambda members: len(members["ada"]) == 2)
            await eve.close(1000)
            await bob.until(lambda members: "eve" not in members)
            assert ada.members.keys() == {"ada", "bob", "eve"}
            assert len(bob.members["ada"]) == 1
            told = len(ada.told), len(bob.told)
            redis.start()
            async with asyncio.timeout(15):
                await bob.until(lambda members: len(members["ada"]) == 2)
                await ada.until(lambda members: "eve" not in members)
            assert (len(ada.told), len(bob.told)) == (told[0] + 1, told[1] + 1)
            await asyncio.gather(*(watcher.nothing_for(0.5) for watcher in (ada, bob)))
            assert ada.members == bob.members


async def test_a_big_room_is_counted_over_all_nodes(make: Make) -> None:
    """Above a number of devices on all nodes together only that is told, to members of each of them."""
    async with nodes_on(make, most=4, counted_window=0.2) as (a, b), AsyncExitStack() as stack:
        ada = await stack.enter_async_context(watching(a.server, "ada"))
        bob = await stack.enter_async_context(watching(b.server, "bob"))
        others = [
            await stack.enter_async_context(connect((a, b)[number % 2].server, f"/?name=u{number}"))
            for number in range(4)
        ]
        for watcher in (ada, bob):
            while watcher.page is None or watcher.page.count != 6:
                await watcher.next()
            assert watcher.counts()
        assert len(await a.hub.presence(ROOM)) == len(await b.hub.presence(ROOM)) == 6
        for other in others[:3]:
            await other.close(1000)
        await all_see([ada, bob], {"ada", "bob", "u3"})


async def test_a_thousand_who_come_and_go_on_all_nodes(make: Make) -> None:
    """There is at most one frame in a tenth of a second on each node, and in the end all agree."""
    async with nodes_on(make, 3) as nodes, AsyncExitStack() as stack:
        watchers = [
            await stack.enter_async_context(watching(node.server, f"w{number}")) for number, node in enumerate(nodes)
        ]
        users = {f"w{number}" for number in range(3)}
        await all_see(watchers, users)
        began, told = monotonic(), [len(watcher.told) for watcher in watchers]

        async def come_and_go(number: int) -> None:
            visits = 0
            while visits < 10:
                try:
                    async with connect(random.choice(nodes).server, f"/?name=u{number}") as socket:
                        frame = await receive(socket)
                        assert frame["type"] == "$presence"
                        await socket.close(1000 if visits % 3 else 1001)
                except InvalidStatus as denied:
                    # This loop is client and server of all, and may be too late for what Redis has answered in time.
                    if denied.response.status_code != 503:
                        raise
                else:
                    visits += 1

        visitors = asyncio.gather(*(come_and_go(number) for number in range(20)))
        watching_ = [asyncio.create_task(watcher.until(lambda members: False)) for watcher in watchers]
        await visitors
        await eventually(lambda: all(node.hub.rooms == {ROOM: 1} for node in nodes), 10)
        left = {f"u{number}" for number in range(20)}
        await eventually(lambda: all(watcher.members.keys() <= users | left for watcher in watchers))
        await asyncio.sleep(0.3)
        for task in watching_:
            task.cancel()
        await asyncio.wait(watching_)
        seconds = monotonic() - began
        for watcher, before in zip(watchers, told, strict=True):
            assert len(watcher.told) - before <= seconds / 0.1 + 1
            assert watcher.page is not None
            assert watcher.page.members == devices(await nodes[0].hub.presence(ROOM))


class HesitantBroker(ShakyBroker):
    """A broker that does not say who is there, or takes its time."""

    def __init__(self, *, beside: ShakyBroker | None = None) -> None:
        super().__init__(beside=beside)
        self.silent = False
        self.answers = asyncio.Event()
        """Set unless answers are held back."""
        self.answers.set()
        self.looked = 0
        self.deaf = False
        """Whether what others say is lost."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        await super().start(node, receiver, grace)
        reader: Any = self._server.receivers[node]
        present = reader.present

        def hear(room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
            if not self.deaf:
                present(room, changed, gone)

        reader.present = hear

    async def entries(self, room: str) -> Sequence[Entry]:
        entries = await super().entries(room)
        self.looked += 1
        await self.answers.wait()
        if self.silent:
            raise BrokerError("no answer")
        return entries


@asynccontextmanager
async def shaky_nodes(**options: Any) -> AsyncGenerator[tuple[Node, Node, HesitantBroker, HesitantBroker]]:
    one = HesitantBroker()
    other = HesitantBroker(beside=one)
    async with node_on(one, **options) as a, node_on(other, **options) as b:
        yield a, b, one, other


def told_of(broker: ShakyBroker) -> list[str]:
    """Return, and forget, what a broker was asked or told of the room."""
    asked = [each.removesuffix(f" {ROOM}") for each in broker.asked if each.endswith(ROOM)]
    broker.asked.clear()
    return asked


async def test_a_join_costs_one_call_and_a_stay_none() -> None:
    """The broker is told when somebody comes, changes or goes; of many at a time in one call; and of nothing else."""
    async with shaky_nodes() as (a, _, one, other), watching(a.server, "ada") as ada:
        assert told_of(one) == ["subscribe room", "entries", "announce"]
        async with connect(a.server, "/?name=bob&status=here") as bob:
            await all_see([ada], {"ada", "bob"})
            assert told_of(one) == ["announce"]
            await send(bob, "status", {"status": "here"})
            await ada.nothing_for(1.0)
            assert told_of(one) == []
            await send(bob, "status", {"status": "away"})
            await ada.next()
            assert told_of(one) == ["announce"]
            await bob.close(1000)
        await all_see([ada], {"ada"})
        assert told_of(one) == ["withdraw"]
        async with AsyncExitStack() as stack:
            many = [stack.enter_async_context(connect(a.server, f"/?name=u{number}")) for number in range(40)]
            await asyncio.gather(*many)
            await ada.until(lambda members: len(members) == 41)
            assert len(told_of(one)) < 20
        await all_see([ada], {"ada"})
        assert told_of(other) == []


async def test_a_join_does_not_wait_until_others_know() -> None:
    """While the broker does not answer, members of the node see each other; others see them when it does."""
    async with shaky_nodes() as (a, b, one, _), watching(a.server, "ada") as ada, watching(b.server, "bob") as bob:
        await all_see([ada, bob], {"ada", "bob"})
        one.up = False
        phone = await connect(a.server, "/?name=ada&status=phone")
        await ada.until(lambda members: len(members["ada"]) == 2)
        one.up = True
        await bob.until(lambda members: len(members["ada"]) == 2)
        one.up = False
        await phone.close(1000)
        await ada.until(lambda members: len(members["ada"]) == 1)
        assert len(bob.members["ada"]) == 2
        one.up = True
        one.tell()
        await bob.until(lambda members: len(members["ada"]) == 1)


async def test_a_join_that_can_not_learn_who_is_there_fails() -> None:
    """The client is told to try again, and is no member; a next one may be."""
    async with shaky_nodes() as (a, _, one, _), connect(a.server, "/?name=ada&room=plain") as ada:
        one.silent = True
        await send(ada, "tell", {"status": "here"}, id=1)
        answer = await receive(ada)
        assert (answer["error"]["code"], answer["error"]["retry"]) == ("unavailable", True)
        assert a.hub.rooms == {"plain": 1}
        one.silent = False
        await send(ada, "tell", {"status": "here"}, id=2)
        state = await receive(ada)
        assert (state["type"], state["room"]) == ("$presence", "desk:other")
        assert a.hub.rooms == {"plain": 1, "desk:other": 1}


async def test_what_is_heard_while_a_room_is_loaded_is_not_lost() -> None:
    """Who comes and goes between the question and its answer is seen by the first member all the same."""
    async with shaky_nodes() as (a, b, one, _), watching(b.server, "bob") as bob, AsyncExitStack() as stack:
        eve = await stack.enter_async_context(connect(b.server, "/?name=eve"))
        await bob.until(lambda members: "eve" in members)
        one.answers.clear()
        ada = await stack.enter_async_context(connect(a.server, "/?name=ada"))
        await eventually(lambda: one.looked)
        await eve.close(1000)
        await stack.enter_async_context(connect(b.server, "/?name=new"))
        await all_see([bob], {"bob", "new"})
        one.answers.set()
        page = Watcher(ada)
        await page.next()
        assert page.members.keys() == {"bob", "new"}
        await all_see([page, bob], {"ada", "bob", "new"})


async def test_who_leaves_while_a_room_is_loaded_leaves_nothing() -> None:
    """A join that is given up meanwhile is no member, and the room is heard of no longer."""
    async with shaky_nodes() as (a, b, one, _), watching(b.server, "bob"):
        one.answers.clear()
        async with connect(a.server, "/?name=ada") as ada:
            await eventually(lambda: one.looked)
            await vanish(ada)
            one.answers.set()
            await eventually(lambda: not a.hub.connections)
        await eventually(lambda: ("room", ROOM) not in one.names)
        assert [member.user for member in await a.hub.presence(ROOM)] == ["bob"]


async def test_who_leaves_while_a_room_is_loaded_again_leaves_nothing() -> None:
    """An answer that comes when nobody is there any more is not kept."""
    async with shaky_nodes() as (a, b, one, _), watching(b.server, "bob") as bob:
        async with watching(a.server, "ada") as ada:
            one.answers.clear()
            one.tell()
            await eventually(lambda: one.looked == 2)
            await ada.socket.close(1000)
            await eventually(lambda: ("room", ROOM) not in one.names)
            one.answers.set()
        await bob.socket.close(1000)
        for node in (a, b):
            await nobody_in(node)


async def test_a_room_that_could_not_be_loaded_again_is_asked_for_until_it_is() -> None:
    """What was missed is not forgotten over an answer that does not come."""
    async with shaky_nodes() as (a, b, one, _), watching(a.server, "ada") as ada, watching(b.server, "bob") as bob:
        await all_see([ada, bob], {"ada", "bob"})
        one.deaf = True
        async with connect(b.server, "/?name=eve"):
            await bob.until(lambda members: "eve" in members)
            one.deaf, one.silent = False, True
            one.tell()
            await eventually(lambda: one.looked >= 3)
            assert "eve" not in ada.members
            one.silent = False
            await ada.until(lambda members: "eve" in members)


async def test_what_is_left_to_tell_is_told_at_the_end() -> None:
    """A node that ends while its broker is slow waits until it was told who was dropped."""
    async with shaky_nodes() as (a, _, _, other), watching(a.server, "ada") as ada, AsyncExitStack() as stack:
        slow = HesitantBroker(beside=other)
        async with node_on(slow) as node:
            await stack.enter_async_context(connect(node.server, "/?name=eve"))
            await ada.until(lambda members: "eve" in members)
            told = len(ada.told)
            slow.latency = 0.5
        assert [entry.user for entry in await other.entries(ROOM) if entry.dropped] == ["eve"]
        await ada.nothing_for(0.3)
        assert len(ada.told) == told


async def test_a_node_that_starts_again_is_another() -> None:
    """Who was dropped when it ended can come back to it, as to any other."""
    async with node_on(MemoryBroker()) as other:
        first: Any = other.hub.node.broker
        hub = Hub(MemoryBroker(beside=first), rooms={"desk:*": RoomOptions(presence=True)})
        async with watching(other.server, "ada") as ada:
            for _ in range(2):
                async with served(hub, WS) as server:
                    socket = await connect(server, "/?name=bob")
                    await eventually(lambda: hub.rooms == {ROOM: 1})
                    await all_see([ada], {"ada", "bob"})
                await socket.wait_closed()
                assert [member.user for member in await other.hub.presence(ROOM)] == ["ada", "bob"]
            await ada.nothing_for(0.3)
            assert ada.told == ["$presence", "$presence_diff", "$presence_diff"]
