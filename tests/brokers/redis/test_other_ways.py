"""Other ways to a Redis: through Sentinel, over TLS, by a Unix socket, and without hiredis."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from tests.brokers.redis.nodes import NodeOf, message
from tests.certificate import make_certificate
from tests.ports import free_port
from tests.redis_server import RedisServer, executables, serve_redis
from tests.support import eventually
from wsrouter.brokers.redis import RedisBroker
from wsrouter.history import History

HISTORY = History(size=100, ttl=60)
each_server = pytest.mark.parametrize("command", executables().values(), ids=list(executables()))


@asynccontextmanager
async def node_by(client: Redis) -> AsyncGenerator[NodeOf]:
    node = NodeOf(RedisBroker(client=client, heartbeat=0.2, timeout=1, ttl=5), "node")
    await node.broker.start(node.id, node)
    try:
        yield node
    finally:
        await node.broker.aclose()


async def check(node: NodeOf) -> None:
    """Check that publications come."""
    await eventually(lambda: node.up, 10)
    for name, history in (("plain", None), ("kept", HISTORY)):
        await node.broker.subscribe("room", name, history)
        await node.broker.publish(message(name, b"1"), history)
    assert node.data == [b"1", b"1"]
    await eventually(lambda: node.broker.link().heartbeat_age is not None, 10)


@each_server
async def test_over_a_unix_socket(command: str, tmp_path: Path) -> None:
    """As with any client of redis-py."""
    path = str(tmp_path / "s")
    with serve_redis(command, "--unixsocket", path):
        async with node_by(Redis(unix_socket_path=path)) as node:
            await check(node)


@each_server
async def test_over_tls(command: str, tmp_path: Path) -> None:
    """The client's options say whom to trust."""
    certificate = make_certificate(tmp_path)
    options = ["--tls-port", str(free_port()), "--tls-auth-clients", "no", "--tls-cert-file", str(certificate.file)]
    options += ["--tls-key-file", str(certificate.key_file), "--tls-ca-cert-file", str(certificate.file)]
    if not knows_tls(command):
        pytest.skip("this redis-server was built without TLS")
    with serve_redis(command, *options):
        client = Redis(host="127.0.0.1", port=int(options[1]), ssl=True, ssl_ca_certs=str(certificate.file))
        async with node_by(client) as node:
            await check(node)


@each_server
async def test_through_sentinel(command: str, tmp_path: Path) -> None:
    """When the master is lost the node goes to the one that Sentinel names, says what may be lost, and goes on."""
    with serve_redis(command) as master, serve_redis(command) as replica:
        replica.ask("REPLICAOF", "127.0.0.1", master.port)
        await eventually(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up", 10)
        with sentinel_of(command, master, tmp_path) as port:
            sentinel = cast(Any, Sentinel)([("127.0.0.1", port)])  # redis-py leaves it untyped
            await eventually(lambda: knows_replica(port), 20)
            async with node_by(sentinel.master_for("main")) as node:
                await check(node)
                before = await node.broker.recover("kept", HISTORY, None)
                master.kill()
                await eventually(lambda: node.up and node.has_lost("room", "kept"), 30)
                assert (await node.broker.recover("kept", HISTORY, None)).epoch != before.epoch
                await node.broker.publish(message("kept", b"2"), HISTORY)
                assert node.data[-1] == b"2"
                assert replica.ask("ROLE")[0] == b"master"
            for each in sentinel.sentinels:
                await each.aclose()


@each_server
def test_without_hiredis(command: str) -> None:
    """Where it is not installed redis-py reads by itself."""
    with serve_redis(command) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, server.url], capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.stdout, done.stderr) == ("500 500\n", "")


PROGRAM = """
import asyncio, sys
sys.modules["hiredis"] = None
from tests.brokers.redis.nodes import message, open_node
from tests.support import eventually
from wsrouter.history import History, Position

async def main():
    async with open_node(sys.argv[1]) as here, open_node(sys.argv[1]) as there:
        await there.broker.subscribe("room", "plain")
        await asyncio.gather(*(here.broker.publish(message("plain", b"%d" % n)) for n in range(500)))
        await eventually(lambda: len(there.data) == 500, 10)
        history = History()
        await there.broker.subscribe("room", "kept", history)
        await asyncio.gather(*(here.broker.publish(message("kept", b"%d" % n), history) for n in range(500)))
        epoch = (await there.broker.recover("kept", history, None)).epoch
        recovery = await there.broker.recover("kept", history, Position(epoch, 450))
        assert len(recovery.publications) == 50
        await eventually(lambda: len(there.data) == 1000, 10)
        print(len(set(there.data[:500])), len(set(there.data[500:])))

asyncio.run(main())
"""


@contextmanager
def sentinel_of(command: str, master: RedisServer, folder: Path) -> Generator[int]:
    """Run a Sentinel that watches a master, and give its port."""
    port = free_port()
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {folder}",
        f"sentinel monitor main 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
    ]
    configuration = folder / "sentinel.conf"
    configuration.write_text("\n".join(lines))
    with subprocess.Popen([command, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


def knows_replica(port: int) -> bool:
    """Whether a Sentinel has found the replica that is to take over."""
    with suppress(redis.ConnectionError), redis.Redis(port=port) as client:
        return len(cast(Any, client).execute_command("SENTINEL", "REPLICAS", "main")) == 1
    return False


def knows_tls(command: str) -> bool:
    """Whether a server was built with TLS. With no port at all it ends at once."""
    tried = subprocess.run([command, "--port", "0", "--tls-port", "0"], capture_output=True, text=True, check=False)
    return "Bad directive" not in tried.stdout + tried.stderr
