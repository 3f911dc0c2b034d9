"""What is kept in Redis for a short time and taken once."""

import math

from wsrouter.brokers.redis.commands import Commands
from wsrouter.errors import ConfigurationError
from wsrouter.stores import OneTimeStore


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
        self._commands = Commands(url, timeout=timeout, max_connections=max_connections)

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
