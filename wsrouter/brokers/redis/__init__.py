"""What wsrouter does with Redis. It needs redis-py: ``pip install wsrouter-fastapi[redis]``."""

from importlib.util import find_spec

if find_spec("redis") is None:
    raise ImportError("wsrouter.brokers.redis needs the package redis: pip install wsrouter-fastapi[redis]")

# What these import may be missing.
from wsrouter.brokers.redis.broker import RedisBroker
from wsrouter.brokers.redis.store import RedisStore

__all__ = ["RedisBroker", "RedisStore"]
