"""Faults of names: patterns, and names that are taken for one another."""

import unicodedata
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from time import monotonic

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Exchange, TinyBroker
from wsrouter import History, Position
from wsrouter.brokers import Entry, Publication, Recovery, Slot
from wsrouter.brokers.base import Target

ALIKE = "test_names_that_look_alike_are_different"


@caught_by("test_a_pattern_is_only_a_name", "node 2 heard number . at 'room.*', which is not for it")
class Patterns(TinyBroker):
    """Subscriptions are patterns."""

    def wants(self, target: Target, name: str) -> bool:
        return any(target == each and fnmatchcase(name, pattern) for each, pattern in self.names)


@caught_by("test_a_pattern_is_only_a_name", r"node 2 heard what was published to '\*' 0 times")
class NoStars(TinyBroker):
    """Names that could be patterns are dropped."""

    def wants(self, target: Target, name: str) -> bool:
        return super().wants(target, name) and not set(name) & set("*?[>")


class Folding(TinyBroker):
    def fold(self, name: str) -> str:
        raise NotImplementedError

    def wants(self, target: Target, name: str) -> bool:
        return any(target == each and self.fold(name) == self.fold(known) for each, known in self.names)


@caught_by(ALIKE, "at 'A', which is not for it")
class CaseFolded(Folding):
    """Names are compared without case."""

    def fold(self, name: str) -> str:
        return name.lower()


@caught_by(ALIKE, "at ' ', which is not for it")
class Trimmed(Folding):
    """White space around a name is cut off."""

    def fold(self, name: str) -> str:
        return name.strip()


@caught_by(ALIKE, "at 'x{40}', which is not for it")
class Short(Folding):
    """Names are cut off after 255 characters."""

    def fold(self, name: str) -> str:
        return name[:255]


@caught_by(ALIKE, "which is not for it")
class Normalised(Folding):
    """Names are brought to one form of Unicode."""

    def fold(self, name: str) -> str:
        return unicodedata.normalize("NFC", name)


@caught_by(ALIKE, r"at 'a\\x00', which is not for it")
class ZeroEnds(Folding):
    """A name ends with a NUL, as in C."""

    def fold(self, name: str) -> str:
        return name.split("\0")[0]


@caught_by(ALIKE, r"at 'a\\r\\nUNSUB b', which is not for it")
class LineEnds(Folding):
    """A name ends with its line."""

    def fold(self, name: str) -> str:
        return name.split("\r")[0] + name.partition("\n")[2][:0]


@caught_by(ALIKE, r"at '\{a\}2', which is not for it")
class HashTags(Folding):
    """A name is what is in its braces."""

    def fold(self, name: str) -> str:
        return name[1:].split("}")[0] if name.startswith("{") else name


@caught_by(ALIKE, "node 1 heard what was published to '' 0 times")
class NotEmpty(TinyBroker):
    """A name that is empty is none."""

    def wants(self, target: Target, name: str) -> bool:
        return bool(name) and super().wants(target, name)


fold: Callable[[str], str] = str.casefold


@caught_by("test_each_name_has_a_history_of_its_own", "publications in the room 'a'")
class MixedStreams(Exchange):
    """Rooms whose names look alike share a stream."""

    def append(self, publication: Publication, history: History) -> Publication:
        room = publication.name
        return self.streams.append(fold(room), publication, history, monotonic())

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return self.streams.recover(fold(room), since, history, monotonic())


@caught_by("test_each_name_has_entries_of_its_own", "entries of the room")
class MixedEntries(Exchange):
    """Rooms whose names look alike share their entries."""

    def announce(self, node: str, room: str, entries: Sequence[Entry]) -> list[str]:
        refused = super().announce(node, room, entries)
        for other in self.entries:
            if fold(other) == fold(room):
                self.entries[other] = self.entries[room]
        return refused


@caught_by("test_each_name_has_slots_of_its_own", "the slot of 'A' was taken by another name")
class MixedSlots(Exchange):
    """Names that look alike share their slots."""

    def acquire(self, node: str, name: str, holder: str, most: int, replace: bool) -> Slot:
        return super().acquire(node, fold(name), holder, most, replace)


@caught_by("test_each_name_has_slots_of_its_own", "was given twice")
class NoLongNames(Exchange):
    """Slots of long names are not kept."""

    def acquire(self, node: str, name: str, holder: str, most: int, replace: bool) -> Slot:
        return Slot(True) if len(name) > 255 else super().acquire(node, name, holder, most, replace)
