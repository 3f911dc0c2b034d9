"""The streams of rooms with history, as Redis keeps them."""

import asyncio
from itertools import count
from math import ceil
from secrets import token_urlsafe
from typing import Any, Final

from wsrouter.brokers.base import Publication
from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import Part
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.payloads import Payloads, kept_publication
from wsrouter.brokers.redis.publisher import Publisher
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import Incoming, Subscription
from wsrouter.brokers.redis.upkeep import Upkeep
from wsrouter.errors import BrokerError
from wsrouter.history import MAX_RECOVERED, NOWHERE, History, Position, Recovery

_LIFE: Final = 1.65
"""For how many times its history's ``ttl`` a stream has to live when it is used. Who is subscribed uses it every half
of one, and Redis notes it every eighth: so it is there for a whole one after the last member left."""


class RedisStreams:
    """Publishes to rooms with history, and recovers from them.

    Args:
        names: of the keys.
        payloads: of this node.
        scripts: that are used.
        servers: where.
        incoming: where payloads are dropped.
        upkeep: of the keys.
        timeout: seconds that a publication may take.
    """

    def __init__(
        self,
        names: Names,
        payloads: Payloads,
        scripts: Scripts,
        servers: Servers[Subscription],
        incoming: Incoming,
        upkeep: Upkeep,
        timeout: float,
    ) -> None:
        self._names = names
        self._payloads = payloads
        self._scripts = scripts
        self._servers = servers
        self._incoming = incoming
        self._upkeep = upkeep
        self._timeout = timeout
        self._epochs = token_urlsafe(9)
        self._epoch_numbers = count()

    async def publish(self, publication: Publication, history: History) -> None:
        """Keep a publication and publish it, in one step; return when it was delivered to who is subscribed here.

        Raises:
            BrokerError: it is not done, or not known.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        keys = self._names.stream(publication.name)
        channel = keys[2]
        payload = self._payloads.message(publication)
        publisher = self._servers.publisher(channel)
        subscription = self._servers.subject(channel)
        arguments = self._arguments(publisher, history)
        epoch, offset = await publisher.send(self._scripts.publish.call(keys, *arguments, history.size, payload))
        position = Position(epoch.decode(), offset)
        if subscription is None or subscription.history is None or subscription.has(position):
            return
        reached = subscription.reaches(position)

        def fail() -> None:
            why = f"{position} was published, but did not come here within {self._timeout:g} s"
            if not reached.done():
                reached.set_exception(BrokerError(why, outcome_unknown=True))

        alarm = Alarm(max(0.0, deadline - loop.time()), fail)
        try:
            await reached
        finally:
            alarm.cancel()

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        """Return what is missed by who stands at ``since``.

        Raises:
            BrokerError: it is not known.
        """
        at = since or NOWHERE
        keys = self._names.stream(room)[:2]
        publisher = self._servers.publisher(keys[0])
        arguments = self._arguments(publisher, history)
        reply: list[Any] = await publisher.call(
            self._scripts.recover.call(keys, *arguments, at.epoch, at.offset, MAX_RECOVERED)
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

    def hold(self, room: str, history: History) -> None:
        """Have the stream of a room kept, if there is one."""
        keys = self._names.stream(room)[:2]
        ttl, life = self._times(history)
        self._upkeep.hold(keys[0], history.ttl / 2, self._scripts.touch.call(keys, "", "", ttl, life))

    def release(self, room: str) -> None:
        """Have it kept no longer than for others, and the history's ``ttl``."""
        self._upkeep.release(self._names.stream(room)[0])

    def _arguments(self, publisher: Publisher, history: History) -> list[Part]:
        new_epoch = f"{publisher.run}-{self._epochs}{next(self._epoch_numbers):x}"
        return [publisher.run, new_epoch, *self._times(history)]

    @staticmethod
    def _times(history: History) -> tuple[int, int]:
        return ceil(history.ttl * 1000), ceil(history.ttl * 1000 * _LIFE)
