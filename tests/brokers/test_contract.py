"""Every broker keeps the contract."""

from tests.brokers.contracts import TinyContract


class TestTinyBroker(TinyContract):
    """The broker of the tests keeps all of it."""
