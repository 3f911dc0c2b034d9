"""A node of a test: a broker, and all that it told, in order."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from threading import get_ident
from typing import Final, TypeAlias, TypeVar

from wsrouter.brokers.base import Broker, Entry, Publication, Target
from wsrouter.history import History

T = TypeVar("T")

GRACE: Final = 1.0
"""Seconds that dropped entries stay."""

FENCE: Final = "the fence"
"""A room that every peer subscribes to, for what is published after that of which it is asked whether it came."""


@dataclass(frozen=True, slots=True)
class Lost:
    """`Receiver.lost` was called."""

    names: frozenset[tuple[Target, str]]


@dataclass(frozen=True, slots=True)
class Present:
    """`Receiver.present` was called."""

    room: str
    changed: tuple[Entry, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Departed:
    """`Receiver.departed` was called."""

    node: str


Heard: TypeAlias = Publication | Lost | Present | Departed


def numbered(name: str, number: int, target: Target = "room") -> Publication:
    """Return a publication that is told from others by its number."""
    return Publication(target, name, "test", str(number).encode())


class Peer:
    """A broker and its receiver.

    Args:
        broker: not started yet.
        number: which one of the test it is, from 1.
        timeout: seconds that it waits for what has to come.
    """

    def __init__(self, broker: Broker, number: int, timeout: float) -> None:
        self.broker = broker
        self.number = number
        self.id = self._new_id()
        self.heard: list[Heard] = []
        self.threads: set[int] = set()
        """Those in which it was called."""
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Start the broker, as a node that never was before."""
        self.id = self._new_id()
        await self.broker.start(self.id, self, GRACE)

    async def subscribe(self, name: str, target: Target = "room", history: History | None = None) -> None:
        await self.broker.subscribe(target, name, history)

    async def publish(self, name: str, number: int, target: Target = "room", history: History | None = None) -> None:
        """Publish a number."""
        await self.broker.publish(numbered(name, number, target), history)

    def deliver(self, publication: Publication) -> None:
        self._hear(publication)

    def lost(self, names: Collection[tuple[Target, str]]) -> None:
        self._hear(Lost(frozenset(names)))

    def present(self, room: str, changed: Sequence[Entry], gone: Sequence[str]) -> None:
        self._hear(Present(room, tuple(changed), tuple(gone)))

    def departed(self, node: str) -> None:
        self._hear(Departed(node))

    def restored(self) -> None:
        """Pass it over: a broker need not say so."""

    @property
    def delivered(self) -> list[Publication]:
        """All publications that were delivered, oldest first, but for those to the fence."""
        return [each for each in self.heard if isinstance(each, Publication) and each.name != FENCE]

    def publications(self, name: str, target: str = "room") -> list[Publication]:
        """Return what was delivered to a name, oldest first."""
        return [
            each for each in self.heard if isinstance(each, Publication) and (each.target, each.name) == (target, name)
        ]

    def numbers(self, name: str, target: Target = "room") -> list[int]:
        """Return the numbers that were delivered to a name, oldest first."""
        return [int(each.data) for each in self.publications(name, target)]

    def story(self, name: str, target: Target = "room") -> list[int | None]:
        """Return the numbers that were delivered to a name, with ``None`` wherever a hole was told."""
        story: list[int | None] = []
        for each in self.heard:
            if isinstance(each, Publication) and (each.target, each.name) == (target, name):
                story.append(int(each.data))
            elif isinstance(each, Lost) and (target, name) in each.names:
                story.append(None)
        return story

    def roster(self, room: str) -> dict[str, Entry]:
        """Return what it was told of the entries of a room, by ref."""
        known: dict[str, Entry] = {}
        for each in self.heard:
            if isinstance(each, Present) and each.room == room:
                known.update({entry.ref: entry for entry in each.changed})
                for ref in each.gone:
                    known.pop(ref, None)
        return known

    async def collect(self, name: str, count: int, target: str = "room") -> list[Publication]:
        """Wait until so many publications were delivered to a name, and return all that were."""
        await self.until(lambda: len(self.publications(name, target)) >= count, f"{count} publications to {name!r}")
        return self.publications(name, target)

    async def goes_on(self, name: str, number: int, target: str = "room") -> None:
        """Wait until a number is what was delivered last to a name."""
        await self.until(
            lambda: [int(each.data) for each in self.publications(name, target)[-1:]] == [number],
            f"the number {number} at the {target} {name!r}",
        )

    async def sees(self, room: str, entries: Mapping[str, Entry]) -> None:
        """Wait until it was told of exactly these entries of a room, by ref."""
        await self.until(
            lambda: self.roster(room) == entries, f"word of exactly the entries {list(entries)} in {room!r}"
        )

    async def misses(self, other: "Peer", timeout: float) -> None:
        """Wait until it was told that another node departed."""
        await self.until(lambda: Departed(other.id) in self.heard, f"word that {other} departed", timeout)

    async def hears(self, name: str, numbers: Sequence[int], target: Target = "room") -> None:
        """Wait until exactly these numbers were delivered to a name."""
        await self.until(lambda: self.numbers(name, target) == list(numbers), f"the numbers {numbers} at {name!r}")

    async def until(self, ready: Callable[[], T], what: str, timeout: float | None = None) -> T:
        """Wait until something is true, and return it; it is looked at whenever the broker told something.

        Raises:
            AssertionError: it was not true within ``timeout`` seconds. The text says what the broker told.
        """
        limit = self._timeout if timeout is None else timeout
        end = self._loop.time() + limit
        while not (value := ready()):
            left = end - self._loop.time()
            if left <= 0:
                raise AssertionError(f"{self} waited {limit:g} s for {what}. {self.tale()}")
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.02)):  # what is not told, such as `link`, changes too
                    await self._news.wait()
        return value

    def tale(self) -> str:
        """Return what the broker told lately, for the text of a failure."""
        told = [_brief(each) for each in self.heard if not isinstance(each, Publication) or each.name != FENCE]
        return f"It heard: {', '.join(told[-30:])}" if told else "It heard nothing"

    def __str__(self) -> str:
        return f"node {self.number}"

    def _hear(self, heard: Heard) -> None:
        self.threads.add(get_ident())
        self.heard.append(heard)
        self._loop.call_soon_threadsafe(self._news.set)

    def _new_id(self) -> str:
        return f"node-{self.number}-{token_hex(6)}"


def _brief(heard: Heard) -> str:
    if isinstance(heard, Publication):
        place = "" if heard.offset is None else f" at {heard.epoch}:{heard.offset}"
        return f"{heard.target} {heard.name[:40]!r} {heard.type!r} {heard.data[:40].decode(errors='replace')}{place}"
    if isinstance(heard, Lost):
        return f"lost {sorted(heard.names)[:5]}"
    if isinstance(heard, Present):
        return f"present in {heard.room[:40]!r}: {[entry.ref for entry in heard.changed]}, gone {list(heard.gone)}"
    return f"departed {heard.node}"
