"""Which connection is in which room, and whose it is. Pure and synchronous."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from wsrouter.runs import Run

MemberT = TypeVar("MemberT", bound=Hashable)


class Room(Generic[MemberT]):
    """The members of one name, in the order in which they came."""

    __slots__ = ("held", "members", "run")

    def __init__(self) -> None:
        self.members: dict[MemberT, None] = {}
        self.run: Run | None = None
        """What every member waits for, and nobody else: later publications may be added to it."""
        self.held: Run | None = None
        """What goes to who is a member now, with `members` itself for its recipients."""

    def end_run(self) -> None:
        """See to it that nothing is added to what waits: the next publication has other recipients."""
        run, self.run = self.run, None
        if run is not None:
            run.open = False

    def change(self) -> None:
        """See to it that what waits goes to who is a member now, and to nobody else, before that changes."""
        self.end_run()
        held, self.held = self.held, None
        if held is not None:
            held.recipients = self.members.copy()


class Rooms(Generic[MemberT]):
    """An index of names to members. The hub has two: rooms, and users."""

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: dict[str, Room[MemberT]] = {}

    def add(self, name: str, member: MemberT) -> bool:
        """Add a member; true if it is the first of that name."""
        room = self._rooms.get(name)
        first = room is None
        if room is None:
            room = self._rooms[name] = Room()
        room.change()
        room.members[member] = None
        return first

    def discard(self, name: str, member: MemberT) -> bool:
        """Remove a member if it is there; true if it was the last of that name."""
        room = self._rooms.get(name)
        if room is None or member not in room.members:
            return False
        room.change()
        del room.members[member]
        if room.members:
            return False
        del self._rooms[name]
        return True

    def get(self, name: str) -> Room[MemberT] | None:
        """Return the room of a name, ``None`` if nobody is there."""
        return self._rooms.get(name)

    def members(self, name: str) -> tuple[MemberT, ...]:
        """Members of one name as they are now; later changes do not show."""
        room = self._rooms.get(name)
        return () if room is None else tuple(room.members)

    def counts(self) -> Mapping[str, int]:
        """Mapping of name to member count."""
        return {name: len(room.members) for name, room in self._rooms.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._rooms

    def __iter__(self) -> Iterator[str]:
        return iter(self._rooms)

    def __len__(self) -> int:
        return len(self._rooms)
