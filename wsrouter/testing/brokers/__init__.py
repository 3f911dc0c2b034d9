"""Tests that any broker has to pass.

class TestMyBroker(BrokerContract):
    async def nodes(self, count: int) -> list[Broker]:
        return [MyBroker("mine://127.0.0.1") for _ in range(count)]
"""

from wsrouter.testing.brokers.contract import BrokerContract

__all__ = ["BrokerContract"]
