"""The brokers that are held to the contract."""

from collections.abc import Sequence

from tests.brokers.tiny import Exchange, TinyBroker
from wsrouter.brokers import Broker, MemoryBroker
from wsrouter.brokers.base import Target
from wsrouter.testing.brokers import BrokerContract


class TinyContract(BrokerContract):
    """The broker of a few lines, or one with a fault."""

    deadline = 0.5
    notice = 2.0
    ttl = Exchange.ttl

    broker = TinyBroker
    exchange = Exchange

    async def nodes(self, count: int) -> Sequence[Broker]:
        self.server = self.exchange()
        self.brokers = [self.broker(self.server) for _ in range(count)]
        return self.brokers

    async def cleanup(self) -> None:
        for broker in self.brokers:
            await broker.stop()

    async def cut(self, broker: Broker) -> None:
        assert isinstance(broker, TinyBroker)
        broker.cut()

    async def silence(self, broker: Broker) -> None:
        assert isinstance(broker, TinyBroker)
        broker.silence()

    async def mend(self, broker: Broker) -> None:
        assert isinstance(broker, TinyBroker)
        broker.mend()

    async def rewind(self) -> None:
        self.server.rewind()

    async def forge(self, target: Target, name: str, payload: bytes) -> None:
        self.server.send("nobody", payload)


class MemoryContract(BrokerContract):
    """The broker of one process, as several nodes in it."""

    async def nodes(self, count: int) -> Sequence[Broker]:
        first = MemoryBroker()
        return [first, *(MemoryBroker(beside=first) for _ in range(count - 1))]
