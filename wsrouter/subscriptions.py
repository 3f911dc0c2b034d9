"""What this process gets from the broker: a name is subscribed to while somebody needs it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from wsrouter.brokers.base import Broker, Target
from wsrouter.following import Follower
from wsrouter.history import History

logger = logging.getLogger("wsrouter")


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
        ended: called with a name when nothing of it is heard any more.
    """

    def __init__(self, broker: Broker, ended: Callable[[Target, str], None] = lambda target, name: None) -> None:
        self._broker = broker
        self._ended = ended
        self.followers: dict[str, Follower] = {}
        """Of each room with history that is subscribed to."""
        self._subscriptions: dict[tuple[Target, str], _Subscription] = {}

    async def hold(
        self,
        target: Target,
        name: str,
        history: History | None = None,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Need a name. When it returns, nothing that is published to it from then on is missed.

        It is not needed any more if this raises or is cancelled; others who need it are not touched by that.

        Args:
            target: what it is the name of.
            name: of a room or a user.
            history: of a room that has one.
            prepare: called once it is subscribed to, before anybody has it.
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
                    if history is not None:
                        self.followers[name] = Follower()
                    await self._broker.subscribe(target, name, history)
                    if prepare is not None:
                        await prepare()
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
                    if target == "room":
                        self.followers.pop(name, None)
                    self._ended(target, name)
                    await self._broker.unsubscribe(target, name)
            finally:
                if subscription.idle() and self._subscriptions.get((target, name)) is subscription:
                    del self._subscriptions[target, name]

    async def release_all(self, names: Sequence[tuple[Target, str]]) -> None:
        """Need some names no longer: all of them, whatever happens to one. A failure is logged."""
        if self._broker.local or len(names) < 2:
            for name in names:
                try:
                    await self.release(*name)
                except Exception as exc:
                    _failed(*name, exc)
            return
        # At once: where the broker is away, none waits for the deadlines of the others.
        ends = await asyncio.gather(*(self.release(*name) for name in names), return_exceptions=True)
        for name, end in zip(names, ends, strict=True):
            if isinstance(end, Exception):
                _failed(*name, end)

    def __len__(self) -> int:
        return len(self._subscriptions)


def _failed(target: Target, name: str, exc: Exception) -> None:
    logger.error("Unsubscribing from the %s %r failed", target, name, exc_info=exc)
