"""Every broker keeps the contract, and any runner can run it."""

import unittest
from io import StringIO

import pytest

from tests.brokers.contracts import MemoryContract, TinyContract
from wsrouter.testing.brokers import BrokerContract

PROMISES = [name for name in dir(BrokerContract) if name.startswith("test_")]


class TestMemoryBroker(MemoryContract):
    """The reference keeps all that can be broken without a link to a server."""


class TestTinyBroker(TinyContract):
    """The broker of the tests keeps all of it."""


def test_unittest_runs_the_contract() -> None:
    """A class that has `IsolatedAsyncioTestCase` beside the contract needs no pytest."""

    class OnMemory(MemoryContract, unittest.IsolatedAsyncioTestCase):
        pass

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(OnMemory)
    result = unittest.TextTestRunner(StringIO()).run(suite)
    assert (result.testsRun, result.failures, result.errors) == (len(PROMISES), [], [])


async def test_what_is_not_given_is_skipped_with_a_reason() -> None:
    """A test that has to cut a link says that the class has no way to do so, and leaves nothing open."""
    with pytest.raises(unittest.SkipTest, match=r"the test class has no cut\(\): what comes of a lost connection"):
        await MemoryContract().test_a_lost_link_is_told_for_every_name()
