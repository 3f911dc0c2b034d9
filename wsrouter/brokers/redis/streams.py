"""The streams of rooms with history, as Redis keeps them."""

import asyncio
from itertools import count
from math import ceil
from secrets import token_urlsafe
from typing import Any

from wsrouter.brokers.base import Publication
from wsrouter.brokers.redis.connections import Part
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.payloads import Payloads, kept_publication
from wsrouter.brokers.redis.publisher import Publisher
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.subscriptions import Incoming, Subscription
from wsrouter.errors import BrokerError
from wsrouter.history import MAX_RECOVERED, NOWHERE, History, Position, Recovery

_LIFE = 1.5
"""For how many times its history's ``ttl`` a stream is kept after it was used last. Who is subscribed uses it every
half of one, so that it is there for a whole one after the last member left."""


class RedisStreams:
    """Publishes to rooms with history, and recovers from them.

    Args:
        names: of the keys.
        payloads: of this node.
        scripts: that are used.
        incoming: where payloads are dropped.
        timeout: seconds that a publication may take.
    """

    def __init__(self, names: Names, payloads: Payloads, scripts: Scripts, incoming: Incoming, timeout: float) -> None:
        self._names = names
        self._payloads = payloads
        self._scripts = scripts
        self._incoming = incoming
        self._timeout = timeout
        self._epochs = token_urlsafe(9)
        self._epoch_numbers = count()

    async def publish(
        self,
        publisher: Publisher,
        channel: bytes,
        publication: Publication,
        history: History,
        subscription: Subscription | None,
    ) -> None:
        """Keep a publication and publish it, in one step; return when it was delivered to who is subscribed here.

        Raises:
            BrokerError: it is not done, or not known.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        keys = self._keys(publication.name)
        payload = self._payloads.message(publication)
        arguments = self._arguments(publisher, history)
        epoch, offset = await publisher.call(
            self._scripts.publish.call([*keys, channel], *arguments, history.size, payload)
        )
        position = Position(epoch.decode(), offset)
        if subscription is None or subscription.history is None or subscription.has(position):
            return
        try:
            async with asyncio.timeout_at(deadline):
                await subscription.reaches(position)
        except TimeoutError:
            raise BrokerError(
                f"{position} was published, but did not come here within {self._timeout:g} s", outcome_unknown=True
            ) from None

    async def recover(
        self, publisher: Publisher, room: str, history: History, since: Position | None
    ) -> Recovery[Publication]:
        """Return what is missed by who stands at ``since``.

        Raises:
            BrokerError: it is not known.
        """
        at = since or NOWHERE
        arguments = self._arguments(publisher, history)
        reply: list[Any] = await publisher.call(
            self._scripts.recover.call(self._keys(room), *arguments, at.epoch, at.offset, MAX_RECOVERED)
        )
        epoch, offset, recovered = reply[0].decode(), reply[1], reply[2] == 1
        if not recovered:
            return Recovery(epoch, offset, False)
        try:
            missed = tuple(
                kept_publication(entry, room, Position(epoch, at.offset + number))
                for number, entry in enumerate(reply[3:], 1)
            )
        except (ValueError, RecursionError) as exc:
            self._incoming.dropped(exc)
            return Recovery(epoch, offset, False)
        return Recovery(epoch, at.offset, True, missed)

    def _keys(self, room: str) -> list[bytes]:
        return [self._names.key("stream", room), self._names.key("kept", room)]

    def _arguments(self, publisher: Publisher, history: History) -> list[Part]:
        new_epoch = f"{publisher.run}-{self._epochs}{next(self._epoch_numbers):x}"
        return [publisher.run, new_epoch, ceil(history.ttl * 1000), ceil(history.ttl * 1000 * _LIFE)]
