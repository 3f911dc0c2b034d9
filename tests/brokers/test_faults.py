"""The contract finds every way to break a promise that anybody thought of."""

import inspect

import pytest

from tests.brokers.contracts import TinyContract
from tests.brokers.faults import FAULTS, Fault
from tests.brokers.tiny import Exchange, TinyBroker
from wsrouter.testing.brokers import BrokerContract

PROMISES = sorted(name for name in dir(BrokerContract) if name.startswith("test_"))


def contract_with(fault: Fault) -> BrokerContract:
    """Return the contract, to be run on a broker that has the fault."""

    class Contract(TinyContract):
        timeout = 0.4
        notice = 1.0
        broker = fault.broken if issubclass(fault.broken, TinyBroker) else TinyBroker
        exchange = fault.broken if issubclass(fault.broken, Exchange) else Exchange

    return Contract()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.broken.__name__}-{fault.test}")
async def test_a_fault_is_found(fault: Fault) -> None:
    """The test of the promise that the fault breaks fails, and says what is wrong."""
    with pytest.raises(AssertionError, match=f"(?s){fault.says}"):
        await getattr(contract_with(fault), fault.test)()


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_can_be_broken(promise: str) -> None:
    """There is no test in the contract that nothing fails."""
    assert promise in {fault.test for fault in FAULTS}


def test_every_fault_is_described() -> None:
    """Each broken class says what is wrong with it."""
    assert [fault.broken.__name__ for fault in FAULTS if not inspect.getdoc(fault.broken)] == []


def test_every_test_says_its_promise() -> None:
    """Each test of the contract has a sentence."""
    assert [name for name in PROMISES if not inspect.getdoc(getattr(BrokerContract, name))] == []
