"""What carries publications between processes."""

from wsrouter.brokers.base import Broker, Publication
from wsrouter.brokers.memory import MemoryBroker

__all__ = ["Broker", "MemoryBroker", "Publication"]
