"""The servers that keys and channels are on."""

from abc import ABC, abstractmethod
from collections.abc import Collection
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
    def links(self) -> Collection[Link[T]]:
        """All links."""

    @abstractmethod
    def of(self, key: bytes) -> Link[T]:
        """Return the link to the server of a key or a channel.

        Raises:
            BrokerError: there is none.
        """

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
    """All is on one server."""

    def __init__(self, link: Link[T]) -> None:
        self._link = link

    async def open(self) -> None:
        await self._link.open()

    async def aclose(self) -> None:
        await self._link.aclose()

    @property
    def links(self) -> Collection[Link[T]]:
        return (self._link,)

    def of(self, key: bytes) -> Link[T]:
        return self._link
