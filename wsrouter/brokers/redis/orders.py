"""Orders to disconnect a user: published, and kept for nodes that subscribe to the user later."""

import asyncio
from collections.abc import Iterable
from math import ceil
from secrets import token_urlsafe
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.payloads import Payloads
from wsrouter.brokers.redis.scripts import Scripts
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import MOST_ORDERS, ORDERS_KEPT, Incoming, Subscription
from wsrouter.errors import BrokerError

_MOST_AT_ONCE: Final = 200


class Orders:
    """Publishes orders, and takes those that are kept.

    Args:
        names: of the keys.
        payloads: of this node.
        scripts: that are used.
        servers: where.
        incoming: what takes them.
    """

    def __init__(
        self, names: Names, payloads: Payloads, scripts: Scripts, servers: Servers[Subscription], incoming: Incoming
    ) -> None:
        self._names = names
        self._payloads = payloads
        self._scripts = scripts
        self._servers = servers
        self._incoming = incoming
        self._unknown: dict[Subscription, None] = {}
        """Users of whom an order may have been missed."""
        self._wanted = asyncio.Event()

    async def publish(self, order: Publication) -> None:
        """Disconnect a user here, and then everywhere.

        Raises:
            BrokerError: other nodes did not hear of it, or may not have.
        """
        id = token_urlsafe(9)
        channel = self._names.channel("user", order.name)
        payload = self._payloads.disconnect(order, id)
        subscription = self._servers.subject(channel)
        if subscription is not None:
            self._incoming.order(subscription, id, order)
        await self._servers.publisher(channel).call(
            self._scripts.disconnect.call(
                [self._keys(order.name)[bool(order.only)], channel], payload, ceil(ORDERS_KEPT * 1000), MOST_ORDERS
            )
        )

    async def take(self, subscription: Subscription) -> None:
        """Take the orders that are kept of a user.

        Raises:
            BrokerError: they are not known.
        """
        keys = self._keys(subscription.name)
        calls = (self._servers.publisher(key).call(self._scripts.orders.call([key])) for key in keys)
        for now, entries in await asyncio.gather(*calls):
            self._incoming.kept_orders(subscription, int(now), entries)

    def missed(self, subscriptions: Iterable[Subscription]) -> None:
        """Have the orders taken that may have been missed."""
        self._unknown.update(dict.fromkeys(subscriptions))
        self._wanted.set()

    def again(self) -> None:
        """Try again to take those that could not be taken."""
        if self._unknown:
            self._wanted.set()

    async def run(self) -> None:
        """Take what was missed, until this is cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            subscriptions = [*self._unknown]
            for begin in range(0, len(subscriptions), _MOST_AT_ONCE):
                await asyncio.gather(*map(self._take_missed, subscriptions[begin : begin + _MOST_AT_ONCE]))

    async def _take_missed(self, subscription: Subscription) -> None:
        try:
            await self.take(subscription)
        except BrokerError:
            return  # `again` comes with the next heartbeat
        self._unknown.pop(subscription, None)

    def _keys(self, user: str) -> tuple[bytes, bytes]:
        """Return where orders about a whole user are kept, and those about some connections.

        However many make room for another one, they don't take the place of an order to leave for good.
        """
        return self._names.key("orders", user), self._names.key("replacements", user)
