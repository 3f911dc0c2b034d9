"""Commands to Redis: each is sent once, within a deadline."""

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from wsrouter.errors import BrokerError, ConfigurationError


class Commands:
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
            self._pool().make_connection()
        except ValueError:
            raise ConfigurationError("The address of Redis: expected one such as 'redis://127.0.0.1:6379/0'") from None
        except TypeError as exc:
            raise ConfigurationError(f"The options for Redis: redis-py does not take them: {exc}") from None

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
