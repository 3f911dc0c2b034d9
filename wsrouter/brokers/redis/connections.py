"""Connections to Redis as redis-py opens them, each with one owner, and what is written to them."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, Protocol, TypeAlias, cast

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from wsrouter.errors import ConfigurationError

Part: TypeAlias = bytes | str | int
"""What a command is made of."""


class Connection(Protocol):
    """What is used of a connection of redis-py."""

    async def connect(self) -> None:
        """Connect and sign in."""

    async def disconnect(self, nowait: bool = False) -> None:
        """Close it."""

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:
        """Write commands."""

    async def read_response(self, *, timeout: float | None = None, disconnect_on_error: bool = True) -> Any:
        """Return the next reply."""


class Connector:
    """Opens connections, with the options that the user gave and those that we need.

    Args:
        connection_class: class of redis-py: over TCP, TLS, a Unix socket, by Sentinel.
        options: what its constructor takes.
        timeout: seconds for opening one.
        owner: whose options they are, and what they may refer to.

    Raises:
        ConfigurationError: redis-py does not take the options.
    """

    def __init__(self, connection_class: Any, options: Mapping[str, Any], timeout: float, owner: object = None) -> None:
        self._owner = owner
        # Notices of maintenance come by RESP3, and what handles them belongs to the user's pool.
        ours = {
            name: value
            for name, value in options.items()
            if not name.startswith(("maint", "orig_", "oss_cluster_")) and name != "parser_class"
        }
        self._class = connection_class
        self._options: dict[str, Any] = {
            **ours,
            "protocol": 2,
            "decode_responses": False,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
        }
        try:
            self.new()  # else nobody learns before the first attempt what is wrong with the options
        except (TypeError, ValueError, RedisError) as exc:
            raise ConfigurationError(f"The options for Redis: redis-py does not take them: {exc}") from None

    @classmethod
    def of_url(cls, url: str, timeout: float) -> "Connector":
        """Return what connects to an address.

        Raises:
            ConfigurationError: it is none that redis-py takes.
        """
        try:
            # redis-py leaves the options of a pool, and what it holds, untyped.
            pool = cast(Any, ConnectionPool).from_url(url)
        except ValueError:
            raise ConfigurationError("The address of Redis: expected one such as 'redis://127.0.0.1:6379/0'") from None
        return cls(pool.connection_class, pool.connection_kwargs, timeout, pool)

    @classmethod
    def of_client(cls, client: Redis, timeout: float) -> "Connector":
        """Return what connects as a client does, which itself is not used."""
        pool = cast(Any, client).connection_pool
        return cls(pool.connection_class, pool.connection_kwargs, timeout, pool)

    def new(self) -> Connection:
        """Return a connection that is to be opened."""
        connection: Connection = self._class(**self._options)
        return connection

    @property
    def database(self) -> int:
        """Number of the database."""
        return int(self._options.get("db") or 0)

    @property
    def address(self) -> str:
        """Where it connects to, for the log."""
        options = self._options
        if "path" in options:
            return str(options["path"])
        pool = options.get("connection_pool")
        if pool is not None:
            return f"the master {pool.service_name!r}"
        return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


class ClusterConnectors:
    """Opens connections to the servers of a cluster.

    Args:
        client: whose options are used; it itself is not.
        timeout: seconds for opening one.
    """

    database = 0

    def __init__(self, client: RedisCluster, timeout: float) -> None:
        opened = cast(Any, client)  # redis-py leaves its options untyped
        seeds = opened.startup_nodes
        self._class = seeds[0].connection_class
        # The client's own way to connect would have us read from replicas.
        self._options = {**seeds[0].connection_kwargs, "redis_connect_func": None}
        self._timeout = timeout
        self._remap: Callable[[str, int], tuple[str, int]] = opened.nodes_manager.remap_host_port
        self.seeds: list[Address] = [(str(node.host), int(node.port)) for node in seeds]
        """Where a cluster is to be found."""

    def at(self, address: "Address") -> Connector:
        """Return what connects to one server."""
        host, port = address
        return Connector(self._class, {**self._options, "host": host, "port": port}, self._timeout)

    def remap(self, address: "Address") -> "Address":
        """Return where an address that the cluster told is reached from here."""
        return self._remap(*address)


Address: TypeAlias = tuple[str, int]
"""Host and port."""


def pack(*parts: Part) -> bytes:
    """Return a command as it is written (RESP, an array of bulk strings)."""
    return b"*%d\r\n%b" % (len(parts), packed(*parts))


def packed(*parts: Part) -> bytes:
    """Return some parts of a command as they are written."""
    return b"".join(
        [
            b"$%d\r\n%b\r\n" % (len(data), data)
            for part in parts
            for data in (part if isinstance(part, bytes) else str(part).encode(),)
        ]
    )


async def ask(connection: Connection, *commands: bytes) -> list[Any]:
    """Return the replies to some commands on a connection that nobody else uses.

    Raises:
        RedisError: the first refusal, or the loss of the connection.
    """
    await connection.send_packed_command(b"".join(commands))
    return [await connection.read_response(timeout=inf) for _ in commands]


async def hang_up(connection: Connection) -> None:
    """Close a connection, whatever its state is."""
    with suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def say(exc: BaseException) -> str:
    """Return what went wrong, for the log."""
    if isinstance(exc, NoPermissionError):
        return f"the user lacks a right that the documentation of RedisBroker lists ({exc})"
    if isinstance(exc, AuthenticationError):
        return f"user and password are not right ({exc})"
    return str(exc) or type(exc).__name__


def info(reply: bytes) -> dict[str, str]:
    """Return what ``INFO`` said."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
