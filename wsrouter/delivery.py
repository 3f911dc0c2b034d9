"""Who of this process gets what comes from the broker."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from wsrouter.brokers.base import Publication, Target
from wsrouter.codecs import dump
from wsrouter.connection import ServerConnection
from wsrouter.departures import Departures
from wsrouter.fanout import Cork
from wsrouter.following import Caught
from wsrouter.joining import Joining
from wsrouter.replay import joined, prepared, run_of, skipped
from wsrouter.rooms import Rooms
from wsrouter.rules import RoomOptions
from wsrouter.runs import Prepared
from wsrouter.writer import Shared

logger = logging.getLogger("wsrouter")

STATE_LOST: Final = 4510
SLICE_SECONDS: Final = 0.005
"""So long holes are told of before the event loop gets its turn."""
LOOK_EVERY: Final = 64
"""After so many the clock is looked at."""
LOG_EVERY: Final = 10.0
"""Seconds between two lines about what was dropped."""
_UNKNOWN: Final = dump({"dropped": None})


class Delivery:
    """Hands publications to connections, and tells them where some are missing. Synchronous.

    Args:
        options: finds the options of a room.
    """

    def __init__(self, options: Callable[[str], RoomOptions]) -> None:
        self.connections: dict[str, ServerConnection] = {}
        """Those that were accepted, by id."""
        self.users: Rooms[ServerConnection] = Rooms()
        self.rooms: Rooms[ServerConnection] = Rooms()
        self.joining = Joining()
        self.departures = Departures()
        self.shared = Shared()
        self.cork = Cork(self.shared)
        self.published = 0
        self.delivered = 0
        self.announced = 0
        """How often the members of a room, or the connections of a user, were told that something is missing."""
        self._options = options
        self._untold: set[tuple[Target, str]] = set()
        """Rooms and users that are still to be told of a hole, before anything else."""
        self._dropped_at = -LOG_EVERY

    def to_room(self, publication: Publication) -> None:
        """Hand a publication to the members of a room; what has a place in the stream, in the order of that."""
        self.published += 1
        if self._untold:
            self._tell_first("room", publication.name)
        if publication.offset is not None:
            self.joining.take(publication.name, publication)
        room = self.rooms.get(publication.name)
        if room is None:
            return
        options = self._options(publication.name)
        if options.raw is (publication.frame is None):
            self._drop(publication)
            return
        excluded = {each for id in publication.exclude if (each := self.connections.get(id)) is not None}
        for user in publication.exclude_users:
            excluded.update(self.users.members(user))
        self.delivered += self.cork.publish(
            room, prepared(publication), options.overflow, compress=options.compress, excluded=excluded
        )
        if publication.offset is not None and excluded:
            skips = run_of([skipped(publication)], publication.name)
            self.cork.send(skips, [each for each in excluded if each in room.members])

    def to_user(self, publication: Publication) -> None:
        """Hand a publication to the connections of a user that speak the envelope."""
        self.published += 1
        if self._untold:
            self._tell_first("user", publication.name)
        user = self.users.get(publication.name)
        if user is None:
            return
        if publication.frame is not None:
            self._drop(publication)
            return
        others = {each for each in user.members if each.raw or each.id not in self.connections}
        self.delivered += self.cork.publish(user, prepared(publication), "disconnect", excluded=others)

    def _drop(self, publication: Publication) -> None:
        """Drop what a process published that takes a room for raw which is none here, or the other way round."""
        now = monotonic()
        if now - self._dropped_at >= LOG_EVERY:
            self._dropped_at = now
            sort = "no raw frame" if publication.frame is None else "a raw frame"
            text = "Dropped what was published to the %s %r: it is %s; all processes need the same Hub(rooms=)"
            logger.warning(text, publication.target, publication.name, sort)

    def disconnect(self, publication: Publication) -> None:
        """Close the connections of a user that had begun when it was ordered; those that are not known yet, too."""
        self.published += 1
        user = publication.name
        self.departures.note(user, publication.code, publication.type, only=publication.only, age=publication.age)
        for connection in self.users.members(user):
            self.departures.apply(connection, user)

    def catch_up(self, room: str, caught: Caught) -> None:
        """Hand what was missed to the members of a room, and to those on their way; or tell them that they can't."""
        if caught.restart is not None:
            self.joining.take(room, caught.restart)
            members = self.rooms.get(room)
            if members is not None:
                self.announced += 1
                self.cork.publish(members, joined(room, caught.restart), "disconnect")
        for publication in caught.publications:
            self.to_room(publication)

    def tell_of_gaps(self, names: Iterable[tuple[Target, str]]) -> None:
        """Tell the members of rooms without history, and connections of users, that something may be missing.

        In a raw room there is no frame that could tell it: its members are closed. Of many names some are told of in
        later turns of the event loop, but before anything else that they get.
        """
        self._untold.update(names)
        self._tell_all()

    def _tell_all(self) -> None:
        until = monotonic() + SLICE_SECONDS
        while self._untold:
            for _ in range(min(LOOK_EVERY, len(self._untold))):
                self._tell(*self._untold.pop())
            if monotonic() > until and self._untold:
                asyncio.get_running_loop().call_soon(self._tell_all)
                return

    def _tell_first(self, target: Target, name: str) -> None:
        if (target, name) in self._untold:
            self._untold.remove((target, name))
            self._tell(target, name)

    def _tell(self, target: Target, name: str) -> None:
        here = (self.rooms if target == "room" else self.users).get(name)
        if here is None:
            return
        if target == "room" and self._options(name).raw:
            self.announced += 1
            for each in tuple(here.members):
                each.start_close(STATE_LOST, "messages may be missing")
            return
        room = name if target == "room" else None
        told = [each for each in here.members if not each.raw and each.id in self.connections]
        if told:
            self.announced += 1
            gap = run_of([Prepared("$gap", _UNKNOWN, room)], room)
            gap.tells_of_gap = True
            self.cork.send(gap, told)
