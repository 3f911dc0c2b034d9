"""The servers that keys and channels are on."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from wsrouter.brokers.redis.link import Link
from wsrouter.brokers.redis.publisher import Publisher
from wsrouter.brokers.redis.reader import Reader

T = TypeVar("T")


class Servers(ABC, Generic[T]):
    """Finds the link to the server that a key or a channel is on."""

    @abstractmethod
    async def open(self) -> None:
        """Open the links; where that can't be done in time, go on trying."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close them."""

    @property
    @abstractmethod
    def up(self) -> bool:
        """Whether all that is needed answers."""

    @property
    @abstractmethod
    def since(self) -> float:
        """When it began to."""

    @property
    @abstractmethod
    def links(self) -> Collection[Link[T]]:
        """All links."""

    @abstractmethod
    def of(self, key: bytes) -> Link[T]:
        """Return the link to the server of a key or a channel.

        Raises:
            BrokerError: there is none.
        """

    @abstractmethod
    def subject(self, channel: bytes) -> T | None:
        """Return what a channel stands for; ``None`` if it is not subscribed to."""

    @abstractmethod
    def unsubscribe(self, channel: bytes) -> None:
        """Be subscribed to a channel no longer; nothing happens if it is not."""

    def publisher(self, key: bytes) -> Publisher:
        """Return what sends commands about a key or a channel.

        Raises:
            BrokerError: there is none.
        """
        return self.of(key).publisher

    def reader(self, channel: bytes) -> Reader[T]:
        """Return what subscribes to a channel.

        Raises:
            BrokerError: there is none.
        """
        return self.of(channel).reader


class OneServer(Servers[T]):
    """All is on one server.

    Args:
        link: to it.
        timeout: seconds to open it in.
        channels: that are subscribed to from the beginning, each with what it stands for.
        own: the one of them where heartbeats are published.
    """

    def __init__(self, link: Link[T], timeout: float, channels: Mapping[bytes, T], own: bytes) -> None:
        self._link = link
        self._timeout = timeout
        link.channel = own
        link.reader.adopt(channels)

    async def open(self) -> None:
        self._link.open()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._link.tried()

    async def aclose(self) -> None:
        await self._link.aclose()

    @property
    def up(self) -> bool:
        return self._link.up

    @property
    def since(self) -> float:
        return self._link.since

    @property
    def links(self) -> Collection[Link[T]]:
        return (self._link,)

    def of(self, key: bytes) -> Link[T]:
        return self._link

    def subject(self, channel: bytes) -> T | None:
        return self._link.reader.channels.get(channel)

    def unsubscribe(self, channel: bytes) -> None:
        self._link.reader.unsubscribe(channel)
