"""What others write into Redis: dropped with a log line, whatever it is, and nothing breaks."""

from typing import Any

import pytest

from tests.brokers.redis.nodes import NodeOf, Open, message
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.brokers.base import Publication
from wsrouter.brokers.redis.names import Names
from wsrouter.history import History, Position

HISTORY = History(size=100, ttl=60)
NAMES = Names("wsrouter:", 0)

FORGED = [
    b"",
    b"\n",
    b"\x00\xff\xfe",
    b"nonsense",
    b"null\n",
    b"[]\n",
    b"{}\n{}",
    b"[" * 100_000,
    b'{"v":1}\n{}',
    b'{"v":2,"n":"n","k":"message","t":"t"}\n{}',  # of a version to come
    b'{"v":0,"n":"n","k":"message","t":"t"}\n{}',
    b'{"v":1,"n":"n","k":"message","t":"t"}',  # without an end of line
    b'{"v":1,"n":"n","k":"message","t":"t","more":1}\n{}',
    b'{"v":1,"n":"n","k":"message"}\n{}',
    b'{"v":1,"n":"n n","k":"message","t":"t"}\n{}',
    b'{"v":1,"n":"' + b"n" * 33 + b'","k":"message","t":"t"}\n{}',
    b'{"v":1,"n":"n","k":"message","t":1}\n{}',
    b'{"v":1,"n":"n","k":"message","t":"t","x":"c"}\n{}',
    b'{"v":1,"n":"n","k":"message","t":"t"}\nno JSON',
    b'{"v":1,"n":"n","k":"message","t":"t"}\nNaN',
    b'{"v":1,"n":"n","k":"message","t":"t"}\n{"a":1}{"b":2}',
    b'{"v":1,"n":"n","k":"message","t":"t"}\n' + b"[" * 100_000,
    b'{"v":1,"n":"n","k":"message","t":"t","f":"text"}\n\xff',
    b'{"v":1,"n":"n","k":"message","t":"t","f":"other"}\n{}',
    b'{"v":1,"n":"n","k":"message","t":"t","o":0,"e":"e"}\n{}',
    b'{"v":1,"n":"n","k":"message","t":"t","o":"1","e":"e"}\n{}',
    b'{"v":1,"n":"n","k":"disconnect","t":"t"}\n',
    b'{"v":1,"n":"n","k":"disconnect","id":"i","t":"t","c":"4403"}\n',
    b'{"v":1,"n":"n","k":"beat","o":1}\n',
    b'{"v":1,"n":"n","k":"unknown"}\n',
    b'{"v":1,"n":"n","k":"present"}\n{}',
    b'{"v":1,"n":"n","k":"present"}\n[{"ref":"r"}]',
    b'{"v":1,"n":"n","k":"present"}\n[{"ref":"r","user":"u","meta":"[]","dropped":false}]',
    b'{"v":1,"n":"n","k":"gone"}\n[1]',
]


@pytest.mark.parametrize("target", ["room", "user", "node", "history"])
async def test_a_payload_of_unknown_shape_is_dropped(
    redis_server: RedisServer, opened: Open, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one line in the log, and what is published next comes as always."""
    here, there = await opened(redis_server), await opened(redis_server)
    history = HISTORY if target == "history" else None
    await there.broker.subscribe("user" if target == "user" else "room", "forged", history)
    await there.broker.subscribe("room", "fence")
    if target == "node":
        channels = [NAMES.everyone, NAMES.node(there.id)]
    else:
        channels = [NAMES.channel("user" if target == "user" else "room", "forged")]
    for payload in FORGED:
        for channel in channels:
            assert redis_server.ask("PUBLISH", channel, payload) > 0
    await here.broker.publish(message("fence", b"1"))
    await eventually(lambda: bool(there.told))
    assert there.data == [b"1"]
    lines = [record for record in caplog.records if "Dropped" in record.getMessage()]
    assert {record.levelname for record in lines} == {"WARNING"}
    assert len(lines) == (2 if target == "node" else 1)  # one for each node that heard it
    assert there.up


@pytest.mark.parametrize("payload", [b"nonsense", b"x {}", b"1 {}", b'1 {"v":1,"n":"n","k":"hole"}\n'])
async def test_what_is_forged_in_a_stream_is_not_recovered(
    redis_server: RedisServer, opened: Open, payload: bytes
) -> None:
    """A room whose history holds something that is no publication recovers nobody over it."""
    node = await opened(redis_server, prefix=f"{id(payload)}:")
    names = Names(f"{id(payload)}:", 0)
    await node.broker.publish(message("room", b"1"), HISTORY)
    await node.broker.publish(message("room", b"2"), HISTORY)
    epoch = (await node.broker.recover("room", HISTORY, None)).epoch
    now = redis_server.ask("TIME")[0]
    redis_server.ask("LSET", names.key("kept", "room"), -1, payload.replace(b"1 ", b"%d000 " % now))
    assert not (await node.broker.recover("room", HISTORY, Position(epoch, 1))).recovered
    assert (await node.broker.recover("room", HISTORY, Position(epoch, 2))).recovered
    await node.broker.publish(message("room", b"3"), HISTORY)
    recovery = await node.broker.recover("room", HISTORY, Position(epoch, 2))
    assert [each.data for each in recovery.publications] == [b"3"]


async def test_what_is_forged_where_a_stream_is_oldest_is_forgotten(redis_server: RedisServer, opened: Open) -> None:
    """It is older than all that is kept, and stops neither who publishes nor who recovers."""
    node = await opened(redis_server, prefix="oldest:")
    await node.broker.publish(message("room", b"1"), HISTORY)
    epoch = (await node.broker.recover("room", HISTORY, None)).epoch
    redis_server.ask("LPUSH", Names("oldest:", 0).key("kept", "room"), "no time at all")
    for number in range(2, 20):
        await node.broker.publish(message("room", b"%d" % number), HISTORY)
    recovery = await node.broker.recover("room", HISTORY, Position(epoch, 0))
    assert [each.data for each in recovery.publications] == [b"%d" % number for number in range(1, 20)]


@pytest.mark.parametrize("place", ["text", "{run}-x", "{run}-x 1", "{run}-x a b", "{run}-x -1 -1"])
async def test_a_place_that_is_none_begins_a_stream_anew(redis_server: RedisServer, opened: Open, place: str) -> None:
    """Whatever stands where Redis keeps epoch and offset."""
    node = await opened(redis_server, prefix="place:")
    names = Names("place:", 0)
    await node.broker.publish(message("room", b"1"), HISTORY)
    before = await node.broker.recover("room", HISTORY, None)
    redis_server.ask("SET", names.stream("room")[0], place.format(run=before.epoch.partition("-")[0]))
    await node.broker.publish(message("room", b"2"), HISTORY)
    recovery = await node.broker.recover("room", HISTORY, Position(before.epoch, 1))
    assert (recovery.recovered, recovery.offset) == (False, 1)
    assert recovery.epoch != before.epoch


async def test_a_node_that_is_none_breaks_nothing(redis_server: RedisServer, opened: Open) -> None:
    """Whatever stands in the list of nodes, those that are in it beat, and others start."""
    key = Names("nodes:", 0).nodes
    here = await opened(redis_server, prefix="nodes:", heartbeat=0.1)
    redis_server.ask("ZADD", key, "+inf", b"\xff\x00 \n")
    there = await opened(redis_server, prefix="nodes:", heartbeat=0.1)
    for node in (here, there):
        assert await node.broker.entries("room") == []
        noted = redis_server.ask("ZSCORE", key, node.id)

        def beats(node: NodeOf = node, noted: float = noted) -> bool:
            return bool(redis_server.ask("ZSCORE", key, node.id) > noted)

        await eventually(beats)


@pytest.mark.parametrize("kind", ["stream", "kept", "orders", "entries", "slots"])
async def test_a_key_of_another_type_is_a_broker_error(redis_server: RedisServer, opened: Open, kind: str) -> None:
    """What can't be done because of what somebody put there fails, and nothing else does."""
    prefix = f"typed-{kind}:"
    node = await opened(redis_server, prefix=prefix)
    redis_server.ask("LPUSH" if kind == "stream" else "SET", Names(prefix, 0).key(kind, "name"), "text")
    calls: dict[str, Any] = {
        "stream": lambda: node.broker.publish(message("name", b"1"), HISTORY),
        "kept": lambda: node.broker.publish(message("name", b"1"), HISTORY),
        "orders": lambda: node.broker.publish(Publication("disconnect", "name")),
        "entries": lambda: node.broker.entries("name"),
        "slots": lambda: node.broker.acquire("name", "holder", 1, replace=False),
    }
    if kind == "kept":  # a stream that is begun anew takes its place
        await calls[kind]()
        redis_server.ask("DEL", Names(prefix, 0).key(kind, "name"))
        redis_server.ask("SET", Names(prefix, 0).key(kind, "name"), "text")
    with pytest.raises(BrokerError) as failed:
        await calls[kind]()
    assert not failed.value.outcome_unknown
    assert "WRONGTYPE" in str(failed.value) or "wrong kind" in str(failed.value)
    await node.broker.subscribe("room", "another")
    await node.broker.publish(message("another", b"1"))
    assert node.up
