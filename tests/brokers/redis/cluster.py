"""A Redis cluster of a test's own."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.ports import free_port
from tests.redis_server import RedisServer, executables, serve_redis

SLOTS = 16384
CLUSTERABLE = {name: path for name, path in executables().items() if float(name.rpartition("-")[2]) >= 7}
"""The servers that know sharded channels."""


class RedisCluster:
    """Servers, of which the first three have the slots."""

    def __init__(self, servers: Sequence[RedisServer], buses: Sequence[int]) -> None:
        self.servers = servers
        self._buses = {server.port: bus for server, bus in zip(servers, buses, strict=True)}

    def meet(self) -> None:
        """Make a cluster of the servers, and wait until all are content."""
        first = self.servers[0]
        masters = min(3, len(self.servers))
        bounds = [SLOTS * number // masters for number in range(masters + 1)]
        for server, begin, end in zip(self.servers, bounds, bounds[1:], strict=False):
            server.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        for number, server in enumerate(self.servers, 1):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number)
        for server in self.servers[1:]:
            first.ask("CLUSTER", "MEET", "127.0.0.1", server.port, self._buses[server.port])
        self.until(lambda: all(self._is_content(server) for server in self.servers))

    def replicate(self, replica: RedisServer, master: RedisServer) -> None:
        """Have a server without slots follow another, and wait until it has what that has."""
        id = master.ask("CLUSTER", "MYID")
        replica.ask("CLUSTER", "REPLICATE", id)
        self.until(lambda: replica.ask("INFO", "replication").get("master_link_status") == "up")

    def owner(self, slot: int) -> RedisServer:
        """Return the server that has a slot."""
        for begin, end, master, *_ in self.servers[0].ask("CLUSTER", "SLOTS"):
            if begin <= slot <= end:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def give(self, slot: int, to: RedisServer) -> None:
        """Move a slot that holds no key."""
        id = to.ask("CLUSTER", "MYID")
        for server in (to, *(each for each in self.servers if each is not to)):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", id)
        to.ask("CLUSTER", "BUMPEPOCH")
        self.until(lambda: all(self._owner_by(server, slot) == to.port for server in self.servers))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for servers, which gossip every 100 ms."""
        deadline = time.monotonic() + 20
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster did not come to terms")
            time.sleep(0.05)

    def _is_content(self, server: RedisServer) -> bool:
        facts = dict(line.split(":") for line in _text(server.ask("CLUSTER", "INFO")).split())
        known = len(_text(server.ask("CLUSTER", "NODES")).splitlines())
        return facts["cluster_state"] == "ok" and known == len(self.servers)

    def _owner_by(self, server: RedisServer, slot: int) -> int:
        return next(
            (int(master[1]) for begin, end, master, *_ in server.ask("CLUSTER", "SLOTS") if begin <= slot <= end), 0
        )


@contextmanager
def serve_cluster(command: str, count: int) -> Generator[RedisCluster]:
    """Run a cluster of some servers."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(count)]
        servers = [
            stack.enter_context(
                serve_redis(
                    command, "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"
                )
            )
            for bus in buses
        ]
        cluster = RedisCluster(servers, buses)
        cluster.meet()
        yield cluster


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
