"""A publication, and how to find out what became of it."""

import time
from typing import Literal

from pydantic import BaseModel

from tests.cluster.settings import USER
from wsrouter import BrokerError, Hub, Message


class Publish(Message):
    """Asks for a publication, to a room or to a user."""

    target: str
    publisher: str
    number: int
    pad: str = ""
    excludes: str | None = None
    """The user that does not get it."""


class Note(Message):
    """A publication."""

    publisher: str
    number: int
    pad: str = ""


class Outcome(BaseModel):
    """What became of a publication."""

    outcome: Literal["acknowledged", "refused", "unknown"]
    took: float
    """Seconds that the handler waited for it."""


async def publish(hub: Hub, target: str, note: Note, excludes: str | None = None) -> Outcome:
    """Publish to a room or a user, and tell what came of it."""
    began = time.monotonic()
    outcome: Literal["acknowledged", "refused", "unknown"] = "acknowledged"
    try:
        if target.startswith(USER):
            await hub.send_to_user(target.removeprefix(USER), note)
        else:
            await hub.broadcast(target, note, exclude_users=() if excludes is None else excludes)
    except BrokerError as error:
        outcome = "unknown" if error.outcome_unknown else "refused"
    return Outcome(outcome=outcome, took=time.monotonic() - began)
