"""A Redis cluster: sharded channels, and subscriptions that move with their slots."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.asyncio import RedisCluster as Client
from redis.crc import key_slot

from tests.brokers.redis.cluster import CLUSTERABLE, RedisCluster, serve_cluster
from tests.brokers.redis.nodes import NodeOf, message
from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.brokers.base import Entry, Publication, Slot
from wsrouter.brokers.redis import RedisBroker
from wsrouter.brokers.redis.names import Names
from wsrouter.history import History, Position

pytestmark = pytest.mark.skipif(not CLUSTERABLE, reason="sharded channels need Redis 7 on PATH")

HISTORY = History(size=100, ttl=60)
NAMES = Names("wsrouter:", 0)
ROOMS = [f"room-{number}" for number in range(60)]


@pytest.fixture(params=CLUSTERABLE.values(), ids=list(CLUSTERABLE))
def cluster(request: pytest.FixtureRequest) -> Generator[RedisCluster]:
    """Three servers that have slots, and for a test about a replica a fourth."""
    with serve_cluster(request.param, 4 if "replica" in request.node.name else 3) as cluster:
        yield cluster


@asynccontextmanager
async def nodes(cluster: RedisCluster, count: int) -> AsyncGenerator[list[NodeOf]]:
    """Open nodes on a cluster."""
    opened: list[NodeOf] = []
    try:
        for number in range(count):
            # Each finds the others by one of them, which need not be the same.
            client = Client(host="127.0.0.1", port=cluster.servers[number % 3].port)
            node = NodeOf(RedisBroker(client=client, heartbeat=0.2, timeout=1, ttl=3), f"node-{number}")
            await node.broker.start(node.id, node)
            opened.append(node)
            assert node.up
        yield opened
    finally:
        for node in opened:
            await node.broker.aclose()


def slot_of(room: str) -> int:
    return key_slot(NAMES.channel("room", room))


async def test_a_cluster_does_what_one_server_does(cluster: RedisCluster) -> None:
    """Rooms on all servers, with and without history, users, presence and slots."""
    async with nodes(cluster, 2) as (here, there):
        assert len({cluster.owner(slot_of(room)).port for room in ROOMS}) == 3
        for room in ROOMS:
            await there.broker.subscribe("room", room)
            await there.broker.subscribe("room", f"kept {room}", HISTORY)
        await asyncio.gather(*(here.broker.publish(message(room, b"1")) for room in ROOMS))
        await asyncio.gather(*(here.broker.publish(message(f"kept {room}", b"2"), HISTORY) for room in ROOMS))
        await eventually(lambda: len(there.told) == 2 * len(ROOMS))
        assert {each.name for each in there.delivered} == {*ROOMS, *(f"kept {room}" for room in ROOMS)}
        for room in ROOMS:
            recovery = await here.broker.recover(f"kept {room}", HISTORY, None)
            assert recovery.offset == 1
            recovery = await here.broker.recover(f"kept {room}", HISTORY, Position(recovery.epoch, 0))
            assert [each.data for each in recovery.publications] == [b"2"]
        there.told.clear()
        for user in ("a", "b", "c", "d"):
            await here.broker.publish(Publication("disconnect", user, user))
            await there.broker.subscribe("user", user)
        assert [each.type for each in there.delivered] == ["a", "b", "c", "d"]
        entry = Entry("r", here.id, "u")
        assert await here.broker.announce(ROOMS[0], [entry]) == []
        assert await there.broker.entries(ROOMS[0]) == [entry]
        await eventually(lambda: ("present", ROOMS[0], [entry], []) in there.told)
        for holder in ("1", "2"):
            assert (await here.broker.acquire("name", holder, 2, replace=False)).held
        assert await there.broker.acquire("name", "3", 2, replace=True) == Slot(True, "1")
        await eventually(lambda: there.broker.link().heartbeat_age is not None)
        assert there.losses == []


async def test_subscriptions_move_with_their_slots(cluster: RedisCluster) -> None:
    """A room whose slot is given to another server is told as lost and goes on there; others do not notice."""
    async with nodes(cluster, 2) as (here, there):
        for room in ROOMS:
            await there.broker.subscribe("room", room)
        room = ROOMS[0]
        slot = slot_of(room)
        target = next(server for server in cluster.servers if server is not cluster.owner(slot))
        cluster.give(slot, target)
        await eventually(lambda: there.has_lost("room", room) and there.up, 5)
        assert there.losses == [{("room", room)}]

        with suppress(BrokerError):  # this node may not know of it yet
            await here.broker.publish(message(room, b"1"))
        there.told.clear()
        clock = asyncio.get_running_loop().time
        until = clock() + 1
        await eventually(lambda: clock() > until)
        await here.broker.publish(message(room, b"2"))
        await eventually(lambda: there.data[-1:] == [b"2"])


async def test_a_server_of_a_cluster_is_lost(cluster: RedisCluster) -> None:
    """Rooms on it fail until it is back, rooms on others go on, and only its own are told as lost."""
    async with nodes(cluster, 2) as (here, there):
        for server in cluster.servers:
            server.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        for room in ROOMS:
            await there.broker.subscribe("room", room)
        victim = cluster.servers[2]
        on_victim = {room for room in ROOMS if cluster.owner(slot_of(room)) is victim}
        elsewhere = [room for room in ROOMS if room not in on_victim]
        victim.kill()
        await eventually(lambda: not here.up and not there.up, 5)
        for room in on_victim:
            with pytest.raises(BrokerError):
                await here.broker.publish(message(room, b"1"))
        for room in elsewhere:
            await here.broker.publish(message(room, b"2"))
        await eventually(lambda: len(there.delivered) == len(elsewhere))
        assert there.losses == []
        victim.start()
        await eventually(lambda: here.up and there.up, 10)
        await eventually(lambda: {name for names in there.losses for _, name in names} == on_victim, 5)
        for room in ROOMS:
            await here.broker.publish(message(room, b"3"))
        await eventually(lambda: there.data.count(b"3") == len(ROOMS))


async def test_a_replica_takes_over(cluster: RedisCluster) -> None:
    """Its rooms go on there, told as lost, with history in another epoch: a replica may lack what was acknowledged."""
    replica, victim = cluster.servers[3], cluster.servers[2]
    cluster.replicate(replica, victim)
    async with nodes(cluster, 2) as (here, there):
        room = next(room for room in ROOMS if cluster.owner(slot_of(room)) is victim)
        await there.broker.subscribe("room", room, HISTORY)
        await here.broker.publish(message(room, b"1"), HISTORY)
        before = await there.broker.recover(room, HISTORY, None)
        victim.kill()
        await eventually(lambda: there.has_lost("room", room) and there.up and here.up, 20)
        recovery = await there.broker.recover(room, HISTORY, Position(before.epoch, 1))
        assert not recovery.recovered
        await here.broker.publish(message(room, b"2"), HISTORY)
        await eventually(lambda: there.data[-1:] == [b"2"])
        assert cluster.owner(slot_of(room)) is replica


@pytest.mark.logs_errors
async def test_a_cluster_is_not_taken_for_one_server(cluster: RedisCluster, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives the address of one is told what to write."""
    node = NodeOf(RedisBroker(cluster.servers[0].url, timeout=0.5), "one")
    await node.broker.start(node.id, node)
    assert not node.up
    assert "RedisBroker(client=RedisCluster(...))" in caplog.text
    await node.broker.aclose()
