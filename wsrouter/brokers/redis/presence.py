"""Who is in the rooms, as Redis keeps it: a hash of each room, from the ref of a device to its node and what is known.

An entry belongs to its node, so it needs no heartbeat of its own: that of the node stands for all. The keys have an
expiry, for when no node is left to clean up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from math import ceil
from time import monotonic
from typing import Any, Final, TypeVar

from pydantic_core import to_json

from wsrouter.brokers.base import Entry
from wsrouter.brokers.redis.connections import Part, pack
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.nodes import Nodes
from wsrouter.brokers.redis.payloads import Payloads, item, kept_entry
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import Incoming, Subscription
from wsrouter.brokers.redis.upkeep import Upkeep
from wsrouter.errors import BrokerError

_LIFE: Final = 3
"""For how many times the ``ttl`` of nodes a key is kept after it was used last."""

_MOST_AT_ONCE: Final = 256
"""Entries that one script takes, or that are read before the loop is given back."""

T = TypeVar("T")


class _Own:
    """The entries of this node in one room."""

    __slots__ = ("refs", "turn")

    def __init__(self) -> None:
        self.refs: dict[str, bool] = {}
        """Of each whether it is dropped."""
        self.turn = 0
        """How often some were announced."""


class RedisPresence:
    """Announces entries of this node, and finds those of all.

    Args:
        node: id of this node.
        names: of the keys.
        payloads: of this node.
        scripts: that are used.
        servers: where.
        incoming: where payloads are dropped.
        nodes: which nodes are there, as far as was heard.
        ask_for_nodes: has ``nodes`` heard what Redis knows.
        upkeep: of the keys.
        ttl: seconds after which a node that is not heard of is gone.
        grace: seconds that a dropped entry stays.
    """

    def __init__(
        self,
        node: str,
        names: Names,
        payloads: Payloads,
        scripts: Scripts,
        servers: Servers[Subscription],
        incoming: Incoming,
        nodes: Nodes,
        ask_for_nodes: Callable[[], Awaitable[object]],
        upkeep: Upkeep,
        ttl: float,
        grace: float,
    ) -> None:
        self._node = node
        self._names = names
        self._present = payloads.present()
        self._gone = payloads.gone()
        self._scripts = scripts
        self._servers = servers
        self._incoming = incoming
        self._nodes = nodes
        self._ask_for_nodes = ask_for_nodes
        self._upkeep = upkeep
        self._ttl = ttl
        self._life = ceil(max(ttl * _LIFE, ttl + grace) * 1000)
        self._grace = grace
        self._own: dict[str, _Own] = {}

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that this node has entries in."""
        return self._own.keys()

    async def announce(self, room: str, entries: Sequence[Entry]) -> Sequence[str]:
        """Make entries of this node known; return the refs that another node has.

        Raises:
            BrokerError: it is not done.
        """
        if not entries:
            return ()
        key, channel = self._keys(room)
        publisher = self._servers.publisher(key)
        new = self._note(room, key, {entry.ref: entry.dropped for entry in entries})
        replies: list[asyncio.Future[list[bytes]]] = []
        for some in batched(entries):
            arguments: list[Part] = [self._node, self._life, self._present]
            for entry in some:
                arguments += [entry.ref, int(entry.dropped), item(entry)]
            replies.append(publisher.send(self._scripts.announce.call([key, channel], *arguments)))
        outcomes: list[Any] = await asyncio.gather(*replies, return_exceptions=True)
        failures = [each for each in outcomes if isinstance(each, BrokerError)]
        if failures:
            if len(failures) == len(outcomes) and not any(each.outcome_unknown for each in failures):
                self.forget(room, new)
            raise failures[0]
        refs = [ref.decode() for refused in outcomes for ref in refused]
        self.forget(room, refs)
        return refs

    async def withdraw(self, room: str, refs: Sequence[str]) -> None:
        """Make known that entries left.

        Raises:
            BrokerError: it is not done.
        """
        if not refs:
            return
        key, channel = self._keys(room)
        publisher = self._servers.publisher(key)
        replies: list[asyncio.Future[int]] = []
        for some in batched(refs):
            arguments: list[Part] = [self._node, self._gone]
            for ref in some:
                arguments += [ref, to_json(ref)]
            replies.append(publisher.send(self._scripts.withdraw.call([key, channel], *arguments)))
        await asyncio.gather(*replies)
        self.forget(room, refs)

    async def entries(self, room: str) -> Sequence[Entry]:
        """Return the entries of a room on all nodes that are there; forget those of others.

        Raises:
            BrokerError: they are not known.
        """
        key, _ = self._keys(room)
        publisher = self._servers.publisher(key)
        own = self._own.get(room)
        turn = 0 if own is None else own.turn
        (now, kept), _ = await asyncio.gather(publisher.call(self._scripts.entries.call([key])), self._ask_for_nodes())
        alive, settled = self._nodes.alive(monotonic()), self._nodes.settled(monotonic())
        found: list[Entry] = []
        void: list[Part] = []
        for number, (ref, value) in enumerate(zip(kept[::2], kept[1::2], strict=True)):
            if number % _MOST_AT_ONCE == _MOST_AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                dropped_at, entry = kept_entry(value)
            except (ValueError, RecursionError) as exc:
                self._incoming.dropped(exc)
                void += [ref, value]
                continue
            in_grace = int(now) < dropped_at + self._grace * 1000
            if in_grace if entry.dropped else entry.node in alive:
                found.append(entry)
            elif entry.dropped or settled:
                void += [ref, value]
        if void:
            await publisher.call(self._scripts.remove.call([key], *void))
        if own is not None and own is self._own.get(room) and own.turn == turn:
            self.forget(room, [each.ref for each in found if each.node != self._node])
        return found

    def forget(self, room: str, refs: Collection[str]) -> None:
        """Take notice that entries are not this node's any more."""
        own = self._own.get(room)
        if own is None:
            return
        for ref in refs:
            own.refs.pop(ref, None)
        if not own.refs:
            del self._own[room]
            self._upkeep.release(self._keys(room)[0])

    async def aclose(self) -> None:
        """Withdraw what is not dropped.

        Raises:
            BrokerError: some of it is not withdrawn.
        """
        leaving = {room: [ref for ref, dropped in own.refs.items() if not dropped] for room, own in self._own.items()}
        outcomes: list[Any] = await asyncio.gather(
            *(self.withdraw(room, refs) for room, refs in leaving.items()), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BrokerError):
                raise outcome

    def _note(self, room: str, key: bytes, refs: Mapping[str, bool]) -> Sequence[str]:
        """Note entries as this node's, and return those that are new."""
        own = self._own.get(room)
        if own is None:
            own = self._own[room] = _Own()
            self._upkeep.hold(key, self._ttl, pack("PEXPIRE", key, self._life))
        new = [ref for ref in refs if ref not in own.refs]
        own.refs.update(refs)
        own.turn += 1
        return new

    def _keys(self, room: str) -> tuple[bytes, bytes]:
        return self._names.key("entries", room), self._names.channel("room", room)


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield items in lots that Redis is not held up by."""
    for begin in range(0, len(items), _MOST_AT_ONCE):
        yield items[begin : begin + _MOST_AT_ONCE]
