"""What the page and the server say to each other over the socket."""

from typing import Annotated

from pydantic import Field

from wsrouter import Message

MOST = 100
"""Notifications that a device shows: the newest."""


class Notified(Message, type="notification"):
    """Something to know. It may come twice; ``id`` tells.

    Attributes:
        id: Grows with every notification.
        sender: Name of who sent it; empty for the server.
        at: When it was stored, in milliseconds since 1970, UTC.
        read: Whether it was read, on any device.
    """

    id: int
    sender: str
    text: str
    at: int
    read: bool


class Inbox(Message):
    """The newest notifications, newest first: what a device that connects is sent, and what ``load`` answers.

    Attributes:
        you: Name of the user.
    """

    you: str
    notifications: list[Notified]


class Load(Message):
    """Ask for the inbox again, because something may be missing."""


class MarkRead(Message):
    """Mark notifications as read, for all devices of the user."""

    ids: Annotated[list[Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1, max_length=MOST)]


class WereRead(Message):
    """Notifications were read, on this device or another. It may come before the notifications themselves."""

    ids: list[int]
