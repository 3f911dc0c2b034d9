"""A deliberate fault, and how the contract finds it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.brokers.tiny import Exchange, TinyBroker

BrokenT = TypeVar("BrokenT", bound=type[TinyBroker] | type[Exchange])


@dataclass(frozen=True)
class Fault:
    """One way to break one promise."""

    broken: type[TinyBroker] | type[Exchange]
    test: str
    """The test that finds it."""
    says: str
    """What the test says, as a regular expression."""
    wants: type[Exchange] = Exchange
    """The server that a broken node is used with."""


FAULTS: list[Fault] = []


def caught_by(test: str, says: str, wants: type[Exchange] = Exchange) -> Callable[[BrokenT], BrokenT]:
    """Enter a broken class in the list."""

    def enter(broken: BrokenT) -> BrokenT:
        FAULTS.append(Fault(broken, test, says, wants))
        return broken

    return enter
