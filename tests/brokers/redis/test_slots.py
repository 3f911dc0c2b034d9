"""Slots in a real Redis, held by the nodes that live."""

import asyncio

import pytest

from tests.brokers.redis.nodes import Open
from tests.brokers.redis.proxy import serve_proxy
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.brokers.base import Slot

TIMES = {"ttl": 0.9, "heartbeat": 0.1, "timeout": 0.4}


async def test_slots_of_all_nodes_are_counted_together(redis_server: RedisServer, opened: Open) -> None:
    """As many are given as there are, the same holder keeps its own, and what is released is free."""
    here, there = await opened(redis_server), await opened(redis_server)
    given = await asyncio.gather(
        *(
            node.broker.acquire("name", f"{node.id}-{number}", 3, replace=False)
            for number in range(5)
            for node in (here, there)
        )
    )
    assert sum(slot.held for slot in given) == 3
    holder = next(f"{here.id}-{number}" for number in range(5) if given[2 * number].held)
    assert await here.broker.acquire("name", holder, 3, replace=False) == Slot(True)
    await here.broker.release("name", "nobody")
    assert await there.broker.acquire("name", "more", 3, replace=False) == Slot(False)
    await here.broker.release("name", holder)
    assert await there.broker.acquire("name", "more", 3, replace=False) == Slot(True)


async def test_the_oldest_makes_room(redis_server: RedisServer, opened: Open) -> None:
    """Where one may be replaced it is the oldest, on whichever node."""
    here, there = await opened(redis_server), await opened(redis_server)
    assert await here.broker.acquire("oldest", "1", 2, replace=True) == Slot(True)
    assert await there.broker.acquire("oldest", "2", 2, replace=True) == Slot(True)
    assert await there.broker.acquire("oldest", "3", 2, replace=True) == Slot(True, "1")
    assert await here.broker.acquire("oldest", "4", 2, replace=True) == Slot(True, "2")


async def test_a_slot_does_not_outlive_its_node(redis_server: RedisServer, opened: Open) -> None:
    """Slots of a node that is gone are free before a living holder has to go; a closed node gives its back."""
    here, closed = await opened(redis_server, **TIMES), await opened(redis_server, **TIMES)
    assert (await closed.broker.acquire("died", "0", 2, replace=False)).held
    await closed.broker.aclose()
    assert (await here.broker.acquire("died", "1", 2, replace=False)).held
    async with serve_proxy(redis_server.port) as proxy:
        gone = await opened(proxy, **TIMES)
        assert (await gone.broker.acquire("died", "2", 2, replace=False)).held
        assert not (await here.broker.acquire("died", "3", 2, replace=False)).held
        proxy.swallows = True
        await eventually(lambda: ("departed", gone.id) in here.told, 10)
        assert await here.broker.acquire("died", "3", 2, replace=True) == Slot(True)
        proxy.swallows = False
        await eventually(lambda: gone.up, 10)


async def test_what_is_held_is_held_after_a_restart(own_server: RedisServer, opened: Open) -> None:
    """A Redis that has forgotten is told again, also of what was released while it was away."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    for holder in ("stays", "goes"):
        assert (await here.broker.acquire("kept", holder, 2, replace=False)).held
    own_server.ask("FLUSHALL")
    await eventually(lambda: own_server.ask("KEYS", "*slots*"), 10)
    assert not (await there.broker.acquire("kept", "new", 2, replace=False)).held
    own_server.kill()
    await eventually(lambda: not here.up, 10)
    await here.broker.release("kept", "goes")
    own_server.start()
    await eventually(lambda: here.up and there.up, 10)
    await eventually(lambda: own_server.ask("KEYS", "*slots*"), 10)
    assert (await there.broker.acquire("kept", "new", 2, replace=False)).held
    assert not (await there.broker.acquire("kept", "more", 2, replace=False)).held


async def test_a_slot_of_unknown_outcome_is_given_back(own_server: RedisServer, opened: Open) -> None:
    """Who could not be told that it has one has none, as soon as Redis answers again."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    own_server.freeze()
    with pytest.raises(BrokerError) as failed:
        await here.broker.acquire("unknown", "1", 1, replace=False)
    assert failed.value.outcome_unknown
    own_server.thaw()
    await eventually(lambda: here.up and there.up, 10)
    await eventually(lambda: not own_server.ask("KEYS", "*slots*"), 10)
    assert (await there.broker.acquire("unknown", "2", 1, replace=False)).held


async def test_a_slot_that_redis_refused_to_take_back_is_given_back_later(
    own_server: RedisServer, opened: Open
) -> None:
    """Redis may refuse to write for a moment, over a connection that stays."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    assert (await here.broker.acquire("name", "1", 1, replace=False)).held
    own_server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    await here.broker.release("name", "1")
    own_server.ask("CONFIG", "SET", "min-replicas-to-write", 0)
    await eventually(lambda: not own_server.ask("KEYS", "*slots*"), 5)
    assert (await there.broker.acquire("name", "2", 1, replace=False)).held
    assert here.losses == []


async def test_to_give_a_slot_back_costs_the_same_for_many_holders(own_server: RedisServer, opened: Open) -> None:
    """Redis is told of the one that is released, not of all that stay; after a loss of all, in lots."""
    node = await opened(own_server)
    for number in range(600):
        await node.broker.acquire("name", f"holder-{number}", 600, replace=False)
    before = _received(own_server)
    await asyncio.gather(*(node.broker.release("name", f"holder-{number}") for number in range(300)))
    assert (_received(own_server) - before) / 300 < 300
    key = own_server.ask("KEYS", "*slots*")[0]
    assert own_server.ask("ZCARD", key) == 300
    own_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    own_server.ask("DEL", key)
    await eventually(lambda: own_server.ask("ZCARD", key) == 300, 5)


def _received(server: RedisServer) -> int:
    return int(server.ask("INFO", "stats")["total_net_input_bytes"])


async def test_a_slow_redis_does_not_add_up(own_server: RedisServer, opened: Open) -> None:
    """What takes several commands ends within the time of one, too; what was asked for is given back."""
    async with serve_proxy(own_server.port) as proxy:
        slow, other = await opened(proxy, timeout=0.8), await opened(own_server)
        assert (await other.broker.acquire("s", "first", 1, replace=False)).held
        proxy.delay = 0.3  # each way
        loop = asyncio.get_running_loop()
        for ask in (
            slow.broker.acquire("s", "second", 1, replace=True),
            slow.broker.subscribe("user", "ada"),
        ):
            began = loop.time()
            with pytest.raises(BrokerError):
                await ask
            assert loop.time() - began < 1.1
        proxy.delay = 0.0
        await other.broker.release("s", "first")
        await eventually(lambda: slow.up, 10)
        await eventually(lambda: not own_server.ask("KEYS", "*slots*"), 10)
