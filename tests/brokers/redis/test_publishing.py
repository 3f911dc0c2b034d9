"""Publications on a real Redis, from one node to another, while all goes well."""

import asyncio

import pytest

from tests.brokers.redis.nodes import Open, message
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter.brokers.base import Publication
from wsrouter.history import History, Position

HISTORY = History(size=5, ttl=60)


async def test_what_is_published_comes_as_it_was(redis_server: RedisServer, opened: Open) -> None:
    """Every part of a publication crosses, and each node that subscribed gets it once."""
    here, there = await opened(redis_server), await opened(redis_server)
    sent = [
        message(
            "room", b'{"text":"h\\u00e9 \\n"}', key="k", exclude=frozenset({"c1"}), exclude_users=frozenset({"u", "\n"})
        ),
        message("room", b"1e400"[:1]),
        Publication("room", "room", frame="text\nand more"),
        Publication("room", "room", frame=b"\x00\xff\n\r"),
    ]
    for node in (here, there):
        await node.broker.subscribe("room", "room")
    for each in sent:
        await here.broker.publish(each)
    assert here.told == sent
    await eventually(lambda: len(there.told) == len(sent))
    assert there.told == sent


async def test_what_this_node_publishes_is_delivered_here_at_once(redis_server: RedisServer, opened: Open) -> None:
    """Without history a publication needs no way through Redis to the members of its own node."""
    node = await opened(redis_server)
    await node.broker.subscribe("room", "room")
    publishing = asyncio.create_task(node.broker.publish(message("room", b"1")))
    await asyncio.sleep(0)
    assert node.data == [b"1"]
    await publishing


async def test_who_did_not_subscribe_gets_nothing(redis_server: RedisServer, opened: Open) -> None:
    """Neither before it subscribes nor after it ceased to, nor of a user who is called as a room is."""
    here, there = await opened(redis_server), await opened(redis_server)
    await there.broker.subscribe("room", "other")
    await there.broker.subscribe("user", "room")
    await here.broker.publish(message("room", b"1"))
    await there.broker.subscribe("room", "room")
    await here.broker.publish(message("room", b"2"))
    await eventually(lambda: there.data == [b"2"])
    await there.broker.unsubscribe("room", "room")
    await here.broker.publish(message("room", b"3"))
    await here.broker.publish(message("other", b"4"))
    await eventually(lambda: there.data == [b"2", b"4"])


async def test_order_is_that_of_publishing(redis_server: RedisServer, opened: Open) -> None:
    """However many publications are under way at once."""
    here, there = await opened(redis_server), await opened(redis_server)
    await there.broker.subscribe("room", "room")
    await asyncio.gather(*(here.broker.publish(message("room", b"%d" % number)) for number in range(2000)))
    await eventually(lambda: len(there.told) == 2000)
    assert there.data == [b"%d" % number for number in range(2000)]


async def test_a_room_with_history_has_one_order(redis_server: RedisServer, opened: Open) -> None:
    """Both nodes get all publications of both, each with the next offset, and who published has it on return."""
    here, there = await opened(redis_server), await opened(redis_server)
    for node in (here, there):
        await node.broker.subscribe("room", "room", HISTORY)

    for number in range(50):
        await asyncio.gather(
            here.broker.publish(message("room", b"%d" % number), HISTORY),
            there.broker.publish(message("room", b"-%d" % number), HISTORY),
        )
        assert b"%d" % number in here.data
        assert b"-%d" % number in there.data
    await eventually(lambda: len(here.told) == len(there.told) == 100)
    assert here.told == there.told
    assert [each.offset for each in here.delivered] == list(range(1, 101))
    assert len({each.epoch for each in here.delivered}) == 1


async def test_what_was_missed_is_recovered_whole_or_not_at_all(redis_server: RedisServer, opened: Open) -> None:
    """From any position that the room still has everything after; on another node than the one that published."""
    here, there = await opened(redis_server), await opened(redis_server)
    for number in range(1, 9):
        await here.broker.publish(message("kept", b"%d" % number), HISTORY)
    start = await there.broker.recover("kept", HISTORY, None)
    assert (start.offset, start.recovered, start.publications) == (8, False, ())
    for offset in range(10):
        recovery = await there.broker.recover("kept", HISTORY, Position(start.epoch, offset))
        missed = [each.data for each in recovery.publications]
        if 3 <= offset <= 8:
            assert (recovery.recovered, recovery.offset) == (True, offset)
            assert missed == [b"%d" % number for number in range(offset + 1, 9)]
            assert [each.offset for each in recovery.publications] == list(range(offset + 1, 9))
        else:
            assert (recovery.recovered, recovery.offset, missed) == (False, 8, [])
    assert not (await there.broker.recover("kept", HISTORY, Position("another", 8))).recovered


async def test_what_is_too_old_is_not_recovered(redis_server: RedisServer, opened: Open) -> None:
    """A publication older than the history's ttl is gone, though the room is used."""
    node = await opened(redis_server)
    history = History(size=100, ttl=0.3)
    await node.broker.publish(message("old", b"1"), history)
    start = await node.broker.recover("old", history, None)
    clock = asyncio.get_running_loop().time
    until = clock() + 0.25
    await eventually(lambda: clock() > until)
    await node.broker.publish(message("old", b"2"), history)
    until = clock() + 0.1
    await eventually(lambda: clock() > until)
    assert not (await node.broker.recover("old", history, Position(start.epoch, 0))).recovered
    recovery = await node.broker.recover("old", history, Position(start.epoch, 1))
    assert [each.data for each in recovery.publications] == [b"2"]


async def test_an_order_to_disconnect_reaches_who_subscribes_later(redis_server: RedisServer, opened: Open) -> None:
    """Every node that subscribes to the user within a minute gets it once, with its age."""
    here, there = await opened(redis_server), await opened(redis_server)
    await here.broker.subscribe("user", "u")
    order = Publication("disconnect", "u", "banned", code=4403, only=frozenset({"c1"}))
    await here.broker.publish(order)
    assert here.told == [order]
    await there.broker.subscribe("user", "u")
    (late,) = there.delivered
    assert (late.target, late.name, late.type, late.code, late.only) == ("disconnect", "u", "banned", 4403, order.only)
    assert 0 <= late.age < 5
    await here.broker.publish(Publication("disconnect", "u"))
    await eventually(lambda: len(there.told) == 2)
    await here.broker.unsubscribe("user", "u")
    await here.broker.subscribe("user", "u")
    assert len(here.told) == 4


@pytest.mark.parametrize("name", ["*", ">", "a\r\nFLUSHALL\r\n", "x" * 5000, "", "é😀", "\ud800", "{a}", "room:*"])
async def test_names_mean_nothing(redis_server: RedisServer, opened: Open, name: str) -> None:
    """Whatever is in a name, what is published to it comes to those who subscribed to it, and to nobody else."""
    here, there = await opened(redis_server), await opened(redis_server)
    await there.broker.subscribe("room", "another")
    await there.broker.subscribe("room", name)
    await here.broker.publish(message(name, b"1"))
    await here.broker.publish(message("another", b"2"))
    await eventually(lambda: len(there.told) == 2)
    assert [(each.name, each.data) for each in there.delivered] == [(name, b"1"), ("another", b"2")]
    await here.broker.publish(message(name, b"3"), HISTORY)
    recovery = await there.broker.recover(name, HISTORY, None)
    assert recovery.offset == 1
