"""Where other nodes have to be told that they missed something, because it could not be published."""

import asyncio
from functools import partial
from typing import Any, Final

from wsrouter.brokers.redis.connections import pack
from wsrouter.brokers.redis.servers import Servers
from wsrouter.brokers.redis.subscriptions import Subscription
from wsrouter.errors import BrokerError

_MOST: Final = 1_000
"""Channels that are remembered; beyond that all nodes are told of one hole in all their rooms."""


class Holes:
    """Channels that something could not be published to.

    Args:
        servers: where.
        everyone: channel of all nodes.
        payload: what tells of a hole.
    """

    def __init__(self, servers: Servers[Subscription], everyone: bytes, payload: bytes) -> None:
        self._servers = servers
        self._everyone = everyone
        self._payload = payload
        self._channels: set[bytes] = set()

    def add(self, channel: bytes) -> None:
        """Note that something was not published to a channel, or may not have been."""
        if self._everyone not in self._channels:
            self._channels.add(channel)
            if len(self._channels) > _MOST:
                self._channels = {self._everyone}

    def tell(self) -> None:
        """Tell of all of them, where Redis is there; what fails is told the next time."""
        channels, self._channels = self._channels, set()
        for channel in channels:
            self._tell(channel)

    def tell_before(self, channel: bytes) -> None:
        """Tell of a hole that comes before what is published to a channel next; nothing happens if there is none."""
        for each in {channel, self._everyone} & self._channels:
            self._channels.remove(each)
            self._tell(each)

    def _tell(self, channel: bytes) -> None:
        try:
            link = self._servers.of(channel)
        except BrokerError:
            self.add(channel)
            return
        if not link.publisher.up:
            self.add(channel)
            return
        told = link.publisher.send(pack(link.publish, channel, self._payload))
        told.add_done_callback(partial(self._told, channel))

    def _told(self, channel: bytes, done: "asyncio.Future[Any]") -> None:
        if done.cancelled() or done.exception() is not None:
            self.add(channel)

    def __len__(self) -> int:
        return len(self._channels)
