"""Who is in each room."""

from collections import defaultdict


class Roster:
    """The names in each room, and the devices of each name.

    It knows devices by the ids of their connections, so that an arrival or a departure that is told twice
    counts once, and a departure that had no arrival does no harm.
    """

    def __init__(self) -> None:
        self._rooms: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def arrive(self, room: str, name: str, device: str) -> int:
        """Add a device of ``name`` and return how many of them are in the room now."""
        devices = self._rooms[room][name]
        devices.add(device)
        return len(devices)

    def depart(self, room: str, name: str, device: str) -> int:
        """Remove a device of ``name`` and return how many of them are left in the room."""
        names = self._rooms[room]
        names[name].discard(device)
        remaining = len(names[name])
        if not remaining:
            del names[name]
        if not names:
            del self._rooms[room]
        return remaining

    def people(self, room: str) -> dict[str, int]:
        """Return a mapping of name to number of devices, in the order in which the names came."""
        if room not in self._rooms:
            return {}
        return {name: len(devices) for name, devices in self._rooms[room].items()}
