"""The benchmarks: which workload, which contenders, and what is aimed at."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from tests.benchmarks.connections import echo, handshakes, memory
from tests.benchmarks.fanout import fan_out
from tests.benchmarks.figures import (
    DELIVERIES,
    GROWTH,
    HANDSHAKES,
    MEMORY,
    MESSAGES,
    P99,
    SHARE,
    SLOWER,
    Figure,
    Figures,
    Scale,
)
from tests.benchmarks.servers import OURS, STOCK, Contender, Running
from tests.benchmarks.stall import stall

Workload: TypeAlias = Callable[[Running, str, Scale], Coroutine[Any, Any, Figures]]


@dataclass(frozen=True)
class Comparison:
    """Two contenders, and what is aimed at."""

    ours: Contender
    theirs: Contender
    targets: Mapping[Figure, str] = field(default_factory=dict[Figure, str])


@dataclass(frozen=True)
class Benchmark:
    """A workload, and who is compared under it."""

    name: str
    about: str
    workload: Workload
    comparisons: tuple[Comparison, ...]

    def contenders(self) -> list[Contender]:
        """Return each contender once."""
        return list(dict.fromkeys(each for pair in self.comparisons for each in (pair.ours, pair.theirs)))


def direct(path: str, name: str = "wsrouter") -> Contender:
    """Return wsrouter with its own protocol class."""
    return Contender(name, "tests.benchmarks.app:app", OURS, path)


def portable(path: str) -> Contender:
    """Return wsrouter on what uvicorn takes by itself."""
    return Contender("wsrouter, portable", "tests.benchmarks.app:app", STOCK, path)


def plain(path: str, name: str = "plain FastAPI") -> Contender:
    """Return what is written by hand."""
    return Contender(name, "tests.benchmarks.plain:app", STOCK, path)


def both(path: str, targets: Mapping[Figure, str], targets_portable: Mapping[Figure, str]) -> tuple[Comparison, ...]:
    """Compare wsrouter, either way, with plain FastAPI."""
    return (
        Comparison(direct(path), plain(path), targets),
        Comparison(portable(path), plain(path), targets_portable),
    )


COMMON: Final = plain("/echo", "FastAPI, the common way")
FAST: Final = plain("/echo-fast", "FastAPI, the fast way")
STALLED: Final = {SHARE: "100 %", SLOWER: "at most 1.5", GROWTH: "at most 3 MiB"}

BENCHMARKS: Final = (
    Benchmark(
        "echo",
        "typed messages of 64 bytes over 100 connections",
        echo,
        (
            Comparison(direct("/echo"), COMMON, {MESSAGES: "1.25"}),
            Comparison(direct("/echo"), FAST, {MESSAGES: "1.0"}),
            Comparison(portable("/echo"), COMMON, {MESSAGES: "1.25"}),
            Comparison(portable("/echo"), FAST, {MESSAGES: "1.0"}),
            Comparison(direct("/echo-dep", "wsrouter, with a dependency"), direct("/echo"), {MESSAGES: "0.93"}),
        ),
    ),
    Benchmark(
        "fan-out",
        "a room, one publication outstanding",
        fan_out,
        both("/room", {DELIVERIES: "1.5"}, {DELIVERIES: "0.9"}),
    ),
    Benchmark(
        "fan-out, deflate",
        "the same, permessage-deflate negotiated",
        partial(fan_out, deflate=True),
        both("/room", {DELIVERIES: "2.5"}, {}),
    ),
    Benchmark(
        "burst",
        "a room, 16 publications outstanding",
        partial(fan_out, outstanding=16),
        both("/room", {DELIVERIES: "8", P99: "4"}, {DELIVERIES: "1.0"}),
    ),
    Benchmark(
        "burst, deflate",
        "the same, permessage-deflate negotiated",
        partial(fan_out, outstanding=16, deflate=True),
        both("/room", {}, {}),
    ),
    Benchmark(
        "stall",
        "a room of 20, messages of 60 KiB at 20 a second, one more member that never reads",
        stall,
        both("/room", STALLED, STALLED),
    ),
    Benchmark(
        "memory",
        "idle connections in a room, twice as many as members",
        memory,
        both("/room", {MEMORY: "at most 6 KiB"}, {MEMORY: "at most 6 KiB"}),
    ),
    Benchmark(
        "handshakes, one by one",
        "each when the one before is accepted",
        partial(handshakes, at_once=1),
        both("/echo", {HANDSHAKES: "0.85"}, {HANDSHAKES: "0.85"}),
    ),
    Benchmark(
        "handshakes, 100 at once",
        "100 outstanding",
        partial(handshakes, at_once=100),
        both("/echo", {HANDSHAKES: "0.85"}, {HANDSHAKES: "0.85"}),
    ),
)
