"""What wsrouter keeps in Redis. It needs redis-py: ``pip install wsrouter-fastapi[redis]``."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from wsrouter.errors import BrokerError, ConfigurationError
from wsrouter.stores import OneTimeStore

try:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError
except ImportError as exc:
    raise ImportError("wsrouter.brokers.redis needs the package redis: pip install wsrouter-fastapi[redis]") from exc

__all__ = ["RedisStore"]


class RedisStore(OneTimeStore):
    """A store that several processes share, in Redis 6.2 or newer.

    A command is sent once: it is not tried again where nobody knows what has come of it. It serves one event loop
    at a time: in another one it opens connections anew, and leaves those of the loop before to be collected.

    Args:
        url: such as ``redis://127.0.0.1:6379/0``, as redis-py takes it.
        prefix: begins every key. Two applications in one database need different ones: a ticket of one would be good at
            the other, where path and origin are the same.
        timeout: seconds for one command, a new connection included.
        max_connections: connections that are open at once; who needs one more waits within ``timeout``.

    Raises:
        ConfigurationError: an address that redis-py does not take, or a number that is not above zero.
    """

    def __init__(
        self, url: str, *, prefix: str = "wsrouter:once:", timeout: float = 2.0, max_connections: int = 32
    ) -> None:
        if not timeout > 0:
            raise ConfigurationError(f"RedisStore(timeout={timeout!r}): expected seconds above zero")
        self._prefix = prefix
        self._commands = _Commands(url, timeout=timeout, max_connections=max_connections)

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        if not ttl > 0:
            raise ValueError(f"put(ttl={ttl!r}): expected seconds above zero")
        milliseconds = math.ceil(ttl * 1000)
        if await self._commands.call("SET", self._prefix + key, value, "NX", "PX", milliseconds) is None:
            raise ValueError("put(): there is a value under that key")

    async def take(self, key: str) -> bytes | None:
        value: bytes | None = await self._commands.call("GETDEL", self._prefix + key)
        return value

    async def aclose(self) -> None:
        await self._commands.aclose()


class _Commands:
    """Sends commands to Redis, each once and with a deadline, and wraps what goes wrong.

    Args:
        url: as redis-py takes it.
        timeout: seconds for one command, a new connection included.
        max_connections: connections that are open at once.

    Raises:
        ConfigurationError: an address that redis-py does not take.
    """

    def __init__(self, url: str, *, timeout: float, max_connections: int) -> None:
        self._url = url
        self._timeout = timeout
        self._max_connections = max_connections
        self._open: _Open | None = None
        try:
            self._pool()
        except ValueError:
            raise ConfigurationError("The address of Redis: expected one such as 'redis://127.0.0.1:6379/0'") from None

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the reply to a command.

        Raises:
            BrokerError: Redis did not answer in time, refused, or the connection was lost.
        """
        sent = False
        opened = self._current()
        try:
            async with asyncio.timeout(self._timeout), opened.places:
                connection = await opened.pool.get_connection()
                try:
                    sent = True
                    await connection.send_command(*command)
                    return await connection.read_response()
                finally:
                    if self._open is not opened:  # closed meanwhile: nobody will use it again
                        await connection.disconnect()
                    await opened.pool.release(connection)
        except ResponseError as exc:
            raise BrokerError(f"Redis refused {command[0]!r}: {type(exc).__name__}") from exc
        except (RedisError, OSError, TimeoutError) as exc:
            raise BrokerError(
                f"Redis did not answer {command[0]!r}: {type(exc).__name__}", outcome_unknown=sent
            ) from exc

    async def aclose(self) -> None:
        """Close the connections; those that are in use when their command is answered."""
        opened, self._open = self._open, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.pool.disconnect(inuse_connections=False)

    def _current(self) -> "_Open":
        """Return what belongs to the running event loop; that of another loop can't be used, or closed, any more."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open.loop is not loop:
            self._open = _Open(loop, self._pool(), asyncio.Semaphore(self._max_connections))
        return self._open

    def _pool(self) -> Any:
        # redis-py leaves the options, and what a pool returns, untyped.
        return ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            self._url,
            decode_responses=False,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            retry_on_timeout=False,
            socket_connect_timeout=self._timeout,
            socket_timeout=self._timeout,
        )


@dataclass(frozen=True, slots=True)
class _Open:
    """The connections of one event loop, and the places for them."""

    loop: asyncio.AbstractEventLoop
    pool: Any
    places: asyncio.Semaphore
