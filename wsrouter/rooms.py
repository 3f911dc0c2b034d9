"""Which connection is in which room, and whose it is. Pure and synchronous."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

MemberT = TypeVar("MemberT", bound=Hashable)


class Rooms(Generic[MemberT]):
    """An index of names to members, kept in the order in which they came.

    The hub has two: rooms, and users.
    """

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[str, dict[MemberT, None]] = {}

    def add(self, name: str, member: MemberT) -> bool:
        """Add a member; true if it is the first of that name."""
        members = self._members.get(name)
        if members is None:
            self._members[name] = {member: None}
            return True
        members[member] = None
        return False

    def discard(self, name: str, member: MemberT) -> bool:
        """Remove a member if it is there; true if it was the last of that name."""
        members = self._members.get(name)
        if members is None or member not in members:
            return False
        del members[member]
        if members:
            return False
        del self._members[name]
        return True

    def members(self, name: str) -> tuple[MemberT, ...]:
        """Members of one name as they are now; later changes do not show."""
        return tuple(self._members.get(name, ()))

    def counts(self) -> Mapping[str, int]:
        """Mapping of name to member count."""
        return {name: len(members) for name, members in self._members.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)
