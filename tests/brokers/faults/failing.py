"""Faults of start and end, and of what is done and said while the server is away."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Exchange, Hole, TinyBroker
from wsrouter import BrokerError, History, Position
from wsrouter.brokers import Entry, Link, Publication, Receiver, Recovery
from wsrouter.brokers.base import Target
from wsrouter.history import Streams

T = TypeVar("T")
DEPARTED = "test_a_node_that_is_gone_has_departed"
EVERY_NAME = "test_a_lost_link_is_told_for_every_name"


@caught_by("test_aclose_can_be_called_again", "calling it again")
class ClosesOnce(TinyBroker):
    """`aclose` expects that it was started, and not closed."""

    async def aclose(self) -> None:
        if self.watching is None:
            raise AssertionError("calling it again does something")
        await super().aclose()


@caught_by("test_a_closed_broker_is_silent", "waited .* for the tasks of a closed broker to end")
class LeavesTask(TinyBroker):
    """A task goes on when the broker is closed."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        await super().start(node, receiver, grace)
        self.forgotten = asyncio.create_task(asyncio.sleep(1.0))


@caught_by("test_a_closed_broker_is_silent", r"what node 1 heard: expected \[1\], got \[1, 2\]")
class TalksOn(TinyBroker):
    """What comes after `aclose` is delivered still."""

    async def aclose(self) -> None:
        receiver, names = self.receiver, dict(self.names)
        await super().aclose()
        if receiver is not None:
            self.names = names
            self.receiver = receiver
            self.exchange.online[self.node] = self


@caught_by("test_a_closed_broker_can_be_started_again", "what was heard of a name that was subscribed to before")
class Remembers(TinyBroker):
    """What was subscribed to before it was closed is heard again."""

    async def aclose(self) -> None:
        names = dict(self.names)
        await super().aclose()
        self.names = names


@caught_by("test_a_broker_is_not_taken_from_its_receiver", r"node 1 waited .* for the numbers \[1\]")
class Forgets(TinyBroker):
    """Who starts it last is its receiver."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        watching, self.watching, self.receiver = self.watching, None, None
        if watching is not None:
            watching.cancel()
        await super().start(node, receiver, grace)


@caught_by("test_start_does_not_need_the_server", r"start\(\) did not end within its deadline")
class WaitsToStart(TinyBroker):
    """`start` waits for the server."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        await self.until_up()
        await super().start(node, receiver, grace)


@caught_by("test_start_does_not_need_the_server", r"node 1 waited .* for link\(\).state to be 'up'")
class TriesOnce(TinyBroker):
    """Where the server is away at the start, it is not looked for again."""

    def connect(self) -> None:
        if not hasattr(self, "reached"):
            self.reached = self.wire == "up"
        if self.reached:
            super().connect()


@caught_by(DEPARTED, "node 2 waited .* for word that node 1 departed")
class NobodyIsMissed(TinyBroker):
    """Nobody is told that a node is gone."""

    def depart(self, node: str) -> None:
        return


@caught_by(DEPARTED, "nodes that departed, as node . was told")
class AllDepart(Exchange):
    """A node that is silent for a while is gone, though it lives."""

    def beat(self, node: str) -> set[str]:
        self.seen.setdefault(node, monotonic())
        return super().beat(node) | {each for each, seen in self.seen.items() if seen < monotonic()} - {node}


@caught_by(DEPARTED, "entries: expected .*'r3'.* got .*'r1'")
class GhostEntries(Exchange):
    """The entries of a node that is gone stay."""

    def beat(self, node: str) -> set[str]:
        entries = dict(self.entries)
        gone = super().beat(node)
        self.entries = entries
        return gone


@caught_by(DEPARTED, "whether the slot of one that goes can be taken: expected True, got False")
class GhostSlots(Exchange):
    """The slots of a node that is gone stay."""

    def beat(self, node: str) -> set[str]:
        slots = {name: dict(holders) for name, holders in self.slots.items()}
        gone = super().beat(node)
        self.slots = slots
        return gone


@caught_by(DEPARTED, "whether the slot of one that stays can be taken: expected False, got True")
class SlotsExpire(Exchange):
    """A slot is held as long as nodes live that nobody hears of."""

    def beat(self, node: str) -> set[str]:
        gone = super().beat(node)
        if gone:
            self.slots.clear()
        return gone


@caught_by(EVERY_NAME, "node 2 waited .* for word that publications to room 'kept' may be lost")
class HushedUp(TinyBroker):
    """The link comes back as if nothing had been."""

    def tell_lost(self) -> None:
        return


@caught_by("test_many_names_come_back", "node 2 waited .* for word of a hole in each of 1200 rooms")
class FirstBatch(TinyBroker):
    """Of very many names some are not subscribed to again."""

    def connect(self) -> None:
        self.names = dict(list(self.names.items())[:1_000])
        super().connect()


@caught_by("test_a_server_that_was_away_is_told_to_all", "node 1 waited .* for word that publications to room")
class OthersAreTold(TinyBroker):
    """It relies on who published to tell of the hole, and is told nothing while it is away itself."""

    def tell_lost(self) -> None:
        return


@caught_by(EVERY_NAME, "word that publications to user 'busy' may be lost")
class RoomsOnly(TinyBroker):
    """Holes of users are not told."""

    def tell_lost(self) -> None:
        if self.receiver is not None:
            self.receiver.lost([(target, name) for target, name in self.names if target == "room"])


@caught_by(EVERY_NAME, "word that publications to room 'kept' may be lost")
class BusyOnly(TinyBroker):
    """Holes are told where something has come before."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self.busy: set[str] = set()

    def tell(self, publication: Publication) -> None:
        self.busy.add(publication.name)
        super().tell(publication)

    def tell_lost(self) -> None:
        if self.receiver is not None:
            self.receiver.lost([(target, name) for target, name in self.names if name in self.busy])


@caught_by(EVERY_NAME, "node 2 waited .* for the number 3")
class TooEarly(TinyBroker):
    """The hole is told when the link is lost, and then the names are subscribed to."""

    def connect(self) -> None:
        names, self.names = self.names, {}
        super().connect()
        if names and self.receiver is not None:
            self.receiver.lost(tuple(names))
            asyncio.get_running_loop().call_later(0.3, self.names.update, names)


@caught_by("test_a_hole_is_told_in_its_place", "holes that node 2 was not told of where they were")
class TooLate(TinyBroker):
    """The hole is told after the first publication that comes after it."""

    late = False

    def tell_lost(self) -> None:
        self.late = True

    def tell(self, publication: Publication) -> None:
        super().tell(publication)
        if self.late:
            self.late = False
            super().tell_lost()


@caught_by("test_a_hole_is_told_in_its_place", "holes that node 2 was not told of where they were")
class OnceForAll(TinyBroker):
    """Only the first hole is told."""

    def tell_lost(self) -> None:
        if self.gaps == 1:
            super().tell_lost()


@caught_by("test_what_a_lost_link_cost_is_recovered", r"from before the hole: expected \[3, 4, 5\], got None")
class BeginsAnew(TinyBroker):
    """Who comes back begins a new stream."""

    def connect(self) -> None:
        if self.names and self.wire == "up":
            self.exchange.streams = Streams()
        super().connect()


@caught_by("test_a_publication_that_failed_is_told_to_others", "node 2 waited .* for word that publications to room")
class NotAWord(Exchange):
    """Others are not told of what they did not get."""

    def send(self, sender: str, item: object) -> None:
        if not isinstance(item, Hole):
            super().send(sender, item)


@caught_by("test_a_publication_that_failed_was_delivered_here", r"what node 1 has when publish\(\) raised")
class ServerFirst(TinyBroker):
    """Without the server nobody hears anything."""

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        await self.ask(lambda: self.exchange.publish(self.node, publication, history))
        if history is None:
            self.take(publication)


class Queueing(TinyBroker):
    """What could not be published is kept, and published when the server is back."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self.kept: list[tuple[str, Publication]] = []

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        try:
            await super().publish(publication, history)
        except BrokerError:
            self.kept.append(("" if history is None else self.node, publication))
            raise

    def connect(self) -> None:
        super().connect()
        if self.state == "up":
            kept, self.kept = self.kept, []
            for sender, publication in kept:
                self.exchange.publish(sender, publication, None)


@caught_by("test_a_publication_that_failed_was_delivered_here", r"heard in all: expected \[1, 2\], got \[1, 2, 1, 2\]")
class QueuesForAll(Queueing):
    """It is published for all, those included who have it."""


@caught_by("test_what_was_not_sent_did_not_happen", r"publications that were not sent: expected \[\], got \[1\]")
class QueuesForOthers(Queueing):
    """`publish` raises, and what was said not to have happened happens later."""


@caught_by("test_a_name_that_was_left_meanwhile_is_not_heard_again", "what node 2 heard in the room that it left")
class LeavesWithServer(TinyBroker):
    """A name is left when the server says so."""

    async def unsubscribe(self, target: Target, name: str) -> None:
        if self.state == "up":
            await super().unsubscribe(target, name)


@caught_by("test_link_tells_of_a_lost_connection", r"node 2 waited .* for link\(\).state to be 'down'")
class AlwaysUp(TinyBroker):
    """The link is up, whatever is."""

    def link(self) -> Link:
        return replace(super().link(), state="up")


@caught_by("test_link_tells_of_a_lost_connection", r"link\(\).since is")
class SinceStart(TinyBroker):
    """It is told how long the broker runs."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        await super().start(node, receiver, grace)
        self.started = monotonic()

    def link(self) -> Link:
        return replace(super().link(), since=monotonic() - self.started)


@caught_by("test_link_tells_of_a_lost_connection", r"link\(\).gaps is 0")
class NoGaps(TinyBroker):
    """Gaps are not counted."""

    def link(self) -> Link:
        return replace(super().link(), gaps=0)


@caught_by("test_link_tells_of_a_lost_connection", "tells of a heartbeat that nobody waits for")
class OldHeartbeat(TinyBroker):
    """The heartbeat is told to be older than it may be."""

    def link(self) -> Link:
        return replace(super().link(), heartbeat_age=monotonic())


@caught_by("test_a_silent_server_is_noticed", r"node 2 waited .* for link\(\).state to be 'down'")
class NoHeartbeat(TinyBroker):
    """A connection that is open is taken for one that works."""

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self.beat)
            if self.wire == "cut" or self.exchange.online.get(self.node) is not self:
                self.disconnect()
                self.connect()


@caught_by("test_a_silent_server_is_noticed", "node 2 waited .* for what was published meanwhile, or word of a hole")
class ComesBackQuietly(TinyBroker):
    """When the server answers again, it is as if it always had."""

    def tell_lost(self) -> None:
        return


@caught_by("test_what_the_server_did_not_do_raises", r"entries\(\) did not raise BrokerError")
class NobodyThere(TinyBroker):
    """While the server is away rooms are empty."""

    async def entries(self, room: str) -> Sequence[Entry]:
        try:
            return await super().entries(room)
        except BrokerError:
            return ()


@caught_by("test_nothing_waits_for_ever", r"recover\(\) did not end within its deadline")
class WaitsForEver(TinyBroker):
    """A call that is not answered waits, for as long as it takes."""

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        await self.until_up()
        return await super().recover(room, history, since)


@caught_by("test_aclose_does_not_wait_for_the_server", r"aclose\(\) did not end within its deadline")
class WaitsToClose(TinyBroker):
    """`aclose` waits for the server."""

    async def aclose(self) -> None:
        if self.watching is not None:
            await self.until_up()
        await super().aclose()


@caught_by("test_what_waits_ends_when_the_broker_is_closed", r"publish\(\) did not end within its deadline")
class Abandons(TinyBroker):
    """What waits for an answer when the broker is closed waits for ever."""

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        try:
            await super().publish(publication, history)
        except BrokerError:
            await asyncio.Event().wait()


class Blaming(TinyBroker):
    unknown = False

    async def ask(self, work: Callable[[], T]) -> T:
        try:
            return await super().ask(work)
        except BrokerError as exc:
            raise BrokerError(str(exc), outcome_unknown=self.unknown) from exc


@caught_by("test_an_unknown_outcome_is_told", "outcome_unknown is False")
class Certain(Blaming):
    """What is not answered is said not to have happened."""


@caught_by("test_what_was_not_sent_did_not_happen", "outcome_unknown is True")
class NeverCertain(Blaming):
    """Whatever fails may have happened."""

    unknown = True


@caught_by("test_nothing_is_tried_twice", "heard a publication 2 times that was published once")
class TriesAgain(TinyBroker):
    """What is not answered in time is sent again."""

    async def ask(self, work: Callable[[], T]) -> T:
        if self.wire == "silent":
            self.unanswered.append(work)
        return await super().ask(work)
