"""What all processes of a cluster have in common, and what differs."""

from typing import Final

from pydantic import BaseModel

from wsrouter import History, Hub, RoomOptions
from wsrouter.brokers.redis import RedisBroker

VARIABLE: Final = "WSROUTER_CLUSTER"
"""The variable of the environment that has a process's `Settings`, as JSON."""

ROOMS: Final = {
    "history:*": RoomOptions(history=History(size=300)),
    "tight:*": RoomOptions(history=History(size=10)),
    "here:*": RoomOptions(presence=True),
}
"""Rooms of other names have neither history nor presence."""

USER: Final = "user:"
"""What the name of a target begins with that is a user, and no room."""


def keeps(target: str) -> bool:
    """Tell whether a target is a room with history."""
    return target.startswith(("history:", "tight:"))


class Settings(BaseModel):
    """The options of a process."""

    url: str
    """Where it reaches Redis."""

    ttl: float = 60.0
    heartbeat: float = 2.0
    presence_grace: float = 15.0

    def hub(self) -> Hub:
        """Return a hub with these options."""
        broker = RedisBroker(self.url, ttl=self.ttl, heartbeat=self.heartbeat)
        return Hub(broker, rooms=ROOMS, presence_grace=self.presence_grace)
