"""Decides what became of every publication for every client. Pure, and tested by itself.

For each client and room, every acknowledged publication was *delivered*, or the client was told that something is
missing at that place (*announced*), or it was not there (*away*); else it was *lost in silence*. Whether a hole is
told at its place is judged by the order of each publisher: between what came before the hole and what came after it.
"""

import math
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from tests.cluster.records import Away, Event, Gap, Joined, Kind, Log, Member, Note, Sent, Skip
from tests.cluster.verdicts import Audit, Fault, Finding
from wsrouter import Position

LATE = 1.0
"""Seconds after which what comes was not delivered live: it was recovered."""

MOMENT = 0.25
"""Seconds that may pass until a client that drops its connection has written down that it did."""

Break: TypeAlias = Literal["announced", "away"]


def audit(logs: Sequence[Log], sent: Iterable[Sent]) -> Audit:
    """Judge what clients saw by what was sent."""
    result = Audit()
    by_room: dict[str, dict[tuple[str, int], Sent]] = defaultdict(dict)
    for each in sent:
        by_room[each.room][each.publisher, each.number] = each
    seen: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for log in logs:
        seen[log.room].update((note.publisher, note.number) for note in log.events if isinstance(note, Note))
    kinds: dict[str, Kind] = {}
    for log in logs:
        kinds[log.room] = log.kind
        _Reader(log, by_room[log.room], seen[log.room], result).read()
    for room, kind in kinds.items():
        verdict = result.verdicts[kind]
        verdict.sent += len(by_room[room])
        verdict.acknowledged += sum(each.outcome == "acknowledged" for each in by_room[room].values())
    result.findings += [*_forks(logs), *_other_orders(logs)]
    result.findings.sort(key=lambda finding: finding.at)
    return result


class _Reader:
    """Reads the log of one client and room."""

    def __init__(
        self, log: Log, sent: Mapping[tuple[str, int], Sent], seen: set[tuple[str, int]], result: Audit
    ) -> None:
        self.log = log
        self.sent = sent
        self.seen = seen
        self.result = result
        self.verdict = result.verdicts[log.kind]
        self.places: dict[tuple[str, int], int] = {}
        """What it got, and where in the log."""
        self.breaks = list(_breaks(log))

    def read(self) -> None:
        self._read_offsets()
        self._read_notes()
        self._find_missing()
        if not any(isinstance(event, Joined | Member) for event in self.log.events):
            self._find("not back", 0.0, "it was never a member")
        elif not self.log.member:
            self._find("not back", self.log.events[-1].at, "it was no member at the end")
        told = sum(
            isinstance(event, Gap) or (isinstance(event, Joined) and not event.recovered) for event in self.log.events
        ) - (self.log.kind == "history")
        self.verdict.gaps += max(told, 0)
        self.result.gaps[self.log.client, self.log.room] += max(told, 0)

    def _read_offsets(self) -> None:
        """Check that positions go on without a hole, but where the client was told."""
        stands: Position | None = None
        replayed = 0
        for event in self.log.events:
            match event:
                case Joined(position=position, since=since):
                    if event.recovered and (not event.asked or since != position or since != stands):
                        text = f"at {position}, but it stood at {stands} and had asked for {since}"
                        self._find("recovered from elsewhere", event.at, text)
                    stands, replayed = position, event.count
                case Note(offset=int(offset)) | Skip(offset=offset):
                    if stands is None:
                        self._find("hole in the offsets", event.at, f"{offset} came before a position")
                    elif offset > stands.offset + 1:
                        self._find("hole in the offsets", event.at, f"{offset} came after {stands}")
                    elif offset <= stands.offset:
                        self._find("offset again", event.at, f"{offset} came after {stands}")
                    stands = Position(stands.epoch if stands else "", offset)
                    if replayed and isinstance(event, Note):
                        replayed -= 1
                        self.verdict.recovered += self._acknowledged(event)
                    elif isinstance(event, Note) and self._is_late(event):
                        self.verdict.recovered += 1
                case Note() if self.log.kind == "history":
                    self._find("hole in the offsets", event.at, "a publication came without an offset")
                case Away():
                    replayed = 0
                case _:
                    pass

    def _read_notes(self) -> None:
        newest: dict[str, int] = defaultdict(int)
        node: int | None = None
        connection = 0
        connections: dict[tuple[str, int], int] = {}
        for place, event in enumerate(self.log.events):
            if isinstance(event, Joined | Member):
                node = event.node
            if isinstance(event, Away):
                connection += 1
                if self.log.kind == "plain":
                    newest.clear()
            if not isinstance(event, Note):
                continue
            key = event.publisher, event.number
            sent = self.sent.get(key)
            if sent is None:
                self._find("never sent", event.at, f"{key}")
                continue
            if sent.spares(self.log.user):
                self._find("excluded and delivered", event.at, f"{key}")
            before = connections.setdefault(key, connection)
            if self.log.kind == "plain" and before != connection:
                connections[key] = connection
                self.verdict.again += 1
                continue
            if key in self.places:
                self.verdict.twice += 1
                self._find("duplicated", event.at, f"{key}, {sent.outcome}")
                continue
            self.places[key] = place
            is_older = event.number < newest[event.publisher]
            if sent.outcome == "acknowledged":
                self.verdict.delivered += 1
                if is_older:
                    self.verdict.disordered += 1
                    self._find("out of order", event.at, f"{key} came after {newest[event.publisher]}")
                newest[event.publisher] = max(newest[event.publisher], event.number)
            else:
                self.verdict.unacknowledged += 1
                self.verdict.late += is_older
                if sent.outcome == "refused" and (self.log.kind == "history" or node != sent.node):
                    self._find("refused and delivered", event.at, f"{key}")

    def _find_missing(self) -> None:
        got: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for (publisher, number), place in self.places.items():
            if self.sent[publisher, number].outcome == "acknowledged":
                got[publisher].append((number, place))
        for each in got.values():
            each.sort()
        for key, sent in self.sent.items():
            if key in self.places or sent.spares(self.log.user):
                continue
            if self._is_local(sent):
                self._find("not heard locally", sent.at, f"{key}, {sent.outcome}, at {sent.at:.3f}")
            told = sent.outcome in ("refused", "unknown") and self.log.kind == "plain" and key in self.seen
            if sent.outcome != "acknowledged" and not told:
                continue
            around = got[sent.publisher]
            after = bisect(around, (sent.number, 0))
            low = around[after - 1][1] if after else -1
            high = around[after][1] if after < len(around) else len(self.log.events)
            excuses = {kind for place, until, kind in self.breaks if low < place < high and until >= sent.at}
            if not excuses:
                self.verdict.lost += 1
                self._find("lost in silence", sent.at, f"{key}, {sent.outcome}, sent {sent.at:.3f}")
            elif sent.outcome == "acknowledged" and "announced" in excuses:
                self.verdict.announced += 1
                self.result.announced[self.log.client, self.log.room] += 1
            elif sent.outcome == "acknowledged":
                self.verdict.away += 1

    def _is_local(self, sent: Sent) -> bool:
        """Whether it was published without success where the client was a member all the while."""
        if self.log.kind != "plain" or sent.outcome not in ("refused", "unknown") or sent.node is None:
            return False
        return any(
            node == sent.node and begin < sent.at and sent.answered < end - MOMENT
            for begin, end, node in _stays(self.log.events)
        )

    def _acknowledged(self, note: Note) -> bool:
        sent = self.sent.get((note.publisher, note.number))
        return sent is not None and sent.outcome == "acknowledged"

    def _is_late(self, note: Note) -> bool:
        sent = self.sent.get((note.publisher, note.number))
        return sent is not None and sent.outcome == "acknowledged" and note.at > sent.answered + LATE

    def _find(self, fault: Fault, at: float, text: str) -> None:
        self.result.findings.append(Finding(fault, self.log.client, self.log.room, at, text))


def _breaks(log: Log) -> Iterator[tuple[float, float, Break]]:
    """Yield where in a log something may be missing, and until when it was published."""
    events = log.events
    first = next((event.at for event in events if isinstance(event, Joined | Member)), math.inf)
    yield -0.5, first, "away"
    joins = 0
    for place, event in enumerate(events):
        match event:
            case Gap():
                yield place, event.at, "announced"
            case Joined(recovered=False):
                joins += 1
                if joins > 1:
                    yield place, event.at, "announced"
            case Away():
                again = next((each.at for each in events[place:] if isinstance(each, Joined | Member)), math.inf)
                # With history only who never came back is away: who did was told.
                if log.kind == "plain" or again == math.inf:
                    yield place, again, "away"
            case _:
                pass


def _stays(events: Sequence[Event]) -> Iterator[tuple[float, float, int]]:
    """Yield from when to when, and where, a client was a member."""
    since: Member | None = None
    for event in events:
        if isinstance(event, Member):
            since = event
        elif isinstance(event, Away) and since is not None:
            yield since.at, event.at, since.node
            since = None
    if since is not None:
        yield since.at, math.inf, since.node


def _forks(logs: Iterable[Log]) -> Iterator[Finding]:
    """Yield where two clients have different publications at one place of a stream, or one at two places."""
    streams: dict[tuple[str, str, int], tuple[str, int]] = {}
    places: dict[tuple[str, str, int], Position] = {}
    for log in logs:
        epoch = ""
        for event in log.events:
            if isinstance(event, Joined):
                epoch = event.position.epoch
            elif isinstance(event, Note) and event.offset is not None:
                key = event.publisher, event.number
                known = streams.setdefault((log.room, epoch, event.offset), key)
                if known != key:
                    yield Finding(
                        "forked", log.client, log.room, event.at, f"{epoch}:{event.offset} is {key} and {known}"
                    )
                place = Position(epoch, event.offset)
                before = places.setdefault((log.room, *key), place)
                if before != place:
                    yield Finding("duplicated", log.client, log.room, event.at, f"{key} is at {before} and at {place}")


def _other_orders(logs: Iterable[Log]) -> Iterator[Finding]:
    """Yield where two members on one node got the same two publications in another order."""
    known: dict[tuple[str, int], dict[tuple[str, int], int]] = {}
    for log in logs:
        for node, notes in _heard(log.events):
            order = known.setdefault((log.room, node), {})
            if not order:
                order.update({(note.publisher, note.number): place for place, note in enumerate(notes)})
            newest = -1
            for note in notes:
                place = order.get((note.publisher, note.number), newest)
                if place < newest:
                    text = f"{note.publisher} {note.number} came earlier to its neighbour"
                    yield Finding("another order", log.client, log.room, note.at, text)
                newest = max(newest, place)


def _heard(events: Sequence[Event]) -> Iterator[tuple[int, list[Note]]]:
    """Yield what a client got on each of its connections, and on which node."""
    node: int | None = None
    notes: list[Note] = []
    for event in (*events, Away(math.inf)):
        match event:
            case Joined() | Member():
                node = event.node
            case Note():
                notes.append(event)
            case Away() if node is not None:
                yield node, notes
                node, notes = None, []
            case _:
                pass
