"""A device: one instance for each connection."""

from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide

from examples.notifications.container import Container
from examples.notifications.messages import Inbox, Load, MarkRead
from examples.notifications.notifier import Notifier
from wsrouter import WebSocketHandler, on


@dataclass
class Device(WebSocketHandler):
    """One of the devices of a user; what ``hub.send_to_user`` sends comes by itself."""

    notifier: Annotated[Notifier, Provide[Container.notifier]]

    async def on_connect(self) -> Inbox:
        # The hub has sent to this device since its user was known, so nothing is missed while this is read.
        return await self.notifier.inbox(self.user.id)

    @on
    async def load(self, message: Load) -> Inbox:
        return await self.notifier.inbox(self.user.id)

    @on
    async def mark_read(self, message: MarkRead) -> None:
        await self.notifier.mark_read(self.user.id, message.ids)
