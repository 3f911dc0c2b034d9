"""Faults of disconnects that are kept, and of rooms with history."""

import asyncio
from dataclasses import replace
from itertools import count
from math import inf
from time import monotonic

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Exchange, Post, TinyBroker
from wsrouter import History, Position
from wsrouter.brokers import Publication, Recovery
from wsrouter.brokers.base import Target
from wsrouter.history import Streams

LATER = "test_a_disconnect_is_kept_for_who_subscribes_later"
WHOLE = "test_all_that_was_missed_is_recovered_on_another_node"


@caught_by("test_a_disconnect_comes_to_who_subscribed_to_the_user", "what node 2 heard: .* got .*code=1000")
class NoCode(Exchange):
    """The close code is lost."""

    def publish(self, node: str, publication: Publication, history: History | None) -> None:
        super().publish(node, replace(publication, code=1000), history)


@caught_by("test_a_disconnect_comes_to_who_subscribed_to_the_user", r"what node 2 heard: .*'c1'.* got")
class MeansAll(Exchange):
    """The connections that are meant are lost, so that it is all."""

    def publish(self, node: str, publication: Publication, history: History | None) -> None:
        super().publish(node, replace(publication, only=frozenset()), history)


@caught_by("test_a_disconnect_comes_to_who_subscribed_to_the_user", "what node 3 heard, which did not subscribe")
class ToAllNodes(TinyBroker):
    """Every node is told to disconnect the user."""

    def take(self, publication: Publication) -> None:
        if publication.target == "disconnect":
            self.tell(publication)
        else:
            super().take(publication)


@caught_by(LATER, r"before subscribe\(\) returned: .* got \[\]")
class NotKept(Exchange):
    """Only who is there is disconnected."""

    def ordered(self, user: str) -> list[Publication]:
        return []


@caught_by(LATER, r"before subscribe\(\) returned: .* got .*'replaced'")
class NewestOnly(Exchange):
    """A newer order takes the place of the one before, which meant more."""

    def ordered(self, user: str) -> list[Publication]:
        return super().ordered(user)[-1:]


@caught_by(LATER, r"before subscribe\(\) returned: .* got \[\]")
class ToldLater(TinyBroker):
    """`subscribe` returns before what was kept is told."""

    def enter(self, target: Target, name: str, history: History | None) -> list[Publication]:
        for order in super().enter(target, name, history):
            asyncio.get_running_loop().call_later(0.01, self.tell, order)
        return []


@caught_by(LATER, "which subscribed to another user")
class KeptForAll(Exchange):
    """Whatever user a node subscribes to, it is told all that is kept."""

    def ordered(self, user: str) -> list[Publication]:
        return [order for _, order in self.orders]


@caught_by("test_a_disconnect_that_was_kept_tells_its_age", "the age is 0 s")
class NoAge(Exchange):
    """It is told as if it were ordered now."""

    def ordered(self, user: str) -> list[Publication]:
        return [replace(order, age=0.0) for order in super().ordered(user)]


@caught_by("test_a_disconnect_that_was_kept_tells_its_age", r"the age is 5\d\d")
class Milliseconds(Exchange):
    """Its age is told in milliseconds."""

    def ordered(self, user: str) -> list[Publication]:
        return [replace(order, age=order.age * 1_000) for order in super().ordered(user)]


@caught_by("test_offsets_rise_by_one", r"offsets: expected \[1, 2, 3, 4, 5\], got \[0, 1, 2, 3, 4\]")
class FromZero(Exchange):
    """Offsets begin with 0."""

    def append(self, publication: Publication, history: History) -> Publication:
        placed = super().append(publication, history)
        return replace(placed, offset=(placed.offset or 0) - 1)


@caught_by("test_offsets_rise_by_one", "the position as a client gets it back")
class UnsafeEpoch(Exchange):
    """The epoch has a colon in it, so that a position can't be read."""

    def rewind(self) -> None:
        super().rewind()
        self.streams = Streams(lambda: "run:1")


@caught_by("test_offsets_rise_by_one", "offsets: expected")
class OwnOffsets(TinyBroker):
    """Every node counts for itself."""

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        if history is not None:
            self.counted = getattr(self, "counted", 0) + 1
            publication = publication.at(Position("epoch", self.counted))
            self.tell(publication)
        await self.ask(lambda: self.exchange.publish(self.node, publication, None))


@caught_by("test_a_room_has_one_order_for_all_nodes", "offsets|what node . heard, compared with node 1")
class NotInOneStep(Exchange):
    """A publication has its offset before it is handed over, so that another may be quicker."""

    numbers = count()

    def send(self, sender: str, item: object) -> None:
        if isinstance(item, Post) and item.publication.offset is not None and next(self.numbers) % 3 == 0:
            asyncio.get_running_loop().call_soon(super().send, sender, item)
        else:
            super().send(sender, item)


@caught_by("test_a_publication_was_delivered_here_when_publish_returns", "what was delivered last")
class ReturnsEarly(TinyBroker):
    """What has an offset comes back through the reader, whenever that is."""

    def tell(self, publication: Publication) -> None:
        if publication.offset is not None:
            asyncio.get_running_loop().call_later(0.005, super().tell, publication)
        else:
            super().tell(publication)


class Recovering(Exchange):
    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return self.altered(super().recover(room, history, since))

    def altered(self, recovery: Recovery[Publication]) -> Recovery[Publication]:
        raise NotImplementedError


@caught_by(WHOLE, "what is recovered from offset 2")
class ForgetsExcluded(Recovering):
    """What is kept has lost who is excluded."""

    def altered(self, recovery: Recovery[Publication]) -> Recovery[Publication]:
        kept = tuple(replace(each, exclude_users=frozenset()) for each in recovery.publications)
        return replace(recovery, publications=kept)


@caught_by(WHOLE, "what is recovered from offset 2")
class Backwards(Recovering):
    """The newest comes first."""

    def altered(self, recovery: Recovery[Publication]) -> Recovery[Publication]:
        return replace(recovery, publications=recovery.publications[::-1])


@caught_by(WHOLE, "what is recovered from offset 2: .* got .*offset=7, recovered=True")
class AtTheEnd(Recovering):
    """The offset that is told is the end, though the client is not there yet."""

    def altered(self, recovery: Recovery[Publication]) -> Recovery[Publication]:
        return replace(recovery, offset=recovery.end)


@caught_by(WHOLE, "what is recovered from offset 2: .* got .*recovered=False")
class KeptHere(TinyBroker):
    """Every node keeps what it published itself."""

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        recovery = await super().recover(room, history, since)
        return Recovery(recovery.epoch, recovery.end, recovered=False)


@caught_by("test_what_is_acknowledged_is_kept", r"what is recovered: expected \[1\], got \[\]")
@caught_by("test_nothing_is_missed_between_recovered_and_live", "is not recovered|offsets after those recovered")
class WriteBehind(Exchange):
    """A publication is handed over, and acknowledged, before it is kept."""

    ahead = 0

    def append(self, publication: Publication, history: History) -> Publication:
        end = super().recover(publication.name, history, None)
        self.ahead += 1
        asyncio.get_running_loop().call_later(0.01, self.keep, publication, history)
        return publication.at(Position(end.epoch, end.offset + self.ahead))

    def keep(self, publication: Publication, history: History) -> None:
        self.ahead -= 1
        super().append(publication, history)


@caught_by("test_who_missed_nothing_recovers_nothing", r"from .*:0: .*recovered=True.*recovered=False")
class NothingIsLost(Recovering):
    """Who missed nothing is told to begin anew."""

    def altered(self, recovery: Recovery[Publication]) -> Recovery[Publication]:
        return replace(recovery, recovered=bool(recovery.publications))


@caught_by("test_who_has_no_position_is_told_the_end", "what is recovered from None")
class AllToNewcomers(Exchange):
    """Who comes for the first time gets all that is kept."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        epoch = super().recover(room, history, None).epoch
        return super().recover(room, history, since or Position(epoch, 0))


class Reaching(Exchange):
    """It recovers from the nearest position that it can."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        found = super().recover(room, history, since)
        if found.recovered or since is None or since.epoch != found.epoch:
            return found
        tries = (
            super(Reaching, self).recover(room, history, Position(found.epoch, n)) for n in self.others(since, found)
        )
        return next((recovery for recovery in tries if recovery.recovered), found)

    def others(self, since: Position, found: Recovery[Publication]) -> range:
        raise NotImplementedError


@caught_by("test_a_part_is_never_recovered", "what is recovered from offset 1: .*got .*recovered=True")
class InParts(Reaching):
    """Who missed more than is kept gets what is kept, as from a Redis stream."""

    def others(self, since: Position, found: Recovery[Publication]) -> range:
        return range(since.offset + 1, found.offset)


@caught_by("test_a_part_is_never_recovered", "from offset 2: expected .*got None")
class OneTooFew(Exchange):
    """It keeps one less than was asked for."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        recovery = super().recover(room, history, since)
        return recovery if len(recovery.publications) < history.size else super().recover(room, history, None)


@caught_by("test_at_most_300_are_recovered", "what is recovered from offset 0: .*recovered=False.*got .*recovered=True")
class NoBound(Exchange):
    """However much was missed is recovered."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return self.streams.recover(room, since, history, monotonic(), limit=100_000)


@caught_by("test_at_most_300_are_recovered", "from offset 1: expected 300, got 0")
class LowBound(Exchange):
    """Who missed more than 100 gets nothing."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        return self.streams.recover(room, since, history, monotonic(), limit=100)


@caught_by("test_what_is_too_old_is_not_recovered", "missed both: .*recovered=False.*got .*recovered=True")
class KeptForEver(Exchange):
    """Nothing grows too old."""

    def append(self, publication: Publication, history: History) -> Publication:
        return super().append(publication, replace(history, ttl=inf))

    def hold(self, node: str, room: str, history: History) -> None:
        super().hold(node, room, replace(history, ttl=inf))


@caught_by("test_what_is_too_old_is_not_recovered", "missed the newer one: expected .*got None")
class ForgetsTooMuch(Exchange):
    """Where one is too old all are forgotten."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        whole = super().recover(room, history, Position(super().recover(room, history, None).epoch, 0))
        return super().recover(room, history, since if whole.recovered else None)


@caught_by("test_a_position_in_the_future_is_not_recovered", "from offset 2: .*recovered=False.*got .*recovered=True")
class NothingNewer(Reaching):
    """Who stands behind the end is told that there is nothing newer, as by Redis' XREAD."""

    def others(self, since: Position, found: Recovery[Publication]) -> range:
        return range(found.offset, found.offset + 1) if since.offset > found.offset else range(0)


@caught_by(
    "test_a_position_of_another_epoch_is_not_recovered", "from another:0: .*recovered=False.*got .*recovered=True"
)
class AnyEpoch(Exchange):
    """Offsets are taken for those of this stream."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        found = super().recover(room, history, None)
        return found if since is None else super().recover(room, history, Position(found.epoch, since.offset))


@caught_by("test_a_position_of_another_epoch_is_not_recovered", "recovered=False.*got .*recovered=True")
class EpochsThatBegin(Exchange):
    """Epochs are compared by how they begin."""

    def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        found = super().recover(room, history, None)
        if since is not None and since.epoch and found.epoch.startswith(since.epoch):
            return super().recover(room, history, Position(found.epoch, since.offset))
        return super().recover(room, history, since)


@caught_by("test_a_stream_stays_while_a_node_is_subscribed", "epoch and offset of the second publication")
class NotHeld(Exchange):
    """A stream is forgotten when nobody has published for the `ttl`, whoever is there."""

    def hold(self, node: str, room: str, history: History) -> None:
        return


@caught_by("test_a_stream_stays_after_the_last_member_left", r"by who comes back: expected \[2\], got None")
class LightsOut(Exchange):
    """A stream is forgotten when the last member leaves."""

    def drop(self, node: str, room: str) -> None:
        self.streams = Streams()


@caught_by("test_a_server_that_lost_its_memory_begins_another_epoch", "the epoch is still")
class OneEpoch(Exchange):
    """The epoch lies where the offsets lie, and comes back with them."""

    def rewind(self) -> None:
        super().rewind()
        self.streams = Streams(lambda: "epoch")
