"""When each of many names has to be looked at, so that one timer serves them all. Pure and synchronous."""

from heapq import heappop, heappush


class Deadlines:
    """Names, each with at most one deadline."""

    __slots__ = ("_deadlines", "_heap")

    def __init__(self) -> None:
        self._deadlines: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def add(self, name: str, deadline: float) -> None:
        """Have a name looked at by ``deadline``; where it has an earlier one, that stays."""
        known = self._deadlines.get(name)
        if known is None or deadline < known:
            self._deadlines[name] = deadline
            heappush(self._heap, (deadline, name))

    def pop(self, now: float) -> str | None:
        """Return the name that is most overdue, which has no deadline then; ``None`` if none is due."""
        due = self.next
        if due is None or due > now:
            return None
        _, name = heappop(self._heap)
        del self._deadlines[name]
        return name

    @property
    def next(self) -> float | None:
        """The earliest deadline, ``None`` if there is none."""
        heap = self._heap
        while heap and self._deadlines.get(heap[0][1]) != heap[0][0]:
            heappop(heap)  # an earlier deadline took its place
        return heap[0][0] if heap else None

    def __len__(self) -> int:
        return len(self._deadlines)
