"""Commands to Redis, which go out together where they come together: one connection, in order, each once."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import AskError, ClusterDownError, NoScriptError, ReadOnlyError, ResponseError

from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import Connection, Connector, ask, info, pack
from wsrouter.brokers.redis.lines import Line, Unasked, Unusable
from wsrouter.brokers.redis.scripts import Script
from wsrouter.errors import BrokerError

_MOST_TOGETHER: Final = 256
"""Commands that go out together."""

_MOST_WAITING: Final = 16 * 1024 * 1024
"""Bytes of commands that wait to go out; who comes then is refused."""


class _Command:
    __slots__ = ("again", "deadline", "packed", "reply")

    def __init__(self, packed: bytes, deadline: float, reply: "asyncio.Future[Any] | None") -> None:
        self.packed = packed
        self.deadline = deadline
        self.reply = reply
        """Who waits; nobody for one of our own."""
        self.again = False
        """Whether the server did not know its script, and was given it."""


class Publisher(Line):
    """Sends commands and returns their replies.

    What is asked for while commands are under way goes out when these were answered, together. While it is down
    commands fail at once.

    Args:
        connector: opens connections.
        timeout: seconds for one command.
        changed: called when it is up, and when it is down.
        silent: called when a command was not answered in time, with the reason.
        misplaced: called when a key is not on this server.
        scripts: the scripts that are used.
        sharded: whether a cluster is expected.
    """

    def __init__(
        self,
        connector: Connector,
        timeout: float,
        changed: Callable[[], None],
        silent: Callable[[str], None],
        misplaced: Callable[[], None],
        scripts: Sequence[Script],
        *,
        sharded: bool = False,
    ) -> None:
        super().__init__("publisher", connector, timeout, changed)
        self._silent = silent
        self._misplaced = misplaced
        self._loads = [pack("SCRIPT", "LOAD", script.source) for script in scripts]
        self._sharded = sharded
        self._waiting: deque[_Command] = deque()
        self._waiting_bytes = 0
        self._under_way: deque[_Command] = deque()
        self._again: deque[_Command] = deque()
        self._alarm: Alarm | None = None

    async def call(self, packed: bytes) -> Any:
        """Return the reply to a command.

        Raises:
            BrokerError: Redis is down, did not answer in time, or refused.
        """
        return await self.send(packed)

    def send(self, packed: bytes) -> "asyncio.Future[Any]":
        """Have a command go out, after all that were given before; the future gets its reply, or a `BrokerError`.

        It goes out though the future is cancelled.
        """
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        if not self.up:
            reply.set_exception(BrokerError(f"Redis at {self._connector.address} is down: {self.reason}"))
        elif self._waiting_bytes > _MOST_WAITING:
            reply.set_exception(BrokerError(f"Redis at {self._connector.address} is too slow: too much waits"))
        else:
            self._waiting.append(_Command(packed, loop.time() + self._timeout, reply))
            self._waiting_bytes += len(packed)
            if not self._under_way:
                self._write_more()
            if self._alarm is None:
                self._alarm = Alarm(self._timeout, self._look_at_the_clock)
        return reply

    async def _greet(self, connection: Connection) -> None:
        server, replication = await ask(connection, pack("INFO", "server"), pack("INFO", "replication"))
        facts = info(server) | info(replication)
        if facts.get("role") != "master":
            raise ReadOnlyError("it is a replica")
        check_server(facts, sharded=self._sharded)
        await ask(connection, *self._loads)
        self.run = run_of(facts)

    def _opened(self) -> None:
        self._came_up()

    def _outgoing(self) -> bytes:
        waiting, under_way = self._waiting, self._under_way
        if under_way:
            return b""
        if self._again:
            deadline = self._again[0].deadline
            under_way.extend(_Command(load, deadline, None) for load in self._loads)
            under_way.extend(self._again)
            self._again.clear()
        while waiting and len(under_way) < _MOST_TOGETHER:
            under_way.append(waiting.popleft())
            self._waiting_bytes -= len(under_way[-1].packed)
        return b"".join([command.packed for command in under_way])

    def _take(self, reply: Any) -> None:
        if not self._under_way:
            raise Unasked(f"it answered without being asked: {reply!r:.100}")
        command = self._under_way.popleft()
        if isinstance(reply, NoScriptError) and not command.again:
            command.again = True
            self._again.append(command)  # it did nothing, and comes before all that was not sent yet
        elif command.reply is not None and not command.reply.done():
            if isinstance(reply, ResponseError):
                command.reply.set_exception(BrokerError(f"Redis refused: {reply}"))
            else:
                command.reply.set_result(reply)
        if is_misplaced(reply):
            self._misplaced()
        if is_of_replica(reply):
            self.break_off("it is no master any more")
        if not self._under_way and (self._waiting or self._again):
            self._write_more()

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        oldest = self._under_way or self._waiting
        if not oldest:
            return
        left = oldest[0].deadline - asyncio.get_running_loop().time()
        if left > 0:
            self._alarm = Alarm(left, self._look_at_the_clock)
        else:
            self._silent(f"no answer within {self._timeout:g} s")

    def _lost(self) -> None:
        under_way, waiting = [*self._under_way], [*self._again, *self._waiting]
        for each in (self._under_way, self._again, self._waiting):
            each.clear()
        self._waiting_bytes = 0
        for commands, unknown in ((under_way, True), (waiting, False)):
            for command in commands:
                if command.reply is not None and not command.reply.done():
                    command.reply.set_exception(
                        BrokerError(f"Redis at {self._connector.address}: {self.reason}", outcome_unknown=unknown)
                    )

    async def aclose(self) -> None:
        await super().aclose()
        self.up, self.reason = False, "it is closed"
        self._lost()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def check_server(facts: dict[str, str], *, sharded: bool) -> None:
    """Check that a server can do what is needed.

    Raises:
        Unusable: it can't.
    """
    version = facts.get("redis_version", "0")
    numbers = tuple(int(each) if each.isdigit() else 0 for each in version.split(".")[:2])
    cluster = facts.get("redis_mode") == "cluster"
    if numbers < (6, 2):
        raise Unusable(f"it is Redis {version}; install 6.2 or newer")
    if sharded and numbers < (7, 0):
        raise Unusable(f"it is Redis {version}; a cluster needs 7.0 or newer")
    if cluster and not sharded:
        raise Unusable("it is a cluster; write RedisBroker(client=RedisCluster(...))")
    if sharded and not cluster:
        raise Unusable("it is no cluster; write RedisBroker(url), or RedisBroker(client=Redis(...))")
    if not facts.get("run_id"):
        raise Unusable("it tells no run_id, by which a restart is known; connect to Redis itself, without a proxy")


def is_misplaced(reply: object) -> bool:
    """Whether a reply says that another server of the cluster is to be asked."""
    return isinstance(reply, AskError | ClusterDownError)  # MOVED is an AskError


def is_of_replica(reply: object) -> bool:
    """Whether a reply says that nothing can be written, which to Redis 6 is an error like any if a script met it."""
    return isinstance(reply, ReadOnlyError) or (isinstance(reply, ResponseError) and "READONLY" in str(reply))


def run_of(facts: dict[str, str]) -> str:
    """Return what the server's process, and its time as a master, is known by: 32 hexadecimal digits."""
    return facts.get("run_id", "")[:16] + facts.get("master_replid", "")[:16]
