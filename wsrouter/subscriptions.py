"""What this process gets from the broker: a name is subscribed to while somebody needs it."""

import asyncio

from wsrouter.brokers.base import Broker, Target
from wsrouter.history import History


class _Subscription:
    __slots__ = ("asked", "changing", "made", "needed")

    def __init__(self) -> None:
        self.needed = 0
        """By how many connections."""
        self.asked = False
        """Whether the broker may have it."""
        self.made = False
        """Whether the broker has it for certain."""
        self.changing = asyncio.Lock()

    def idle(self) -> bool:
        return not self.needed


class Subscriptions:
    """Subscribes for the first that needs a name, and unsubscribes after the last.

    Args:
        broker: where.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._subscriptions: dict[tuple[Target, str], _Subscription] = {}

    async def hold(self, target: Target, name: str, history: History | None = None) -> None:
        """Need a name. When it returns, nothing that is published to it from then on is missed.

        It is not needed any more if this raises or is cancelled; others who need it are not touched by that.
        """
        subscription = self._subscriptions.get((target, name))
        if subscription is None:
            subscription = self._subscriptions[target, name] = _Subscription()
        subscription.needed += 1
        if subscription.made and not subscription.changing.locked():
            return
        try:
            async with subscription.changing:
                if not subscription.made:
                    subscription.asked = True
                    await self._broker.subscribe(target, name, history)
                    subscription.made = True
        except BaseException:
            await self.release(target, name)
            raise

    async def release(self, target: Target, name: str) -> None:
        """Need a name no longer; nothing happens if nobody does."""
        subscription = self._subscriptions.get((target, name))
        if subscription is None:
            return
        subscription.needed -= 1
        if not subscription.idle():
            return
        async with subscription.changing:
            if not subscription.idle():  # somebody came meanwhile
                return
            try:
                if subscription.asked:
                    subscription.asked = subscription.made = False
                    await self._broker.unsubscribe(target, name)
            finally:
                if subscription.idle() and self._subscriptions.get((target, name)) is subscription:
                    del self._subscriptions[target, name]

    def __len__(self) -> int:
        return len(self._subscriptions)
