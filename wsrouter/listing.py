"""What the members of one room are told, and when. Pure and synchronous."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wsrouter.members import Device, Notice, count, grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterOptions:
    """How presence behaves in time, and in big rooms. Times are seconds."""

    grace: float = 15.0
    """How long a device that was dropped stays, unless its user comes back before."""

    patience: float = 1.0
    """How much longer other nodes wait, so that only the device's own has to say that the grace is over."""

    settling: float = 5.0
    """How long an entry of another node stays that the broker has lost: that node has to notice, and tell again."""

    window: float = 0.1
    """Time from a change to the frame that tells of it, and of all others by then."""

    counted_window: float = 1.0
    """The same, while only the number is told."""

    most: int = 500
    """Devices above which only their number is told, until four fifths are left."""


DEFAULTS: Final = RosterOptions()


class Listing:
    """The devices in one room, and what its members were told of them.

    Args:
        options: how it behaves.

    Of every method, ``now`` is seconds of a clock that does not go back.
    """

    __slots__ = ("_before", "_changed_at", "_counted", "_options", "_state", "_users", "devices")

    def __init__(self, options: RosterOptions) -> None:
        self._options = options
        self.devices: dict[str, Device] = {}
        """By ref."""
        self._users: dict[str, dict[str, None]] = {}
        """Mapping of user to the refs of their devices."""
        self._before: dict[str, Device | None] = {}
        """What members were told of the devices that changed since."""
        self._changed_at: float | None = None
        self._counted = False
        self._state: Mapping[str, object] | None = None

    def begin(self) -> None:
        """Note that no member is here who was told anything."""
        self._before.clear()
        self._changed_at = self._state = None
        self._counted = len(self.devices) > self._options.most

    def take(self, now: float) -> Notice | None:
        """Return the frame for all members, if it is time and there is something to tell.

        However many come and go, there is one frame per `RosterOptions.window`. What is over within it is not told.
        """
        if self.due is None or now < self.due:
            return None
        self._changed_at = None
        before, self._before = self._before, {}
        told, counted = self._state, self._counted
        most = self._options.most
        self._counted = len(self.devices) > (most * 4 // 5 if counted else most)
        if self._counted or counted:
            self._state = None
            state = self.state()
            return None if state == told else Notice("$presence", state)
        join: list[tuple[str, Device]] = []
        leave: list[tuple[str, Device]] = []
        for ref, was in before.items():
            is_now = self.devices.get(ref)
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
                now = [(ref, self._before.get(ref, device)) for ref, device in self.devices.items()]
                gone = [(ref, was) for ref, was in self._before.items() if ref not in self.devices]
                known = [(ref, was) for ref, was in (*now, *gone) if was is not None]
                members = grouped(known)
                self._state = {"count": count(members), "members": members}
        return self._state

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
    def empty(self) -> bool:
        """Whether there is no device, not even one that was dropped."""
        return not self.devices

    def _put(self, ref: str, device: Device, now: float) -> None:
        """Add a device, or change it."""
        known = self.devices.get(ref)
        if known == device:
            return
        self._note(ref, now)
        if known is not None and known.user != device.user:
            self._unlist(ref, known.user)
        self.devices[ref] = device
        self._users.setdefault(device.user, {})[ref] = None

    def _discard(self, ref: str, now: float) -> None:
        """Remove a device that is here."""
        self._note(ref, now)
        self._unlist(ref, self.devices.pop(ref).user)

    def _is_untold(self, ref: str) -> bool:
        """Whether no member was told of a device that is here."""
        return self._before.get(ref, self.devices[ref]) is None

    def _unlist(self, ref: str, user: str) -> None:
        refs = self._users[user]
        del refs[ref]
        if not refs:
            del self._users[user]

    def _note(self, ref: str, now: float) -> None:
        if self._changed_at is None:
            self._changed_at = now
        self._before.setdefault(ref, self.devices.get(ref))
