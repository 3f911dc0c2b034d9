"""Brokers with one fault each."""

from tests.brokers.faults import attendance, delivery, failing, names, slots, streams
from tests.brokers.faults.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "attendance", "delivery", "failing", "names", "slots", "streams"]
