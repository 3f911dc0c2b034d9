"""What carries publications between processes."""

from wsrouter.brokers.base import Broker, Entry, Link, Publication, Receiver, Slot
from wsrouter.brokers.memory import MemoryBroker
from wsrouter.history import Recovery

__all__ = ["Broker", "Entry", "Link", "MemoryBroker", "Publication", "Receiver", "Recovery", "Slot"]
