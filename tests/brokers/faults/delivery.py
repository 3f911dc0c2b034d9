"""Faults of delivery: too little, too much, too late, altered."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

from tests.brokers.faults.fault import caught_by
from tests.brokers.tiny import Exchange, Post, TinyBroker
from wsrouter import History
from wsrouter.brokers import Publication
from wsrouter.brokers.base import Target


@caught_by("test_every_node_that_subscribed_hears_a_publication", r"node 2 waited .* for the numbers \[1\]")
class StaysHere(Exchange):
    """Publications don't leave the node."""

    def send(self, sender: str, item: object) -> None:
        if isinstance(item, Post) and sender in self.online:
            self.online[sender].hear(sender, item)


@caught_by("test_every_node_that_subscribed_hears_a_publication", "node 3 waited")
class FirstOnly(Exchange):
    """A publication goes to one of the subscribers, as from a queue."""

    def send(self, sender: str, item: object) -> None:
        for id, node in self.online.items():
            if id != sender and ("room", "room") in node.names:
                return node.hear(sender, item)
        return None


@caught_by("test_a_node_hears_its_own_publications", r"node 1 waited .* for the numbers \[1\]")
class NoEcho(TinyBroker):
    """Only others hear what a node publishes."""

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        await self.ask(lambda: self.exchange.publish(self.node, publication, history))


@caught_by("test_nothing_comes_twice", r"what node 1 heard in the room 'plain': .* got \[0, 0, 1, 1,")
class Echo(TinyBroker):
    """A node hears its own publications when it publishes them, and again from the server."""

    def read(self, sender: str, item: object) -> None:
        super().read("" if isinstance(item, Post) else sender, item)


@caught_by("test_nothing_comes_twice", r"what node 1 heard in the room 'kept': .* got \[0, 0, 1, 1,")
class Stutter(Exchange):
    """What has an offset is handed over twice."""

    def send(self, sender: str, item: object) -> None:
        super().send(sender, item)
        if isinstance(item, Post) and item.publication.offset is not None:
            super().send(sender, item)


@caught_by("test_the_order_of_a_publisher_is_kept", "what node . heard of one publisher")
class Overtaking(Exchange):
    """Every second publication of a node is overtaken by its next."""

    def rewind(self) -> None:
        super().rewind()
        self.overtaken: dict[str, object] = {}

    def send(self, sender: str, item: object) -> None:
        overtaken = self.overtaken.pop(sender, None)
        if overtaken is None and isinstance(item, Post) and item.publication.name == "room":
            self.overtaken[sender] = item
            return
        super().send(sender, item)
        if overtaken is not None:
            super().send(sender, overtaken)


@caught_by("test_publications_that_overlap_keep_their_order", "for the numbers")
class Pooled(TinyBroker):
    """What is published at the same time goes over several connections."""

    numbers = count()

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        await asyncio.sleep(0.01 * (next(self.numbers) % 2))
        await super().publish(publication, history)


class Altering(Exchange):
    def publish(self, node: str, publication: Publication, history: History | None) -> None:
        super().publish(node, self.altered(publication), history)

    def altered(self, publication: Publication) -> Publication:
        raise NotImplementedError


@caught_by("test_every_field_arrives_as_it_was", "what node 2 heard: .*größe")
class Ascii(Altering):
    """Types lose what is not ASCII."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, type=publication.type.encode("ascii", "replace").decode())


@caught_by("test_every_field_arrives_as_it_was", "what node 2 heard")
class Parsed(Altering):
    """The payload is parsed and written anew."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, data=publication.data.replace(b"1.0", b"1"))


@caught_by("test_every_field_arrives_as_it_was", "what node 2 heard")
class CutShort(Altering):
    """A payload over 64 KiB is cut off."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, data=publication.data[:65_536])


@caught_by("test_every_field_arrives_as_it_was", r"what node 2 heard: .*key=''")
class EmptyIsNone(Altering):
    """A key that is empty is taken for none."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, key=publication.key or None)


@caught_by("test_every_field_arrives_as_it_was", r"what node 2 heard: .*frozenset\(\{'c")
class ExcludesNobody(Altering):
    """Those who are excluded on other nodes are forgotten."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, exclude=frozenset())


@caught_by("test_every_field_arrives_as_it_was", "what node 2 heard")
class CommaSeparated(Altering):
    """The users who are excluded are joined by commas, and split again."""

    def altered(self, publication: Publication) -> Publication:
        return replace(
            publication, exclude_users=frozenset(filter(None, ",".join(publication.exclude_users).split(",")))
        )


@caught_by("test_a_frame_arrives_as_it_was", "frames at node 2")
class TextOnly(Altering):
    """Binary frames become text."""

    def altered(self, publication: Publication) -> Publication:
        frame = publication.frame
        return replace(publication, frame=frame.decode(errors="replace") if isinstance(frame, bytes) else frame)


@caught_by("test_a_frame_arrives_as_it_was", "frames at node 2: .* got .*None")
class NoEmptyFrames(Altering):
    """An empty frame is taken for none."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, frame=publication.frame or None)


@caught_by("test_a_user_is_reached_on_every_node", "what node 2 heard of the user: .* got")
class UsersAreHere(Exchange):
    """Users are looked for on the node that publishes only."""

    def send(self, sender: str, item: object) -> None:
        if not isinstance(item, Post) or item.publication.target != "user":
            super().send(sender, item)


@caught_by("test_rooms_and_users_are_apart", "what node 2 heard: .* got")
class OneNamespace(TinyBroker):
    """A subscription to a room is one to the user of that name."""

    def wants(self, target: Target, name: str) -> bool:
        return any(name == known for _, known in self.names)


@caught_by("test_other_names_are_not_heard", r"what node 2 heard: expected \[4\], got \[1, 2, 3, 4\]")
class Firehose(TinyBroker):
    """Every node hears everything."""

    def wants(self, target: Target, name: str) -> bool:
        return True


@caught_by("test_a_subscription_that_returned_misses_nothing", "node 2 waited .* at 'room 0'")
class Unconfirmed(TinyBroker):
    """`subscribe` returns before the server has it."""

    def enter(self, target: Target, name: str, history: History | None) -> list[Publication]:
        asyncio.get_running_loop().call_later(0.01, super().enter, target, name, history)
        return []


@caught_by("test_a_subscription_that_is_cancelled_can_be_left", r"what node 2 heard: expected \[2\], got \[1, 2\]")
class Persistent(TinyBroker):
    """A subscription that is under way gets there, whatever becomes of who asked for it."""

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        self.subscribing = asyncio.create_task(self.insist(target, name, history))
        await asyncio.shield(self.subscribing)

    async def insist(self, target: Target, name: str, history: History | None) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await super().subscribe(target, name, history)


@caught_by("test_who_unsubscribed_hears_no_more", r"in the room that it left: expected \[\], got \[1\]")
class Clinging(TinyBroker):
    """`unsubscribe` does nothing."""

    async def unsubscribe(self, target: Target, name: str) -> None:
        return


@caught_by("test_who_unsubscribed_hears_no_more", r"heard of the user: expected \[2\], got \[\]")
class LeavesBoth(TinyBroker):
    """To leave a room is to leave the user of that name."""

    async def unsubscribe(self, target: Target, name: str) -> None:
        targets: tuple[Target, ...] = ("room", "user")
        for each in targets:
            await super().unsubscribe(each, name)


@caught_by("test_a_node_that_unsubscribes_leaves_the_others", "node 3 waited")
class LeavesForAll(TinyBroker):
    """The first node that leaves takes the subscription of all others along."""

    async def unsubscribe(self, target: Target, name: str) -> None:
        for node in self.exchange.online.values():
            node.names.pop((target, name), None)


@caught_by("test_a_node_that_unsubscribes_leaves_the_others", r"node 2 waited .* for the numbers \[2\]")
class OnceOnly(TinyBroker):
    """A name that was left can't be subscribed to again."""

    left: set[str] = set()

    async def unsubscribe(self, target: Target, name: str) -> None:
        await super().unsubscribe(target, name)
        self.left = {*self.left, name}

    def wants(self, target: Target, name: str) -> bool:
        return super().wants(target, name) and name not in self.left


@caught_by("test_the_receiver_is_told_on_the_event_loop", "threads that called the receiver")
class OtherThread(TinyBroker):
    """A thread of the driver calls the receiver."""

    def tell(self, publication: Publication) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(super().tell, publication).result()


@caught_by("test_a_payload_of_unknown_shape_is_dropped", "nothing was logged")
class SilentDrop(TinyBroker):
    """What is no publication is dropped without a word."""

    def drop(self, item: object) -> None:
        return


@caught_by("test_a_payload_of_unknown_shape_is_dropped", r"node 2 waited .* for the numbers \[1\]")
class Deafened(TinyBroker):
    """What is no publication ends the reader."""

    deaf = False

    def drop(self, item: object) -> None:
        self.deaf = True

    def wants(self, target: Target, name: str) -> bool:
        return super().wants(target, name) and not self.deaf


@caught_by("test_a_room_without_history_has_no_offsets", "what node 2 heard: .*offset=None.* got .*offset=1")
class OffsetsEverywhere(Altering):
    """Every room is given offsets."""

    def altered(self, publication: Publication) -> Publication:
        return replace(publication, epoch="epoch", offset=1)
