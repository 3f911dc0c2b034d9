"""Presence entries in a real Redis: they belong to nodes, and go with them."""

import asyncio
import time

import pytest

from tests.brokers.redis.nodes import NodeOf, Open
from tests.brokers.redis.proxy import serve_proxy
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.brokers.base import Entry

TIMES = {"ttl": 0.9, "heartbeat": 0.1, "timeout": 0.4}


def entry(node: NodeOf, ref: str, user: str = "u", meta: bytes = b"{}", *, dropped: bool = False) -> Entry:
    return Entry(ref, node.id, user, meta, dropped)


async def test_entries_are_told_and_found(redis_server: RedisServer, opened: Open) -> None:
    """As they were given, to others who subscribed, in their order; and to anybody who asks."""
    here, there = await opened(redis_server), await opened(redis_server)
    for node in (here, there):
        await node.broker.subscribe("room", "told")
    one, two = entry(here, "r1", "ü\n", '{"a":"é"}'.encode()), entry(here, "r2", "")
    assert await here.broker.announce("told", [one, two]) == []
    changed = entry(here, "r1", "ü\n", b'{"a":1.0}')
    await here.broker.announce("told", [changed])
    await here.broker.withdraw("told", ["r2", "unknown"])
    await eventually(lambda: len(there.told) == 3, 10)
    assert there.told == [
        ("present", "told", [one, two], []),
        ("present", "told", [changed], []),
        ("present", "told", [], ["r2"]),
    ]
    assert here.told == []
    assert await there.broker.entries("told") == await here.broker.entries("told") == [changed]


async def test_a_dropped_entry_is_taken_over_by_one(redis_server: RedisServer, opened: Open) -> None:
    """A ref that another node has is refused; a dropped one is whose node announces it first, and stays there."""
    here, there, third = [await opened(redis_server) for _ in range(3)]
    await here.broker.announce("moved", [entry(here, "r")])
    assert await there.broker.announce("moved", [entry(there, "r"), entry(there, "other")]) == ["r"]
    await here.broker.announce("moved", [entry(here, "r", dropped=True)])
    assert await there.broker.announce("moved", [entry(there, "r")]) == []
    assert await third.broker.announce("moved", [entry(third, "r")]) == ["r"]
    assert await here.broker.announce("moved", [entry(here, "r", dropped=True)]) == ["r"]
    await here.broker.withdraw("moved", ["r"])
    assert entry(there, "r") in await third.broker.entries("moved")


async def test_a_node_that_is_gone_leaves_nobody(redis_server: RedisServer, opened: Open) -> None:
    """After the ttl it is told to have departed, and nobody finds its entries; who is there does not depart."""
    here, witness = await opened(redis_server, **TIMES), await opened(redis_server, **TIMES)
    async with serve_proxy(redis_server.port) as proxy:
        gone = await opened(proxy, **TIMES)
        for node in (gone, here):
            await node.broker.announce("left", [entry(node, f"of {node.id}")])
        await eventually(lambda: witness.broker.link().heartbeat_age is not None, 10)
        assert len(await witness.broker.entries("left")) == 2
        proxy.swallows = True
        departed = ("departed", gone.id)
        await eventually(lambda: departed in here.told and departed in witness.told, 10)
        assert await witness.broker.entries("left") == [entry(here, f"of {here.id}")]
        assert ("departed", here.id) not in witness.told
        proxy.swallows = False
        await eventually(lambda: gone.up, 10)


async def test_a_node_is_gone_when_its_time_is_over(redis_server: RedisServer, opened: Open) -> None:
    """And not only with the next heartbeat of those that are there."""
    times = {"ttl": 3.0, "heartbeat": 1.0}
    async with serve_proxy(redis_server.port) as proxy:
        gone = await opened(proxy, **times)
        await asyncio.sleep(0.8)  # so that heartbeats of one come shortly before those of the other
        here = await opened(redis_server, **times)
        await eventually(lambda: (gone.broker.link().heartbeat_age or 1) < 0.1, 5)
        heard = time.monotonic()
        proxy.swallows = True
        await eventually(lambda: ("departed", gone.id) in here.told, 10)
        assert 2.8 <= time.monotonic() - heard < 3.5
        proxy.swallows = False
        proxy.cut()


async def test_a_dropped_entry_goes_after_its_grace(redis_server: RedisServer, opened: Open) -> None:
    """Whoever asks later does not find it, though nobody withdrew it and its node lives."""
    node = await opened(redis_server, **TIMES, grace=0.5)
    await node.broker.announce("grace", [entry(node, "r", dropped=True)])
    assert len(await node.broker.entries("grace")) == 1
    clock = asyncio.get_running_loop().time
    until = clock() + 0.3
    await eventually(lambda: clock() > until)
    await node.broker.announce("grace", [entry(node, "r", dropped=True)])  # does not begin the grace anew
    until = clock() + 0.3
    await eventually(lambda: clock() > until)
    assert await node.broker.entries("grace") == []


async def test_who_closes_takes_its_entries_along(redis_server: RedisServer, opened: Open) -> None:
    """But for those that are dropped, so that their users may come back on another node within the grace."""
    here, there = await opened(redis_server), await opened(redis_server)
    await there.broker.subscribe("room", "closed")
    await here.broker.announce("closed", [entry(here, "stays", dropped=True), entry(here, "goes")])
    await here.broker.aclose()
    assert await there.broker.entries("closed") == [entry(here, "stays", dropped=True)]
    await eventually(lambda: ("present", "closed", [], ["goes"]) in there.told, 10)
    assert await there.broker.announce("closed", [entry(there, "stays")]) == []


async def test_keys_of_presence_go_by_themselves(redis_server: RedisServer, opened: Open) -> None:
    """All that is kept has an expiry, which is renewed while a node has a use for it."""
    node = await opened(redis_server, ttl=0.4, heartbeat=0.1, grace=0.5, prefix="expiry:")
    await node.broker.announce("kept", [entry(node, "r")])
    clock = asyncio.get_running_loop().time
    until = clock() + 1.6
    await eventually(lambda: clock() > until)
    assert len(await node.broker.entries("kept")) == 1
    keys = redis_server.ask("KEYS", "expiry:*")
    assert len(keys) == 2
    assert all(0 < redis_server.ask("PTTL", key) <= 1200 for key in keys)


async def test_who_may_come_back_outlives_the_last_node(redis_server: RedisServer, opened: Open) -> None:
    """A grace of many times the ttl: what is dropped is kept for all of it, also when no node is left."""
    node = await opened(redis_server, ttl=0.4, heartbeat=0.1, grace=90.0, prefix="outlives:")
    await node.broker.announce("kept", [entry(node, "r", dropped=True)])
    await node.broker.aclose()
    [key] = [key for key in redis_server.ask("KEYS", "outlives:*") if redis_server.ask("TYPE", key) == b"hash"]
    assert 60_000 < redis_server.ask("PTTL", key) <= 90_400


async def test_what_was_not_announced_is_not_kept(own_server: RedisServer, opened: Open) -> None:
    """An entry that Redis never had is not this node's, and its room's key is not kept up for it."""
    node = await opened(own_server, ttl=5.0, heartbeat=0.2, timeout=0.5)
    entry = Entry("known", node.id, "u")
    await node.broker.announce("room", [entry])
    own_server.kill()
    await eventually(lambda: not node.up, 10)
    for room, ref in ("room", "known"), ("room", "new"), ("another", "new"):
        with pytest.raises(BrokerError):
            await node.broker.announce(room, [Entry(ref, node.id, "u")])
    own_server.start()
    await eventually(lambda: node.up, 10)
    await node.broker.announce("another", [Entry("later", node.id, "u")])
    await node.broker.withdraw("another", ["later"])
    own_server.ask("CONFIG", "RESETSTAT")
    await node.broker.aclose()
    calls = {each: facts["calls"] for each, facts in own_server.ask("INFO", "commandstats").items()}
    assert calls["cmdstat_hmget"] == 1, "it withdraws the one that it had announced, in one room"


async def test_what_another_node_took_over_is_forgotten(redis_server: RedisServer, opened: Open) -> None:
    """Also by a node that did not hear of it, because nobody was in the room there, when it asks who is there."""
    here, there = await opened(redis_server), await opened(redis_server)
    await here.broker.announce("taken", [Entry("1", here.id, "u", dropped=True), Entry("2", here.id, "u")])
    assert await there.broker.announce("taken", [Entry("1", there.id, "u")]) == []
    node = here.broker._node  # pyright: ignore[reportPrivateUsage]
    assert node is not None
    presence = node.presence
    await here.broker.entries("taken")
    await here.broker.withdraw("taken", ["2"])
    assert not presence.rooms
    await here.broker.announce("taken", [Entry("3", here.id, "u")])
    asking = asyncio.create_task(here.broker.entries("taken"))
    await asyncio.sleep(0)
    await there.broker.announce("taken", [Entry("1", there.id, "u", dropped=True)])
    assert await here.broker.announce("taken", [Entry("1", here.id, "u")]) == []
    await asking
    await here.broker.withdraw("taken", ["3"])
    assert "taken" in presence.rooms, "it is this node's again, whatever it was when it asked"


async def test_a_redis_that_is_emptied_is_told_again(own_server: RedisServer, opened: Open) -> None:
    """A node notices by its heartbeat, and says of its rooms with entries that they have to be announced again."""
    node, other = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    await node.broker.subscribe("room", "emptied")
    await node.broker.subscribe("room", "without entries")
    await node.broker.announce("emptied", [entry(node, "r")])
    own_server.ask("FLUSHALL")
    await eventually(lambda: node.has_lost("room", "emptied"), 10)
    assert not node.has_lost("room", "without entries")
    assert ("departed", node.id) not in other.told
    await node.broker.announce("emptied", [entry(node, "r")])
    assert await other.broker.entries("emptied") == [entry(node, "r")]


@pytest.mark.parametrize("value", [b"", b"nonsense", b"n 0 {}", b'n x {"v":1}', b'n 0 {"ref":1}', b"\xff 0 {}"])
async def test_what_is_no_entry_is_passed_over(redis_server: RedisServer, opened: Open, value: bytes) -> None:
    """What somebody else has written there is removed, and harms nobody."""
    node = await opened(redis_server, prefix="forged:")
    await node.broker.announce("room", [entry(node, "r")])
    (key,) = redis_server.ask("KEYS", "forged:entries:*")
    redis_server.ask("HSET", key, "forged", value)
    assert await node.broker.entries("room") == [entry(node, "r")]
    assert redis_server.ask("HKEYS", key) == [b"r"]
    redis_server.ask("HSET", key, "forged", value)
    await node.broker.announce("room", [entry(node, "forged")])
    await node.broker.withdraw("room", ["forged", "r"])
