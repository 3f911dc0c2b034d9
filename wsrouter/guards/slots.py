"""Places that are counted on all nodes together: slots of the hub's broker."""

import asyncio
import json
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from wsrouter.brokers.base import Broker, Publication, Slot
from wsrouter.connection import ServerConnection
from wsrouter.errors import BrokerError, ConfigurationError
from wsrouter.hub import Hub
from wsrouter.tasks import shielded

REPLACED: Final = 4409
REPLACED_REASON: Final = "replaced by another connection"

_limits: Final[WeakKeyDictionary[Hub, "dict[str, Slots]"]] = WeakKeyDictionary()
"""Those that count on a hub, by name."""


class Slots:
    """The slots that the connections of this process hold of one limit.

    Args:
        name: of the limit, the same on all nodes.
        replaces: whether the oldest connection of a user has to go for a new one.
    """

    def __init__(self, name: str, *, replaces: bool) -> None:
        self._name = name
        self._replaces = replaces
        self._held: dict[ServerConnection, list[str]] = {}

    def claim(self, hub: Hub) -> None:
        """Count on a hub from now on.

        Raises:
            ConfigurationError: another limit of this name counts there.
        """
        if _limits.setdefault(hub, {}).setdefault(self._name, self) is not self:
            raise ConfigurationError(
                f"two ConnectionLimit(everywhere=True) on one hub would count together; give each a name= of its own"
                f" besides {self._name!r}"
            )

    async def take(self, hub: Hub, connection: ServerConnection, kind: str, of: Hashable, most: int) -> Slot:
        """Take a slot for a connection; who had to go for it is closed, on whatever node.

        Args:
            hub: whose broker counts.
            connection: who needs it.
            kind: what is counted.
            of: whose slots they are: the id of the user, where one may have to go.
            most: how many there are.

        Raises:
            BrokerError: it is not known whether there was one, or who had to go does not know it.
            ConfigurationError: see `claim`.
        """
        self.claim(hub)
        await hub.node.start()
        # No two limits, users or addresses give the same text, whatever is in them.
        name = json.dumps([self._name, kind, of if isinstance(of, str | None) else str(of)])
        self._held.setdefault(connection, []).append(name)  # also if this is cancelled, and nobody knows
        try:
            slot = await hub.node.broker.acquire(name, connection.id, most, replace=self._replaces)
        except BrokerError:
            self._held[connection].remove(name)
            raise
        if not slot.held:
            self._held[connection].remove(name)
        if slot.replaced is not None:
            order = Publication("disconnect", str(of), REPLACED_REASON, code=REPLACED, only=frozenset({slot.replaced}))
            await hub.node.publish(order)
        return slot

    async def give_back(self, hub: Hub, connection: ServerConnection) -> None:
        """Give back what a connection holds, also if the task is being cancelled."""
        held = self._held.pop(connection, None)
        if held:
            with suppress(TimeoutError):  # the broker was told, and gives them back as soon as it can
                await shielded(_release(hub.node.broker, held, connection.id), connection.limits.close)


async def _release(broker: Broker, names: Iterable[str], holder: str) -> None:
    await asyncio.gather(*(broker.release(name, holder) for name in names))
