"""Who is in one room, and when its members are told of it. Pure and synchronous."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wsrouter.members import ANONYMOUS, Device, Member, Meta, Notice, count, device_of, grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterOptions:
    """How presence behaves in time, and in big rooms. Times are seconds."""

    grace: float = 15.0
    """How long a device that was dropped stays, unless its user comes back before."""

    ttl: float = 60.0
    """How long an entry of another node stays after that node was heard of."""

    window: float = 0.1
    """Time from a change to the frame that tells of it, and of all others by then."""

    counted_window: float = 1.0
    """The same, while only the number is told."""

    most: int = 500
    """Devices above which only their number is told, until four fifths are left."""


DEFAULTS: Final = RosterOptions()


class Roster:
    """Who is in one room.

    Args:
        options: how it behaves.

    Of every method, ``now`` is seconds of a clock that does not go back.
    """

    __slots__ = (
        "_before",
        "_changed_at",
        "_counted",
        "_devices",
        "_dropped",
        "_options",
        "_refs",
        "_remote",
        "_state",
        "_users",
    )

    def __init__(self, options: RosterOptions) -> None:
        self._options = options
        self._devices: dict[str, Device] = {}
        self._users: dict[str, dict[str, None]] = {}
        """Mapping of user to the refs of their devices."""
        self._refs: dict[str, str] = {}
        """Mapping of connection to ref."""
        # Mappings of ref to deadline, both in order, since grace and ttl are the same for all.
        self._dropped: OrderedDict[str, float] = OrderedDict()
        self._remote: OrderedDict[str, float] = OrderedDict()
        self._before: dict[str, Device | None] = {}
        """What members were told of the devices that changed since."""
        self._changed_at: float | None = None
        self._counted = False
        self._state: Mapping[str, object] | None = None

    def add(self, connection: str, user: str | None, meta: Meta, now: float) -> None:
        """Add a connection, or change what is known of it.

        It takes the place of a device of the same user that was dropped and still has time; of several of one
        of which the same is known, and of the one that was dropped first.

        Args:
            connection: its id.
            user: id of its user, ``None`` for nobody.
            meta: what others see of it.

        Raises:
            ValueError: the user or ``meta`` can't be written as JSON, or ``meta`` has more than 1 KiB.
        """
        device = device_of(user, meta)
        self.expire(now)
        ref = self._refs.get(connection)
        if ref is None:
            ref = self._refs[connection] = self._returning(device) or secrets.token_urlsafe(9)
        self._put(ref, device, now)

    def remove(self, connection: str, now: float, *, abrupt: bool) -> None:
        """Remove a connection if it is there.

        Args:
            connection: its id.
            abrupt: it was dropped, so it stays for `RosterOptions.grace`, in which its user may come back. Nobody
                can tell who has no id and comes back: they are removed at once.
        """
        ref = self._refs.pop(connection, None)
        if ref is None:
            return
        if abrupt and self._devices[ref].user != ANONYMOUS:
            self._dropped[ref] = now + self._options.grace
        else:
            self._discard(ref, now)

    def hear(self, ref: str, user: str, meta: Meta, now: float) -> None:
        """Take up an entry of another node, or note that it is still there: for another `RosterOptions.ttl`.

        What is heard of an entry of this node is passed over.

        Raises:
            ValueError: the user or ``meta`` can't be written as JSON, or ``meta`` has more than 1 KiB.
        """
        device = device_of(user, meta)
        self.expire(now)
        if self._remote.pop(ref, None) is not None or ref not in self._devices:
            self._remote[ref] = now + self._options.ttl
            self._put(ref, device, now)

    def forget(self, ref: str, now: float) -> None:
        """Remove an entry of another node, if it is there."""
        if self._remote.pop(ref, None) is not None:
            self._discard(ref, now)

    def expire(self, now: float) -> None:
        """Remove those whose time is over."""
        for waiting in (self._dropped, self._remote):
            while waiting and waiting[ref := next(iter(waiting))] <= now:
                del waiting[ref]
                self._discard(ref, now)

    def take(self, now: float) -> Notice | None:
        """Return the frame for all members, if it is time and there is something to tell.

        However many come and go, there is one frame per `RosterOptions.window`. What is over within it is not told.
        """
        self.expire(now)
        if self.due is None or now < self.due:
            return None
        self._changed_at = None
        before, self._before = self._before, {}
        told, counted = self._state, self._counted
        most = self._options.most
        self._counted = len(self._devices) > (most * 4 // 5 if counted else most)
        if self._counted or counted:
            self._state = None
            state = self.state()
            return None if state == told else Notice("$presence", state)
        join: list[tuple[str, Device]] = []
        leave: list[tuple[str, Device]] = []
        for ref, was in before.items():
            is_now = self._devices.get(ref)
            if is_now is not None and is_now != was:
                join.append((ref, is_now))
            if was is not None and (is_now is None or is_now.user != was.user):
                leave.append((ref, was))
        if not join and not leave:
            return None
        self._state = None
        return Notice("$presence_diff", {"join": grouped(join), "leave": grouped(leave)})

    def state(self) -> Mapping[str, object]:
        """Return the data of the ``$presence`` frame for who joins now; the same object while it stays the same.

        It is as old as the last frame that `take` gave: the next one is for who joins now as well.
        """
        if self._state is None:
            if self._counted:
                self._state = {"count": self.count}
            else:
                now = [(ref, self._before.get(ref, device)) for ref, device in self._devices.items()]
                gone = [(ref, was) for ref, was in self._before.items() if ref not in self._devices]
                known = [(ref, was) for ref, was in (*now, *gone) if was is not None]
                members = grouped(known)
                self._state = {"count": count(members), "members": members}
        return self._state

    def members(self, now: float) -> list[Member]:
        """Return who is here now, those that were dropped and may come back included."""
        self.expire(now)
        members = grouped(self._devices.items())
        alone = members.pop(ANONYMOUS, {})
        return [
            *(Member(user, devices) for user, devices in members.items()),
            *(Member(ANONYMOUS, {ref: meta}) for ref, meta in alone.items()),
        ]

    @property
    def count(self) -> int:
        """Number of members: users, and connections of no user. As of the last call with a ``now``."""
        return count(self._users)

    @property
    def due(self) -> float | None:
        """When `take` has something to tell, ``None`` while nothing has changed."""
        window = self._options.counted_window if self._counted else self._options.window
        return None if self._changed_at is None else self._changed_at + window

    @property
    def expires_at(self) -> float | None:
        """When `expire` has something to do, ``None`` while there is nothing."""
        firsts = [waiting[next(iter(waiting))] for waiting in (self._dropped, self._remote) if waiting]
        return min(firsts, default=None)

    @property
    def empty(self) -> bool:
        """Whether there is no device, not even one that was dropped."""
        return not self._devices

    def _returning(self, device: Device) -> str | None:
        """Return the ref of a dropped device whose place the device takes, and have it stay."""
        dropped = [ref for ref in self._users.get(device.user, ()) if ref in self._dropped]
        if not dropped:
            return None
        ref = min(dropped, key=lambda ref: (self._devices[ref] != device, self._dropped[ref]))
        del self._dropped[ref]
        return ref

    def _put(self, ref: str, device: Device, now: float) -> None:
        known = self._devices.get(ref)
        if known == device:
            return
        self._note(ref, now)
        if known is not None and known.user != device.user:
            self._unlist(ref, known.user)
        self._devices[ref] = device
        self._users.setdefault(device.user, {})[ref] = None

    def _discard(self, ref: str, now: float) -> None:
        self._note(ref, now)
        self._unlist(ref, self._devices.pop(ref).user)

    def _unlist(self, ref: str, user: str) -> None:
        refs = self._users[user]
        del refs[ref]
        if not refs:
            del self._users[user]

    def _note(self, ref: str, now: float) -> None:
        if self._changed_at is None:
            self._changed_at = now
        self._before.setdefault(ref, self._devices.get(ref))
