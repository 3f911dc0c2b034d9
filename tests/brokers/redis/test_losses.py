"""What a node says and does when Redis is lost, in every way, and comes back."""

import asyncio
import time

import pytest

from tests.brokers.redis.nodes import NodeOf, Open, message
from tests.brokers.redis.proxy import Proxy, serve_proxy
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.brokers.base import Publication
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.payloads import Payloads
from wsrouter.history import History, Position

TIMES = {"ttl": 5.0, "heartbeat": 0.2, "timeout": 0.5}
HISTORY = History(size=100, ttl=60)


async def fails(node: NodeOf, name: str = "room", data: bytes = b"0") -> BrokerError:
    """Publish what can't be published."""
    with pytest.raises(BrokerError) as failed:
        await node.broker.publish(message(name, data))
    return failed.value


async def test_a_hole_is_told_where_it_is(own_server: RedisServer, opened: Open) -> None:
    """After a restart every name is told as lost, once, before anything that was published after it."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    for number in range(2_000):
        await there.broker.subscribe("room", f"room-{number}")
    await there.broker.subscribe("user", "u")
    await here.broker.publish(message("room-0", b'"before"'))
    await eventually(lambda: there.data == [b'"before"'], 10)
    own_server.kill()
    await eventually(lambda: not here.up and not there.up, 10)
    link = there.broker.link()
    assert (link.state, link.gaps) == ("down", 0)
    own_server.start()
    await eventually(lambda: here.up, 10)
    while not there.up:
        await asyncio.gather(*(here.broker.publish(message(f"room-{number}", b'"after"')) for number in range(50)))
    await here.broker.publish(message("room-0", b'"last"'))
    await eventually(lambda: there.data[-1:] == [b'"last"'], 10)
    assert there.broker.link().gaps > 0
    lost = {name for names in there.losses for name in names}
    assert lost == {("user", "u"), *(("room", f"room-{number}") for number in range(2_000))}
    assert sum(map(len, there.losses)) == 2_001
    told = [each for each in there.told if not isinstance(each, Publication) or each.name == "room-0"]
    room_0_lost = next(
        index for index, each in enumerate(told) if isinstance(each, tuple) and ("room", "room-0") in each[1]
    )
    assert [each.data for each in told[:room_0_lost] if isinstance(each, Publication)] == [b'"before"']
    assert {each.data for each in told[room_0_lost:] if isinstance(each, Publication)} <= {b'"after"', b'"last"'}


async def test_what_could_not_be_published_is_told_as_a_hole(own_server: RedisServer, opened: Open) -> None:
    """Members here have it all the same; others are told as soon as Redis is back, of that room and no other."""
    async with serve_proxy(own_server.port) as proxy:
        here, there = await opened(proxy, **TIMES), await opened(own_server, **TIMES)
        for name in ("room", "calm"):
            for node in (here, there):
                await node.broker.subscribe("room", name)
        proxy.refuses = True
        proxy.cut()
        await eventually(lambda: not here.up, 10)
        failure = await fails(here, data=b"1")
        assert not failure.outcome_unknown
        assert here.data == [b"1"]
        assert there.told == []
        proxy.refuses = False
        await eventually(lambda: there.has_lost("room", "room"), 10)
        await here.broker.publish(message("room", b"2"))
        await eventually(lambda: there.data == [b"2"], 10)
        assert there.losses == [{("room", "room")}]


async def test_too_many_holes_are_one(own_server: RedisServer, opened: Open) -> None:
    """Beyond a thousand rooms all others are told of a hole in every room of theirs that has no history."""
    async with serve_proxy(own_server.port) as proxy:
        here, there = await opened(proxy, **TIMES), await opened(own_server, **TIMES)
        await there.broker.subscribe("room", "a")
        await there.broker.subscribe("user", "b")
        await there.broker.subscribe("room", "c", HISTORY)
        proxy.refuses = True
        proxy.cut()
        await eventually(lambda: not here.up, 10)
        for number in range(1_100):
            await fails(here, f"room-{number}")
        proxy.refuses = False
        await eventually(lambda: bool(there.losses), 10)
        assert there.losses == [{("room", "a"), ("user", "b")}]


async def test_a_hole_is_told_before_what_comes_after_it(own_server: RedisServer, opened: Open) -> None:
    """Where something is refused though Redis is there, as too much waits, what is published next comes after it."""
    async with serve_proxy(own_server.port) as proxy:
        here, there = await opened(proxy, ttl=60.0, heartbeat=20.0), await opened(own_server)
        await there.broker.subscribe("room", "room")
        await eventually(lambda: here.up, 10)
        proxy.passes.clear()
        large = [message("room", b'"%s"' % (b"x" * 500_000)) for _ in range(40)]
        outcomes = await asyncio.gather(*map(here.broker.publish, large), release(proxy), return_exceptions=True)
        assert any(isinstance(outcome, BrokerError) and not outcome.outcome_unknown for outcome in outcomes)
        await here.broker.publish(message("room", b'"after"'))
        await eventually(lambda: there.data[-1:] == [b'"after"'], 10)
        assert there.told[-2] == ("lost", {("room", "room")})


async def release(proxy: Proxy) -> None:
    """Let all go on its way when everything was handed over."""
    await asyncio.sleep(0)
    proxy.passes.set()


async def test_a_frozen_redis_is_noticed(own_server: RedisServer, opened: Open) -> None:
    """What is under way ends at its deadline, later calls end at once, and all is well soon after it goes on."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    for node in (here, there):
        await node.broker.subscribe("room", "room")
    own_server.freeze()
    begin = time.monotonic()
    failure = await fails(here, data=b"1")
    assert failure.outcome_unknown
    assert time.monotonic() - begin < 1.5
    begin = time.monotonic()
    for _ in range(100):
        assert not (await fails(here, data=b"2")).outcome_unknown
    assert time.monotonic() - begin < 0.5
    await eventually(lambda: not there.up, 10)
    for call in (
        here.broker.subscribe("room", "another"),
        here.broker.recover("room", HISTORY, None),
        here.broker.entries("room"),
        here.broker.acquire("name", "holder", 1, replace=False),
    ):
        begin = time.monotonic()
        with pytest.raises(BrokerError):
            await call
        assert time.monotonic() - begin < 1
    own_server.thaw()
    await eventually(lambda: here.up and there.up, 10)
    await eventually(lambda: there.has_lost("room", "room"), 10)
    await here.broker.publish(message("room", b"3"))
    await eventually(lambda: there.data[-1:] == [b"3"], 10)


async def test_a_network_that_swallows_everything_is_noticed(own_server: RedisServer, opened: Open) -> None:
    """On both connections, and what was lost is told when it is back."""
    async with serve_proxy(own_server.port) as proxy:
        here, there = await opened(own_server, **TIMES), await opened(proxy, **TIMES)
        await there.broker.subscribe("room", "room")
        proxy.swallows = True
        await here.broker.publish(message("room", b"1"))
        await eventually(lambda: not there.up, 10)
        proxy.swallows = False
        await eventually(lambda: there.has_lost("room", "room") and there.up, 10)
        await here.broker.publish(message("room", b"2"))
        await eventually(lambda: there.data == [b"2"], 10)


async def test_a_subscriber_that_redis_cuts_off_is_told(own_server: RedisServer, opened: Open) -> None:
    """Where the output buffer of a subscriber overflows, the hole comes between what was before and after."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    await there.broker.subscribe("room", "room")
    own_server.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 0 0")
    await here.broker.publish(message("room", b'"before"'))
    await here.broker.publish(message("room", b'"%b"' % (b"x" * 1_000_000)))
    await eventually(lambda: there.has_lost("room", "room") and there.up, 10)
    await here.broker.publish(message("room", b'"after"'))
    await eventually(lambda: there.data[-1:] == [b'"after"'], 10)
    assert there.told[1:2] == [("lost", {("room", "room")})]
    assert there.data == [b'"before"', b'"after"']


async def test_an_old_snapshot_is_another_epoch(own_server: RedisServer, opened: Open) -> None:
    """Who was ahead of what Redis remembers after a restart is not told that nothing was missed."""
    node = await opened(own_server, **TIMES)
    for number in range(100):
        await node.broker.publish(message("room", b"%d" % number), HISTORY)
        if number == 89:
            own_server.ask("SAVE")
    before = await node.broker.recover("room", HISTORY, None)
    assert before.offset == 100
    own_server.kill()
    await eventually(lambda: not node.up, 10)
    own_server.start()
    await eventually(lambda: node.up, 10)
    assert own_server.ask("KEYS", "*stream*")
    for number in range(20):
        await node.broker.publish(message("room", b"%d" % number), HISTORY)
    recovery = await node.broker.recover("room", HISTORY, Position(before.epoch, 100))
    assert (recovery.recovered, recovery.offset) == (False, 20)
    assert recovery.epoch != before.epoch


async def test_a_flush_is_another_epoch(own_server: RedisServer, opened: Open) -> None:
    """The same process of Redis begins a stream anew under another name."""
    node = await opened(own_server, **TIMES)
    await node.broker.subscribe("room", "room", HISTORY)
    await node.broker.publish(message("room", b"1"), HISTORY)
    before = await node.broker.recover("room", HISTORY, None)
    own_server.ask("FLUSHALL")
    await node.broker.publish(message("room", b"2"), HISTORY)
    recovery = await node.broker.recover("room", HISTORY, Position(before.epoch, 1))
    assert (recovery.recovered, recovery.offset) == (False, 1)
    assert [each.offset for each in node.delivered] == [1, 1]
    assert len({each.epoch for each in node.delivered}) == 2


async def test_an_order_that_was_missed_is_taken(own_server: RedisServer, opened: Open) -> None:
    """Who is disconnected while a node can't hear of it is disconnected there as soon as it can, and once."""
    async with serve_proxy(own_server.port) as proxy:
        here, there = await opened(own_server, **TIMES), await opened(proxy, **TIMES)
        await there.broker.subscribe("user", "u")
        await here.broker.publish(Publication("disconnect", "u", "first"))
        await eventually(lambda: len(there.delivered) == 1, 10)
        proxy.refuses = True
        proxy.cut()
        await eventually(lambda: not there.up, 10)
        await here.broker.publish(Publication("disconnect", "u", "second"))
        proxy.refuses = False
        await eventually(lambda: len(there.delivered) == 2, 10)
        assert [each.type for each in there.delivered] == ["first", "second"]
        assert there.delivered[1].age > 0


async def test_orders_that_redis_did_not_tell_are_asked_for_again(own_server: RedisServer, opened: Open) -> None:
    """Also where the connection stays on which it refused to."""
    node = await opened(own_server, **TIMES)
    await node.broker.subscribe("user", "ada")
    key = Names("wsrouter:", 0).key("orders", "ada")
    own_server.ask("SET", key, "text")
    own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await eventually(lambda: node.has_lost("user", "ada") and node.up, 5)
    own_server.ask("DEL", key)
    order = Payloads("other").disconnect(Publication("disconnect", "ada", "banned"), "id")
    own_server.ask("RPUSH", key, b"%d000 %b" % (own_server.ask("TIME")[0], order))
    await eventually(lambda: [each.type for each in node.delivered] == ["banned"], 5)
    assert len(node.losses) == 1


async def test_replacements_do_not_push_out_a_ban(own_server: RedisServer, opened: Open) -> None:
    """However many connections of a user were told to go one by one, who subscribes later hears that all have to."""
    here, there = await opened(own_server), await opened(own_server)
    await here.broker.publish(Publication("disconnect", "ada", "banned", code=4403))
    for number in range(40):
        await here.broker.publish(Publication("disconnect", "ada", "replaced", only=frozenset({str(number)})))
    await there.broker.subscribe("user", "ada")
    assert "banned" in [each.type for each in there.delivered]


async def test_scripts_that_redis_forgot_are_given_again(own_server: RedisServer, opened: Open) -> None:
    """In the order in which they were asked for, with what comes meanwhile after them."""
    node = await opened(own_server, **TIMES)
    await node.broker.publish(message("room", b"0"), HISTORY)
    start = (await node.broker.recover("room", HISTORY, None)).epoch
    for times in range(3):
        own_server.ask("SCRIPT", "FLUSH")
        publishing: list[asyncio.Task[None]] = []
        for number in range(30):
            publishing.append(asyncio.create_task(node.broker.publish(message("room", b"%d" % number), HISTORY)))
            if number % 10 == 9:
                await asyncio.sleep(0)
        await asyncio.gather(*publishing)
        recovery = await node.broker.recover("room", HISTORY, Position(start, 1 + 30 * times))
        assert [each.data for each in recovery.publications] == [b"%d" % number for number in range(30)]


async def test_a_loop_that_stood_still_takes_nobody_for_dead(own_server: RedisServer, opened: Open) -> None:
    """A process that was stopped for longer than every deadline reads what came meanwhile, and loses nothing."""
    here, there = await opened(own_server, **TIMES), await opened(own_server, **TIMES)
    for node in (here, there):
        await node.broker.subscribe("room", "room")
    for number in range(3):
        publishing = [asyncio.create_task(here.broker.publish(message("room", b"%d" % number))) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(1.2)  # noqa: ASYNC251 - it does stand still
        await asyncio.gather(*publishing)
    await eventually(lambda: len(there.data) == 9, 10)
    assert (here.losses, there.losses, here.up, there.up) == ([], [], True, True)


async def test_a_node_starts_without_redis(own_server: RedisServer, opened: Open) -> None:
    """It says that the link is down, fails at once, and is there soon after Redis."""
    own_server.kill()
    node = await opened(own_server, **TIMES)
    assert node.broker.link().state == "down"
    await fails(node)
    with pytest.raises(BrokerError):
        await node.broker.subscribe("room", "room")
    own_server.start()
    await eventually(lambda: node.up, 10)
    await node.broker.subscribe("room", "room")
    await node.broker.publish(message("room", b"1"))
    assert node.data == [b"1"]
    assert node.losses == []


async def test_who_waits_is_told_when_redis_answers_again(own_server: RedisServer, opened: Open) -> None:
    """It is said once that what failed can be tried again, and then it does not fail. Both connections come up
    together: neither waits for its next attempt when the other one had luck."""
    async with serve_proxy(own_server.port) as proxy:
        node = await opened(proxy, **TIMES)
        await node.broker.subscribe("room", "room", HISTORY)
        before = node.restorations
        proxy.refuses = True
        proxy.cut()
        await eventually(lambda: proxy.refused >= 12, 20)  # pauses between attempts are at their longest
        with pytest.raises(BrokerError):
            await node.broker.recover("room", HISTORY, None)
        assert node.restorations == before
        proxy.refuses = False
        await eventually(lambda: node.has_lost("room", "room"), 10)
        await eventually(lambda: node.restorations > before, 0.4)
        await node.broker.recover("room", HISTORY, None)
        assert node.restorations == before + 1


async def test_changes_of_the_link_are_logged_once(
    own_server: RedisServer, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it is lost, one when it is there again; nothing while it stays as it is."""
    caplog.set_level("INFO", "wsrouter")
    node = await opened(own_server, **TIMES)
    own_server.kill()
    await eventually(lambda: not node.up, 10)
    until = time.monotonic() + 1
    await eventually(lambda: time.monotonic() > until)
    own_server.start()
    await eventually(lambda: node.up, 10)
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "wsrouter"]
    assert [level for level, _ in lines] == ["WARNING", "INFO"]
    assert "is down" in lines[0][1]
    assert "is there again" in lines[1][1]


async def test_a_server_that_becomes_a_replica_is_left(own_server: RedisServer, opened: Open) -> None:
    """What it can't write is not taken for done, and when it is a master again its streams are others."""
    node = await opened(own_server, **TIMES)
    await node.broker.subscribe("room", "room", HISTORY)
    await node.broker.publish(message("room", b"1"), HISTORY)
    before = await node.broker.recover("room", HISTORY, None)
    own_server.ask("REPLICAOF", "127.0.0.1", 1)
    await eventually(lambda: not node.up, 10)
    await fails(node)
    own_server.ask("REPLICAOF", "NO", "ONE")
    await eventually(lambda: node.up and node.has_lost("room", "room"), 10)
    assert (await node.broker.recover("room", HISTORY, None)).epoch != before.epoch


async def test_a_redis_that_refuses_to_write_is_logged(
    own_server: RedisServer, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Publications without history go on; that the node is not known to live is said once."""
    node = await opened(own_server, **TIMES)
    await node.broker.subscribe("room", "room")
    own_server.ask("CONFIG", "SET", "maxmemory", 1)
    await eventually(lambda: "was not told that this process lives" in caplog.text, 10)
    await node.broker.publish(message("room", b"1"))
    with pytest.raises(BrokerError, match="maxmemory") as failed:
        await node.broker.publish(message("room", b"2"), HISTORY)
    assert not failed.value.outcome_unknown
    until = time.monotonic() + 0.6
    await eventually(lambda: time.monotonic() > until)
    assert caplog.text.count("was not told that this process lives") == 1
    assert node.up
    own_server.ask("CONFIG", "SET", "maxmemory", 0)
    await node.broker.publish(message("room", b"2"), HISTORY)


async def test_a_subscription_that_is_not_confirmed_fails_in_time(own_server: RedisServer, opened: Open) -> None:
    """And costs the connection: nobody knows what else does not come."""
    async with serve_proxy(own_server.port) as proxy:
        node = await opened(proxy, ttl=60.0, heartbeat=20.0, timeout=0.5)
        await node.broker.subscribe("room", "before")
        # The first heartbeats are through, and none comes for long.
        await eventually(lambda: (node.broker.link().heartbeat_age or 0) > 0.3, 10)
        proxy.swallows = True
        begin = time.monotonic()
        with pytest.raises(BrokerError):
            await node.broker.subscribe("room", "room")
        assert time.monotonic() - begin < 1.5
        assert not node.up
        proxy.swallows = False
        await eventually(lambda: node.up and node.has_lost("room", "before"), 10)
        await node.broker.subscribe("room", "room")
        await node.broker.publish(message("room", b"1"))
        assert node.data == [b"1"]


@pytest.mark.parametrize("late", [0.01, 0.1, 0.2])
async def test_what_was_answered_in_time_is_read_before_it_is_missed(
    own_server: RedisServer, opened: Open, late: float
) -> None:
    """Also where the loop stood still until just after the deadline: all that was asked has been answered."""
    timeout = 0.5
    node = await opened(own_server, timeout=timeout)
    asked = [
        asyncio.create_task(node.broker.subscribe("room", "room")),
        asyncio.create_task(node.broker.publish(message("kept", b"1"), HISTORY)),
    ]
    for _ in range(4):
        await asyncio.sleep(0)
    time.sleep(timeout + late)  # noqa: ASYNC251 - it does stand still
    await asyncio.gather(*asked)
    for number in range(100):  # the link is the one of before
        await node.broker.publish(message("room", b"%d" % number))
    await eventually(lambda: len(node.data) >= 100)
    assert node.losses == []


async def test_many_subscriptions_at_once_outlast_a_busy_loop(own_server: RedisServer, opened: Open) -> None:
    """A loop that comes to what Redis has confirmed after the deadline takes it for confirmed."""
    node = await opened(own_server, **TIMES)
    subscribing = [asyncio.create_task(node.broker.subscribe("room", f"room-{number}")) for number in range(500)]
    publishing = [asyncio.create_task(node.broker.publish(message("kept", b"1"), HISTORY)) for _ in range(50)]
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - it is busy
    await asyncio.gather(*subscribing, *publishing)
    assert node.losses == []
