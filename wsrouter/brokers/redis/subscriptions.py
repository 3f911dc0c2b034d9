"""What this node is subscribed to, and what becomes of what is published there."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from time import monotonic
from typing import Final

from wsrouter.brokers.base import Publication, Receiver, Target
from wsrouter.brokers.redis.payloads import Payloads, entries_of, kept, order_of, publication_of, read, refs_of
from wsrouter.history import History, Position

logger: Final = logging.getLogger("wsrouter")

ORDERS_KEPT: Final = 60.0
"""Seconds that an order to disconnect is kept."""

MOST_ORDERS: Final = 32
"""Orders to disconnect that are kept of one user."""

_LOG_EVERY: Final = 10.0
"""Seconds between two lines about payloads that were dropped."""


class Subscription:
    """A room or a user that this node is subscribed to, or a channel of the nodes' own."""

    __slots__ = ("at", "channel", "history", "name", "orders", "target", "waiting")

    def __init__(self, channel: bytes, target: Target | None, name: str, history: History | None = None) -> None:
        self.channel = channel
        self.target: Target | None = target
        """``None`` for a channel of the nodes' own."""
        self.name = name
        self.history = history
        self.at: Position | None = None
        """In a room with history: what was delivered last."""
        self.waiting: deque[tuple[Position, asyncio.Future[None]]] | None = None
        """Who waits until something was delivered."""
        self.orders: deque[str] | None = None
        """Of a user: the orders to disconnect that were delivered."""

    def has(self, position: Position) -> bool:
        """Whether a publication was delivered."""
        return self.at is not None and self.at.epoch == position.epoch and self.at.offset >= position.offset

    def reaches(self, position: Position) -> "asyncio.Future[None]":
        """Return what is done when a publication was delivered, or is known to be lost.

        Who waits in a stream does so in the order of its offsets.
        """
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append((position, reached))
        return reached

    def moved(self, position: Position) -> None:
        """Note what was delivered."""
        if self.at is not None and self.at.epoch != position.epoch:
            self.was_lost()  # nothing of the stream before comes any more
        self.at = position
        waiting = self.waiting
        while waiting and (waiting[0][1].done() or self.has(waiting[0][0])):
            _, reached = waiting.popleft()
            if not reached.done():
                reached.set_result(None)

    def was_lost(self) -> None:
        """Let nobody wait any more: what they wait for is recovered in another way."""
        self.at = None
        for _, reached in self.waiting or ():
            if not reached.done():
                reached.set_result(None)
        self.waiting = None


class Incoming:
    """Hands over what is published.

    Args:
        payloads: of this node, to know what it published itself.
        receiver: who gets it.
        beat: called with the number of a heartbeat of this node.
        missed_anywhere: called when another node could not publish somewhere.
        others_have: called with a room and refs that are another node's now, or left.
    """

    def __init__(
        self,
        payloads: Payloads,
        receiver: Receiver,
        *,
        beat: Callable[[int], None],
        missed_anywhere: Callable[[], None],
        others_have: Callable[[str, Collection[str]], None],
    ) -> None:
        self._payloads = payloads
        self._receiver = receiver
        self._beat = beat
        self._missed_anywhere = missed_anywhere
        self._others_have = others_have
        self._dropped = 0
        self._told_at = -_LOG_EVERY
        self.gaps = 0
        """How often something may have been lost."""

    def take(self, subscription: Subscription, payload: bytes) -> None:
        """Take what was published to what this node is subscribed to."""
        own = self._payloads.is_own(payload)
        if own and subscription.target is not None:
            return  # it was delivered when it was published
        try:
            if own:
                self._own(payload)
            elif subscription.target is None:
                self._of_all(payload)
            else:
                self._hand_over(subscription, subscription.target, payload)
        except (ValueError, RecursionError) as exc:
            self.dropped(exc)

    def _own(self, payload: bytes) -> None:
        header, _ = read(payload)
        if header["k"] == "beat":
            self._beat(header["o"])

    def _of_all(self, payload: bytes) -> None:
        header, _ = read(payload)
        if header["k"] != "hole":
            raise ValueError(f"{header['k']!r} does not belong there")
        self._missed_anywhere()

    def _hand_over(self, subscription: Subscription, target: Target, payload: bytes) -> None:
        header, body = read(payload)
        name = subscription.name
        if header["k"] == "message":
            self._message(subscription, publication_of(header, body, target, name))
        elif header["k"] == "disconnect" and target == "user":
            self.order(subscription, header["id"], order_of(header, name))
        elif header["k"] == "hole":
            self.lost([subscription])
        elif header["k"] == "present" and target == "room":
            entries = entries_of(header["n"], body)
            self._others_have(name, [each.ref for each in entries])
            self._receiver.present(name, entries, ())
        elif header["k"] == "gone" and target == "room":
            refs = refs_of(body)
            self._others_have(name, refs)
            self._receiver.present(name, (), refs)
        else:
            raise ValueError(f"{header['k']!r} does not belong there")

    def _message(self, subscription: Subscription, publication: Publication) -> None:
        if publication.epoch is None or publication.offset is None:
            if subscription.history is not None:
                raise ValueError("a publication without a place in a room that has a history here")
            self._receiver.deliver(publication)
        elif subscription.history is None:  # the node that published has it configured in another way
            self._receiver.deliver(replace(publication, epoch=None, offset=None))
        else:
            self._receiver.deliver(publication)
            subscription.moved(Position(publication.epoch, publication.offset))

    def order(self, subscription: Subscription, id: str, order: Publication) -> None:
        """Take the order to disconnect a user, unless it came already."""
        if subscription.orders is None:
            subscription.orders = deque(maxlen=MOST_ORDERS)
        if id not in subscription.orders:
            subscription.orders.append(id)
            self._receiver.deliver(order)

    def kept_orders(self, subscription: Subscription, now: int, entries: Iterable[bytes]) -> None:
        """Take the orders that are kept of a user.

        Args:
            subscription: to the user.
            now: milliseconds of the clock that the entries have their time of.
            entries: what is kept.
        """
        for entry in entries:
            try:
                time, payload = kept(entry)
                header, _ = read(payload)
                if header["k"] != "disconnect":
                    raise ValueError(f"{header['k']!r} does not belong there")
            except (ValueError, RecursionError) as exc:
                self.dropped(exc)
            else:
                age = max(0, now - time) / 1000
                if age <= ORDERS_KEPT:
                    self.order(subscription, header["id"], order_of(header, subscription.name, age))

    def lost(self, subscriptions: Iterable[Subscription]) -> None:
        """Take notice that something may have been lost."""
        subscriptions = [*subscriptions]
        names: list[tuple[Target, str]] = [(each.target, each.name) for each in subscriptions if each.target]
        if names:
            self.gaps += 1
            self._receiver.lost(names)
        for subscription in subscriptions:
            subscription.was_lost()

    def dropped(self, why: Exception) -> None:
        """Say that a payload was dropped, once in ten seconds."""
        self._dropped += 1
        now = monotonic()
        if now - self._told_at >= _LOG_EVERY:
            logger.warning("Dropped %d payloads from Redis that are no node's: %s", self._dropped, _say(why))
            self._dropped, self._told_at = 0, now


def _say(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
