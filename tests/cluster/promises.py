"""What has to hold, whatever goes wrong."""

from collections.abc import Iterator
from typing import Final

from tests.cluster.cluster import HERE, PASSWORD, Cluster
from tests.cluster.faults import Fault
from tests.cluster.results import Result

DEADLINE: Final = 2.0
"""Seconds after which the broker gives up."""

SLACK: Final = 0.75
"""Seconds that a machine may add to a deadline."""

WELL: Final = 5.0
"""Seconds after the fault by which all has to be well."""

NOTICED: Final = 10.0
"""Seconds after which a node has to know that nothing comes through."""

RATE: Final = 200.0
"""Publications a second that have to flow."""


def broken(result: Result, cluster: Cluster) -> Iterator[str]:
    """Yield what must never be, however slow the machine is."""
    yield from map(str, result.audit.findings)
    for link in cluster.links:
        yield from (f"{link.name} was told {surprise}" for surprise in link.surprises)
        if link.is_over:
            yield f"{link.name} was told not to come back: {link.closes[-1]}"
    for node in cluster.nodes:
        log = node.log.read_text()
        yield from (f"{text!r} in the log of node {node.number}" for text in ("Traceback", PASSWORD) if text in log)
    views = list(cluster.here.values())
    if any(view != views[0] for view in views):
        counts = {name: {user: len(refs) for user, refs in view.items()} for name, view in cluster.here.items()}
        yield f"clients see different members: {counts}"


def late(result: Result, cluster: Cluster) -> Iterator[str]:
    """Yield what took too long, and what has no other reason than that something did."""
    for what, took in {
        "a handler": result.longest,
        "a join": result.longest_wait("join"),
        "a handshake": result.longest_wait("handshake"),
    }.items():
        if took > DEADLINE + SLACK:
            yield f"{what} took {took:.2f} s"
    if result.well > WELL:
        yield f"it took {result.well:.2f} s until all was well again"
    if result.ready > WELL:
        yield f"it took {result.ready:.2f} s until all nodes were ready again"
    if result.noticed > NOTICED:
        yield f"it took {result.noticed:.2f} s until a node noticed that it is cut off"
    if result.rate < RATE:
        yield f"only {result.rate:.0f} publications a second"
    yield from _needless_holes(result)
    yield from _needless_changes(result.fault, cluster)


def _needless_holes(result: Result) -> Iterator[str]:
    """Yield where a hole was told that nothing had to make."""
    if result.fault.holes == "all":
        return
    for (client, room), times in result.audit.gaps.items():
        lost = result.audit.announced[client, room]
        if times and (room.startswith("history:") or (result.fault.holes == "none" and not room.startswith("tight:"))):
            yield f"{client} was told {times} times of a hole in {room} ({lost} publications), and there was no need"


def _needless_changes(fault: Fault, cluster: Cluster) -> Iterator[str]:
    """Yield where a client saw others come and go that did not, or did not see all who are there."""
    # Who drops its connection while Redis is away comes back on a node that has not heard of it, so it is there twice
    # until the grace is over.
    steady = {client.user for client in cluster.steady}
    judged = steady if fault.presence == "still" else set[str]()
    if fault.setting.is_quick:
        judged = {*cluster.devices}
    for view in list(cluster.here.values())[:1]:
        counts = {user: len(refs) for user, refs in view.items() if user in judged}
        if counts != {user: count for user, count in cluster.devices.items() if user in judged}:
            yield f"clients see {view}, and there are {dict(cluster.devices)}"
    if fault.presence == "moves":
        return
    for client in cluster.steady:
        changes = [
            f"{at:.3f} {change} {user} {ref}"
            for at, change, user, ref in client.presence[HERE].changes
            if cluster.fault_began < at < cluster.ended and user in steady
        ]
        if changes:
            yield f"{client.name} saw others come or go: {', '.join(changes[:8])}"
