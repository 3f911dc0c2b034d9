"""How a node gets to its Redis: addresses, users and rights, versions; and what is said if that fails."""

import asyncio
import re
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio import RedisCluster as Client

from tests.brokers.redis.cluster import RedisCluster
from tests.brokers.redis.nodes import NodeOf, Open, message
from tests.brokers.redis.proxy import serve_proxy
from tests.redis_server import RedisServer
from tests.support import eventually
from wsrouter import BrokerError, ConfigurationError
from wsrouter.brokers.base import Entry, Link, Publication
from wsrouter.brokers.redis import RedisBroker
from wsrouter.brokers.redis.lines import Unusable
from wsrouter.brokers.redis.publisher import check_server
from wsrouter.history import History


def documented_rights() -> list[str]:
    """Return what the documentation says that a user needs, in a cluster too."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "brokers.md").read_text("utf-8")
    block = re.search(r"ACL SETUSER app on >password (.*?)```\n\nIn a cluster also `(.*?)`", page, re.DOTALL)
    assert block is not None
    return f"{block[1]} {block[2]}".split()


RIGHTS = [right for right in documented_rights() if right not in {"+cluster|slots", "+spublish", "+ssubscribe"}]
RIGHTS.remove("+sunsubscribe")


def test_arguments_are_checked() -> None:
    """With what was expected, and without the address, which may have a password."""
    for arguments, expected in (
        ({}, "either an address"),
        ({"url": "redis://h", "client": Redis()}, "either an address"),
        ({"url": "127.0.0.1:6379"}, "redis://127"),
        ({"url": "http://user:s3cret@h"}, "redis://127"),
        ({"url": "redis://user:s3cret@h/0?retries=3"}, "retries"),
        ({"url": "redis://h", "prefix": ""}, "letters"),
        ({"url": "redis://h", "prefix": "a{b}:"}, "braces"),
        ({"url": "redis://h", "prefix": "a b"}, "blanks"),
        ({"url": "redis://h", "timeout": 0}, "above zero"),
        ({"url": "redis://h", "heartbeat": float("nan")}, "above zero"),
        ({"url": "redis://h", "ttl": 5.0}, "three heartbeats"),
        ({"client": BlockingRedis()}, "redis.asyncio"),
    ):
        with pytest.raises(ConfigurationError, match=expected) as failed:
            RedisBroker(**arguments)  # pyright: ignore[reportArgumentType]
        assert "s3cret" not in str(failed.value)


async def test_a_broker_serves_one_receiver(redis_server: RedisServer, opened: Open) -> None:
    """A second hub is refused, and so is what is no id of a node; before and after it serves one all fails."""
    node = await opened(redis_server)
    with pytest.raises(ConfigurationError, match="of its own"):
        await node.broker.start("another", node)
    broker = RedisBroker(redis_server.url)
    with pytest.raises(ConfigurationError, match="at most 32"):
        await broker.start("no id", node)
    with pytest.raises(BrokerError, match="not started"):
        await broker.publish(message("room", b"1"))
    await broker.unsubscribe("room", "room")
    await broker.release("name", "holder")
    assert broker.link() == Link("down")
    await broker.aclose()
    await node.broker.aclose()
    await node.broker.start("again", node)
    await node.broker.subscribe("room", "room")
    await node.broker.publish(message("room", b"1"))
    assert node.data == [b"1"]


async def test_a_start_that_is_given_up_leaves_nothing(redis_server: RedisServer, opened: Open) -> None:
    """Whoever waits no longer for a Redis that does not answer can start the broker again."""
    async with serve_proxy(redis_server.port) as proxy:
        broker = RedisBroker(proxy.url)
        proxy.passes.clear()
        node = NodeOf(broker, "given-up")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await broker.start(node.id, node)
        await no_task_left_of("wsrouter redis")
        proxy.passes.set()
        await broker.start("again", node)
        await broker.subscribe("room", "room")
        await broker.publish(message("room", b"1"))
        assert node.data == [b"1"]
        await broker.aclose()


async def no_task_left_of(name: str) -> None:
    """Wait until no task has a name that begins so."""
    await eventually(lambda: not any(task.get_name().startswith(name) for task in asyncio.all_tasks()))


async def test_a_client_lends_its_options(redis_server: RedisServer, opened: Open) -> None:
    """Whatever it was made for: our connections are our own, and the client's pool stays as it was."""
    client = Redis(port=redis_server.port, decode_responses=True, socket_timeout=0.1, protocol=3)
    nodes = [await opened(redis_server)]
    node = NodeOf(RedisBroker(client=client), "lent")
    await node.broker.start(node.id, node)
    nodes.append(node)
    for each in nodes:
        await each.broker.subscribe("room", "room")
    clock = asyncio.get_running_loop().time
    until = clock() + 0.3  # longer than the client's own timeout
    await eventually(lambda: clock() > until)
    for each in nodes:
        await each.broker.publish(message("room", b"1"))
    await eventually(lambda: all(each.data == [b"1", b"1"] for each in nodes))
    assert node.losses == []
    await node.broker.aclose()
    await client.aclose()


async def test_databases_are_apart(redis_server: RedisServer, opened: Open) -> None:
    """Channels of Redis belong to no database; ours do."""
    node = await opened(redis_server)
    other = NodeOf(RedisBroker(redis_server.url.replace("/0", "/1")), "other")
    await other.broker.start(other.id, other)
    for each in (node, other):
        await each.broker.subscribe("room", "room")
        await each.broker.publish(message("room", b"1"))
    await node.broker.publish(message("room", b"2"))
    assert other.data == [b"1"]
    await other.broker.aclose()


async def test_the_rights_that_are_documented_are_enough(own_server: RedisServer) -> None:
    """A user with no others can do everything."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">s3cret", "resetkeys", "resetchannels", *RIGHTS)
    await do_everything(RedisBroker(own_server.url.replace("redis://", "redis://app:s3cret@"), heartbeat=0.1, ttl=0.5))


async def test_the_rights_that_are_documented_are_enough_in_a_cluster(one_cluster: RedisCluster) -> None:
    """With those that are named beside."""
    server = one_cluster.servers[0]
    server.ask("ACL", "SETUSER", "app", "on", ">s3cret", "resetkeys", "resetchannels", *documented_rights())
    client = Client(host="127.0.0.1", port=server.port, username="app", password="s3cret")
    await do_everything(RedisBroker(client=client, heartbeat=0.1, ttl=0.5))


async def do_everything(broker: RedisBroker) -> None:
    """Do all that a broker does, and let it be for longer than all of its times."""
    node = NodeOf(broker, "everything")
    await broker.start(node.id, node)
    history = History(size=2, ttl=0.2)
    for number in range(40):
        await broker.publish(message("room", b"%d" % number), history)
    await broker.subscribe("room", "room", history)
    await broker.recover("room", history, None)
    await broker.publish(message("other", b"1"))
    await broker.publish(Publication("disconnect", "u"))
    await broker.subscribe("user", "u")
    await broker.announce("room", [Entry("r", node.id, "u"), Entry("s", node.id, "u", dropped=True)])
    await broker.entries("room")
    await broker.withdraw("room", ["r"])
    for holder in ("1", "2", "3"):
        await broker.acquire("name", holder, 2, replace=True)
    await broker.release("name", "3")
    await broker.unsubscribe("user", "u")
    clock = asyncio.get_running_loop().time
    until = clock() + 1.2
    await eventually(lambda: clock() > until)
    assert broker.link().heartbeat_age is not None
    assert node.up
    assert node.losses == []
    await broker.aclose()


@pytest.mark.logs_errors
@pytest.mark.parametrize("fault", ["password", "channels", "commands"])
async def test_who_may_not_is_told_what_to_do(
    own_server: RedisServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is an error in the log, said once, with the cure and no password; the link is down until then."""
    caplog.set_level("INFO", "wsrouter")
    rights = {
        "password": RIGHTS,
        "channels": [right for right in RIGHTS if not right.startswith("&")],
        "commands": [right for right in RIGHTS if right != "+info"],
    }[fault]
    own_server.ask("ACL", "SETUSER", "app", "on", ">s3cret", "resetkeys", "resetchannels", *rights)
    password = "wr0ng" if fault == "password" else "s3cret"
    node = NodeOf(RedisBroker(own_server.url.replace("redis://", f"redis://app:{password}@"), timeout=0.5), "app")
    await node.broker.start(node.id, node)
    assert not node.up
    clock = asyncio.get_running_loop().time
    until = clock() + 0.5
    await eventually(lambda: clock() > until)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert 1 <= len(errors) <= 2  # one for each connection
    assert len(set(errors)) == 1
    assert ("user and password" if fault == "password" else "lacks a right") in errors[0]
    assert "wr0ng" not in caplog.text
    assert "s3cret" not in caplog.text
    own_server.ask("ACL", "SETUSER", "app", ">wr0ng", *RIGHTS)
    await eventually(lambda: node.up, 5)
    await node.broker.aclose()


@pytest.mark.parametrize(
    ("facts", "sharded", "said"),
    [
        ({"redis_version": "6.0.16"}, False, "6.2 or newer"),
        ({}, False, "6.2 or newer"),
        ({"redis_version": "6.2.14", "redis_mode": "cluster"}, True, "7.0 or newer"),
        ({"redis_version": "7.0.0", "redis_mode": "cluster"}, False, "RedisCluster"),
        ({"redis_version": "7.0.0", "redis_mode": "standalone"}, True, "no cluster"),
        ({"redis_version": "7.0.0"}, False, "run_id"),
    ],
)
def test_a_server_that_can_not_serve_says_why(facts: dict[str, str], sharded: bool, said: str) -> None:
    """With what to install, or to write instead."""
    with pytest.raises(Unusable, match=said):
        check_server(facts, sharded=sharded)


def test_servers_that_can_serve_are_taken() -> None:
    """Versions are compared as numbers."""
    for version, mode, sharded in (
        ("6.2.0", "standalone", False),
        ("10.0", "sentinel", False),
        ("7.0", "cluster", True),
    ):
        check_server({"redis_version": version, "redis_mode": mode, "run_id": "1"}, sharded=sharded)
