"""Stores what users should know, and brings it to their devices."""

import logging
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from examples.notifications import storage
from examples.notifications.messages import MOST, Inbox, Notified, WereRead
from wsrouter import BrokerError, Hub, Message

logger = logging.getLogger(__name__)


class Notifier:
    """The same in a handler, in an HTTP route and in the worker.

    Args:
        hub: through which devices hear.
        sessions: makes sessions of the database.
    """

    def __init__(self, hub: Hub, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._hub = hub
        self._sessions = sessions

    async def notify(self, user: str, text: str, *, key: str, sender: str = "") -> None:
        """Store a notification, then send it to every device of the user.

        It may be done again with the same ``key``: it is stored once.
        """
        async with self._sessions() as session:
            stored = await storage.store(session, user=user, key=key, sender=sender, text=text)
        await self._tell(user, _notified(stored))

    async def mark_read(self, user: str, ids: Sequence[int]) -> None:
        """Mark notifications as read, and tell every device of the user."""
        async with self._sessions() as session:
            await storage.mark_read(session, user, ids)
        await self._tell(user, WereRead(ids=[*ids]))

    async def inbox(self, user: str) -> Inbox:
        """Return the newest notifications."""
        async with self._sessions() as session:
            newest = await storage.newest(session, user, MOST)
        return Inbox(you=user, notifications=[_notified(each) for each in newest])

    async def _tell(self, user: str, message: Message) -> None:
        try:
            await self._hub.send_to_user(user, message)
        except BrokerError as error:
            # It is stored. Devices on other nodes get a `$gap` when the broker is back, and load.
            logger.warning("The devices of a user hear later: %s", error)


def _notified(stored: storage.Notification) -> Notified:
    return Notified.model_validate(stored, from_attributes=True)
