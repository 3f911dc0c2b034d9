"""The faults: what goes wrong, for how long, and what has to hold all the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from tests.cluster.cluster import Setting
from tests.cluster.happenings import (
    Happen,
    buffer_overflown,
    chaos,
    connections_cut,
    failed_over,
    flushed,
    memory_full,
    node_frozen,
    node_killed,
    old_snapshot,
    proxies_silent,
    redis_frozen,
    redis_killed,
    replies_silent,
    rolling_restart,
    starved,
    subscriber_stalled,
)

Holes: TypeAlias = Literal["none", "plain", "all"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong while messages flow."""

    name: str
    about: str
    happen: Happen
    holes: Holes = "all"
    """Where publications may be missing, so that it has to be announced: where there is no history (and in rooms whose
    history is short), or everywhere, since Redis has lost the history itself."""

    presence: Literal["still", "moves"] = "still"
    """Whether others may be seen to come and go."""

    unnoticed: Sequence[int] = ()
    """Nodes that are cut off from Redis without a connection being closed."""

    setting: Setting = field(default_factory=Setting)
    after: float = 3.0
    """Seconds for which everybody goes on publishing after it."""

    long: bool = False
    """Whether it is too long for every run of the tests."""


QUICK: Final = Setting(ttl=5.0, heartbeat=0.5, presence_grace=3.0)
"""Notices what is silent within two seconds or so."""

FAULTS: Final = [
    Fault(name="redis-killed-1", about="Redis killed (-9), back after 1 s", happen=redis_killed(1)),
    Fault(name="redis-killed-5", about="Redis killed (-9), back after 5 s", happen=redis_killed(5), after=7, long=True),
    Fault(
        name="redis-killed-20", about="Redis killed (-9), back after 20 s", happen=redis_killed(20), after=7, long=True
    ),
    Fault(
        name="redis-frozen-3",
        about="Redis frozen (SIGSTOP) for 3 s",
        happen=redis_frozen(3),
        holes="plain",
        unnoticed=(0, 1, 2),
        long=True,
    ),
    Fault(
        name="redis-frozen-20",
        about="Redis frozen (SIGSTOP) for 20 s",
        happen=redis_frozen(20),
        unnoticed=(0, 1, 2),
        holes="plain",
        after=7,
        long=True,
    ),
    Fault(
        name="proxy-silent-3",
        about="Between Redis and one node nothing comes through for 3 s; a heartbeat every 0.5 s",
        happen=proxies_silent(3, 0),
        unnoticed=(0,),
        holes="plain",
        setting=Setting(ttl=15.0, heartbeat=0.5),
    ),
    Fault(
        name="proxy-silent-15",
        about="Between Redis and everybody nothing comes through for 15 s",
        happen=proxies_silent(15),
        unnoticed=(0, 1, 2),
        holes="plain",
        after=7,
        long=True,
    ),
    Fault(
        name="replies-silent-15",
        about="What Redis answers to one node is held back for 15 s",
        happen=replies_silent(15),
        unnoticed=(0,),
        holes="plain",
        after=7,
        long=True,
    ),
    Fault(
        name="subscriber-stalled-10",
        about="What is published does not come to one node for 10 s, which can publish all the while",
        happen=subscriber_stalled(10),
        holes="plain",
        unnoticed=(0,),
        after=7,
        long=True,
    ),
    Fault(
        name="connections-cut",
        about="Every connection to Redis reset, three times",
        happen=connections_cut,
        holes="plain",
        long=True,
    ),
    Fault(
        name="buffer-overflown",
        about="One node's subscriber thrown out by Redis (its output buffer is full)",
        happen=buffer_overflown,
        holes="plain",
        setting=Setting(redis=("--client-output-buffer-limit", "pubsub", "64kb", "0", "0")),
    ),
    Fault(name="old-snapshot", about="Redis restarted from a snapshot one second old", happen=old_snapshot),
    Fault(name="flushed", about="Redis flushed", happen=flushed),
    Fault(
        name="failed-over",
        about="Redis killed (-9), and a replica promoted in its place",
        happen=failed_over,
        long=True,
    ),
    Fault(
        name="memory-full",
        about="Redis has no more memory (maxmemory) for 3 s",
        happen=memory_full,
        holes="none",
        long=True,
    ),
    Fault(name="node-killed", about="One node killed (-9)", happen=node_killed, holes="none", presence="moves"),
    Fault(
        name="node-frozen-20",
        about="One node frozen (SIGSTOP) for 20 s",
        happen=node_frozen(20),
        holes="none",
        presence="moves",
        after=7,
        long=True,
    ),
    Fault(
        name="node-starved-10",
        about="One node runs for a tenth of each second, for 10 s",
        happen=starved(10, lambda cluster: cluster.nodes[0]),
        holes="none",
        long=True,
    ),
    Fault(
        name="redis-starved-10",
        about="Redis runs for a tenth of each second, for 10 s",
        happen=starved(10, lambda cluster: cluster.redis),
        holes="plain",
        long=True,
    ),
    Fault(
        name="rolling-restart",
        about="All three nodes restarted, one after the other",
        happen=rolling_restart,
        holes="none",
        long=True,
    ),
    Fault(
        name="crowd-cut",
        about="4,000 rooms on every node; every connection to Redis reset, three times",
        happen=connections_cut,
        holes="plain",
        setting=Setting(crowd=4_000),
        after=7,
        long=True,
    ),
    Fault(
        name="crowd-killed",
        about="4,000 rooms on every node; Redis killed (-9), back after 1 s",
        happen=redis_killed(1),
        setting=Setting(crowd=4_000),
        after=7,
        long=True,
    ),
    Fault(
        name="chaos-60", about="All of these at random for 60 s", happen=chaos(60), presence="moves", after=7, long=True
    ),
    Fault(
        name="chaos-quick",
        about="All of these at random for 60 s, with a heartbeat every 0.5 s and a ttl of 5 s",
        happen=chaos(60),
        presence="moves",
        setting=QUICK,
        after=7,
        long=True,
    ),
]
