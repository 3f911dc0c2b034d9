"""How publications reach many connections: in runs, corked, in slices, and in order; on sockets that keep a record."""

import asyncio
import gc
import json
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from starlette.types import Message as Event

from tests.sockets import Busiest, Member, Socket, direct, gone, member_of, portable, turns
from tests.support import eventually
from wsrouter import Connection, History, Hub, Limits, Message, RoomOptions
from wsrouter.announcing import DELAY
from wsrouter.brokers import MemoryBroker
from wsrouter.codecs import JSONCodec
from wsrouter.fanout import MAX_PLACES
from wsrouter.runs import MAX_BYTES, MAX_FRAMES


class Said(Message):
    text: str


def said(member: Member) -> list[str]:
    """Return the texts that a member was sent."""
    return [json.loads(text)["data"]["text"] for text in member.socket.texts()]


def written(member: Member) -> list[int]:
    """Return how many frames each write had."""
    return [len(Recorded(data).frames()) for data in member.socket.writes]


class Recorded(Socket):
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.writes.append(data)


async def broadcast(hub: Hub, room: str, *texts: str, **options: Any) -> None:
    for text in texts:
        await hub.broadcast(room, Said(text=text), **options)


class CountingCodec(JSONCodec):
    """JSON, counting the publications that it writes."""

    def __init__(self) -> None:
        self.written = 0

    def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> str:
        self.written += 1
        return super().publication(type, data, room, offset)


async def test_one_write_per_member_and_iteration() -> None:
    """What is broadcast within one iteration of the event loop is one write for each member, of the same bytes."""
    hub = Hub()
    members = [await member_of(hub, "a") for _ in range(3)]
    await broadcast(hub, "a", "1", "2", "3")
    assert [member.socket.writes for member in members] == [[], [], []]
    await turns()
    await broadcast(hub, "a", "4")
    await turns()
    for member in members:
        assert said(member) == ["1", "2", "3", "4"]
        assert written(member) == [3, 1]
        assert all(one is other for one, other in zip(member.socket.writes, members[0].socket.writes, strict=True)), (
            "joined once for all"
        )


async def test_rooms_and_users_share_a_write() -> None:
    """Several rooms and messages to the user go out with one write, in the order in which they were published."""
    hub = Hub()
    member = await member_of(hub, "a", "b", user="ann")
    await broadcast(hub, "a", "1")
    await broadcast(hub, "b", "2")
    await hub.send_to_user("ann", Said(text="3"))
    await broadcast(hub, "a", "4")
    await turns()
    assert said(member) == ["1", "2", "3", "4"]
    assert written(member) == [4]


async def test_encoded_once_per_codec() -> None:
    """Each publication is encoded once for each codec that a member speaks, however many members there are."""
    hub = Hub()
    one, other, nobodys = CountingCodec(), CountingCodec(), CountingCodec()
    for number in range(20):
        await member_of(hub, "a", codec=one if number % 2 else other)
    await member_of(hub, "b", codec=nobodys)
    await broadcast(hub, "a", *map(str, range(7)))
    await turns()
    assert (one.written, other.written, nobodys.written) == (7, 7, 0)


class Unlooked(dict[Any, None]):
    """The members of a room, with a count of how often somebody went through them all."""

    looks = 0

    def __iter__(self) -> Any:
        self.looks += 1
        return super().__iter__()


async def test_an_open_run_grows_without_a_look_at_its_members() -> None:
    """Later publications of the same room in the same iteration cost the same for one member and for ten thousand."""
    hub = Hub()
    await member_of(hub, "large")
    room = hub.node.rooms.get("large")
    assert room is not None

    room.members = members = Unlooked(room.members)
    await broadcast(hub, "large", *map(str, range(20)))
    assert members.looks <= 1


async def test_excluding_somebody_is_no_look_at_all_others() -> None:
    """A publication that one member does not get costs no more than any other."""
    hub = Hub()
    one, other = await member_of(hub, "large"), await member_of(hub, "large")
    room = hub.node.rooms.get("large")
    assert room is not None
    room.members = members = Unlooked(room.members)
    await broadcast(hub, "large", "1", exclude=one.connection.id)
    assert members.looks == 0
    await turns()
    assert (said(one), said(other), members.looks) == ([], ["1"], 1)


Change = Callable[[Hub, Member, Member], Awaitable[object]]


async def _join(hub: Hub, one: Member, other: Member) -> None:
    await hub.join(other.connection, "a")


async def _leave(hub: Hub, one: Member, other: Member) -> None:
    await hub.leave(one.connection, "a")


async def _other_room(hub: Hub, one: Member, other: Member) -> None:
    await broadcast(hub, "b", "b")


async def _exclude(hub: Hub, one: Member, other: Member) -> None:
    await broadcast(hub, "a", "not for one", exclude=one.connection.id)


async def _exclude_all(hub: Hub, one: Member, other: Member) -> None:
    ids = list(hub.connections)
    await broadcast(hub, "a", "for nobody", exclude=ids)


async def _reply(hub: Hub, one: Member, other: Member) -> None:
    await one.connection.send(Said(text="reply"))


async def _answer(hub: Hub, one: Member, other: Member) -> None:
    one.connection.reply(one.connection.encode(Said(text="reply")))


async def _user(hub: Hub, one: Member, other: Member) -> None:
    await hub.send_to_user("one", Said(text="for the user"))


async def _close(hub: Hub, one: Member, other: Member) -> None:
    await one.connection.close()


async def _pause(hub: Hub, one: Member, other: Member) -> None:
    one.socket.pause()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_join, [["1", "2"], ["1", "2"], ["2"]]),
        (_leave, [["1"], ["1", "2"], []]),
        (_other_room, [["1", "b", "2"], ["1", "2"], ["b"]]),
        (_exclude, [["1", "2"], ["1", "not for one", "2"], []]),
        (_exclude_all, [["1", "2"], ["1", "2"], []]),
        (_reply, [["1", "reply", "2"], ["1", "2"], []]),
        (_answer, [["1", "reply", "2"], ["1", "2"], []]),
        (_user, [["1", "for the user", "2"], ["1", "2"], []]),
        (_close, [["1"], ["1", "2"], []]),
        (_pause, [["1", "2"], ["1", "2"], []]),
    ],
)
async def test_a_run_ends_when_the_next_publication_has_another_place_or_other_recipients(
    change: Change, expected: list[list[str]]
) -> None:
    """Whatever happens between two broadcasts, each member gets what it has to, in the order in which it was sent."""
    hub = Hub()
    one = await member_of(hub, "a", "b", user="one")
    two = await member_of(hub, "a")
    three = await member_of(hub, "b")
    await broadcast(hub, "a", "1")
    await change(hub, one, three)
    await broadcast(hub, "a", "2")
    await turns(2)
    if one.socket.paused and one.socket.closed is None:
        one.socket.take()
    assert [said(member) for member in (one, two, three)] == expected


async def test_a_run_ends_at_its_bounds() -> None:
    """After 64 frames or 64 KiB it is written, and `broadcast` gives the loop back; nothing is lost or out of order."""
    hub = Hub()
    member = await member_of(hub, "a")
    texts = [str(number) for number in range(3 * MAX_FRAMES + 5)]
    await broadcast(hub, "a", *texts)
    await turns(2)
    assert said(member) == texts
    assert max(written(member)) <= MAX_FRAMES
    member.socket.writes.clear()
    texts = [f"{number}{'x' * 20_000}" for number in range(10)]
    await broadcast(hub, "a", *texts)
    await turns(2)
    assert said(member) == texts
    assert max(map(len, member.socket.writes)) < MAX_BYTES + 21_000


async def test_broadcasting_to_many_rooms_gives_the_loop_back() -> None:
    """A loop over thousands of rooms holds up nobody: it is suspended after every 64 publications."""
    hub = Hub()
    for number in range(3000):
        await member_of(hub, f"room {number}")
    published = hub.node.delivery.published
    async with Busiest(lambda: hub.node.delivery.published) as busiest:
        for number in range(3000):
            await hub.broadcast(f"room {number}", Said(text="x"))
    assert hub.node.delivery.published == published + 3000
    assert busiest.turn <= MAX_FRAMES


async def test_broadcasting_to_large_rooms_in_turn_gives_the_loop_back() -> None:
    """Where every publication has to be given to each of thousands of members, it is suspended after a few."""
    hub = Hub()
    for _ in range(3000):
        await member_of(hub, "a", "b")
    async with Busiest(lambda: hub.node.delivery.delivered) as busiest:
        for number in range(30):
            await hub.broadcast("ab"[number % 2], Said(text="x"))
    assert busiest.turn <= MAX_PLACES + 3000


@pytest.mark.parametrize("rooms", [1, 2])
async def test_bursts_stay_together(rooms: int) -> None:
    """Sixteen publications in turn to one room, or to two with the same members, are one write for each."""
    hub = Hub()
    members = [await member_of(hub, "0", "1") for _ in range(3)]
    for number in range(16):
        await broadcast(hub, str(number % rooms), str(number))
    await turns()
    for member in members:
        assert said(member) == [str(number) for number in range(16)]
        assert written(member) == [16]


async def test_a_reply_takes_the_cork_along() -> None:
    """What was published before goes with the reply, in one write, and is not written again."""
    hub = Hub()
    member = await member_of(hub, "a", "b")
    await broadcast(hub, "a", "1", "2")
    await broadcast(hub, "b", "3")
    await member.connection.send(Said(text="reply"))
    assert said(member) == ["1", "2", "3", "reply"]
    assert written(member) == [4]
    await turns(2)
    assert written(member) == [4]


async def test_a_close_takes_the_cork_along() -> None:
    """What was published before goes before the close frame, and nothing after it."""
    hub = Hub()
    member, other = await member_of(hub, "a"), await member_of(hub, "a")
    await broadcast(hub, "a", "1")
    await member.connection.close(4000, "enough")
    await broadcast(hub, "a", "2")
    await turns(2)
    assert (said(member), said(other)) == (["1"], ["1", "2"])
    assert member.socket.closed == (4000, "enough")


async def test_slices_let_others_work() -> None:
    """Writes that take 1 ms each: other callbacks run about every 10 ms, and each member keeps its order."""
    hub = Hub()
    members = [await member_of(hub, "a", seconds=0.001) for _ in range(60)]
    published = 0
    async with Busiest(lambda: sum(len(member.socket.writes) for member in members)) as busiest:
        while len(said(members[0])) < 10:
            published += 1
            await broadcast(hub, "a", str(published))
            await turns()
        while any(len(said(member)) < published for member in members):
            await turns()
    for member in members:
        assert said(member) == [str(number) for number in range(1, published + 1)]
    assert busiest.turn <= 14


async def test_a_slice_after_a_reply_and_another_publication() -> None:
    """A member that sends while a fan-out is under way gets nothing twice, and nothing out of order."""
    hub = Hub()
    members = [await member_of(hub, "a", seconds=0.001) for _ in range(40)]
    await broadcast(hub, "a", "1")
    await turns()
    late = members[-1]
    assert said(late) == []
    await late.connection.send(Said(text="reply"))
    await broadcast(hub, "a", "2", exclude=members[0].connection.id)
    await broadcast(hub, "a", "3")
    await late.connection.send(Said(text="another reply"))
    await hub.leave(members[-2].connection, "a")
    for _ in range(20):
        await turns()
    assert said(late) == ["1", "reply", "2", "3", "another reply"]
    assert said(members[0]) == ["1", "3"]
    assert said(members[-2]) == said(members[5]) == ["1", "2", "3"]


async def test_what_is_for_few_leaves_the_others_waiting() -> None:
    """A publication to one member amid a large fan-out is put behind that for this member alone, and does not wait."""
    hub = Hub()
    members = [await member_of(hub, "a", seconds=0.001) for _ in range(60)]
    late = members[-1]
    await hub.join(late.connection, "b")
    await broadcast(hub, "a", "1")
    await turns()
    await broadcast(hub, "b", "2")
    await turns()
    assert said(late) == ["1", "2"]
    assert not all(map(said, members)), "the large fan-out is still under way"
    await eventually(lambda: all(map(said, members)))
    await turns(2)
    assert [said(member) for member in members[:-1]] == [["1"]] * 59


async def test_newcomers_get_nothing_that_was_published_before() -> None:
    """Who is a member when a message is published gets it, and nobody who comes before it is written."""
    hub = Hub()
    one, other, left, came = [await member_of(hub) for _ in range(4)]
    for member in one, other, left:
        await hub.join(member.connection, "a")
    await broadcast(hub, "a", "1", exclude=other.connection.id)
    await hub.join(came.connection, "a")
    await hub.leave(left.connection, "a")
    await broadcast(hub, "a", "2")
    await turns(2)
    assert [said(member) for member in (one, other, left, came)] == [["1", "2"], ["2"], ["1"], ["2"]]


@pytest.mark.parametrize("seed", range(12))
async def test_everybody_gets_what_is_theirs_in_order(seed: int) -> None:
    """Whatever is sent to whom, before and amid slices: each gets what it was a recipient of, once and in order."""
    chance = Random(seed)
    hub = Hub()
    seconds = chance.choice([0.0, 0.0, 0.001])
    members = [await member_of(hub, user=f"u{number % 7}", seconds=seconds) for number in range(40)]
    expected: dict[Connection, list[str]] = {member.connection: [] for member in members}
    rooms: dict[str, list[Member]] = {"a": [], "b": [], "c": []}
    for member in members:
        await hub.join(member.connection, "a")
        rooms["a"].append(member)
    for number in range(150):
        text, room, member = str(number), chance.choice("aaabc"), chance.choice(members)
        match chance.choice(["publish", "publish", "exclude", "user", "reply", "join", "leave", "turn", "turn"]):
            case "publish":
                await broadcast(hub, room, text)
                recipients = rooms[room]
            case "exclude":
                without = chance.sample(members, chance.choice([1, 1, 5, 39]))
                await broadcast(hub, room, text, exclude=[each.connection.id for each in without])
                recipients = [each for each in rooms[room] if each not in without]
            case "user":
                await hub.send_to_user(f"u{number % 7}", Said(text=text))
                recipients = members[number % 7 :: 7]
            case "reply":
                await member.connection.send(Said(text=text))
                recipients = [member]
            case "join" if member not in rooms[room]:
                await hub.join(member.connection, room)
                rooms[room].append(member)
                continue
            case "leave" if member in rooms[room] and len(rooms[room]) > 1:
                await hub.leave(member.connection, room)
                rooms[room].remove(member)
                continue
            case _:
                await turns()
                continue
        for each in recipients:
            expected[each.connection].append(text)
    await eventually(lambda: all(len(said(member)) >= len(expected[member.connection]) for member in members))
    await turns(2)
    assert {member.connection: said(member) for member in members} == expected


async def test_what_interrupts_a_large_fan_out_keeps_nobody() -> None:
    """Connections for whom another publication came amid slices are forgotten when they end, as all others are."""
    hub = Hub()
    members = [await member_of(hub, "a", "b", seconds=0.001) for _ in range(60)]
    await broadcast(hub, "a", "1")
    await turns()
    assert not all(map(said, members)), "the large fan-out is still under way"
    await broadcast(hub, "b", "2")
    await eventually(lambda: all(said(member) == ["1", "2"] for member in members))
    connections = [weakref.ref(member.connection) for member in members]
    async with gone(*(member.connection for member in members), hub=hub):
        members.clear()
    gc.collect()
    assert [connection for connection in connections if connection() is not None] == []


async def test_leaving_in_the_middle_of_slices() -> None:
    """Connections that end while a fan-out is under way get nothing more, and nobody else misses anything."""
    hub = Hub()
    members = [await member_of(hub, "a", seconds=0.001) for _ in range(60)]
    await broadcast(hub, "a", "1")
    await turns()
    leaving = [member for member in members if not said(member)][::2]
    assert leaving
    for member in leaving:
        await member.connection.close()
        await hub.node.release(hub.node.exit(member.connection))
        await member.connection.aclose()
    await broadcast(hub, "a", "2")
    for _ in range(20):
        await turns()
    for member in members:
        assert said(member) == (["1"] if member in leaving else ["1", "2"])
    assert hub.stats().connections == len(hub.connections) == 60 - len(leaving)


class BrokenCodec(JSONCodec):
    """Can't write publications."""

    def __init__(self, exception: type[Exception]) -> None:
        self._exception = exception

    def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> str:
        raise self._exception("no")


each_exception = pytest.mark.parametrize("exception", [ValueError, KeyError, RuntimeError, OSError])


@pytest.mark.logs_errors
@each_exception
@pytest.mark.parametrize("then", ["turn", "send", "reply", "close", "disconnect", "resume"])
async def test_a_codec_that_fails_closes_those_who_speak_it(exception: type[Exception], then: str) -> None:
    """The others miss nothing, and nobody who is not to blame gets an exception."""
    hub = Hub()
    codec = BrokenCodec(exception)
    fine = [await member_of(hub, "a", user="u")]
    broken = [await member_of(hub, "a", codec=codec, user="u") for _ in range(3)]
    fine.append(await member_of(hub, "a", user="u"))
    if then == "resume":
        for member in broken:
            member.socket.pause()
    await broadcast(hub, "a", "1")
    if then == "send":
        for member in broken:
            await member.connection.send(Said(text="reply"))
    elif then == "reply":
        for member in broken:
            member.connection.reply('"reply"')
    elif then == "close":
        for member in broken:
            await member.connection.close(4000)
    elif then == "disconnect":
        await hub.disconnect_user("u", code=4000)
    await turns(2)
    if then == "disconnect":
        assert {member.socket.closed for member in fine} == {(4000, "")}
    else:
        await broadcast(hub, "a", "2")
        await turns(2)
    for member in fine:
        assert said(member) == (["1"] if then == "disconnect" else ["1", "2"])
    for member in broken:
        assert member.socket.closed == (1011, "internal error")
        assert said(member) == []


@pytest.mark.logs_errors
@each_exception
async def test_a_codec_that_can_not_write_a_gap(exception: type[Exception]) -> None:
    """The connection is closed; it does not go on with a hole that nothing tells of."""

    class Gapless(JSONCodec):
        def publication(self, type: str, data: bytes | None, room: str | None, offset: int | None = None) -> str:
            if type == "$gap":
                raise exception("no")
            return super().publication(type, data, room, offset)

    hub = Hub(rooms={"a": RoomOptions(overflow="drop_old")})
    member = await member_of(hub, "a", codec=Gapless(), limits=Limits(outbox_frames=2))
    member.socket.pause()
    await broadcast(hub, "a", "1", "2", "3")
    await turns()
    member.socket.take()
    assert member.socket.closed == (1011, "internal error")
    await member.connection.aclose()


@pytest.mark.logs_errors
@each_exception
async def test_a_codec_that_fails_on_the_portable_path(exception: type[Exception]) -> None:
    """The same where publications go through ASGI's `send`."""
    hub = Hub()
    events: dict[str, list[Event]] = {}

    async def enter(name: str, codec: JSONCodec) -> Any:
        events[name] = []

        async def send(event: Event) -> None:
            events[name].append(event)

        connection = portable(send, codec=codec)
        await connection.accept(None, [])
        await hub.node.enter(connection)
        await hub.join(connection, "a")
        return connection

    connections = [
        await enter("fine", JSONCodec()),
        await enter("broken", BrokenCodec(exception)),
        await enter("sends", BrokenCodec(exception)),
        await enter("closes", BrokenCodec(exception)),
        await enter("fine too", JSONCodec()),
    ]
    async with gone(*connections, hub=hub):
        await broadcast(hub, "a", "1")
        await connections[2].send(Said(text="reply"))
        await connections[3].close(4000)
        await turns(3)
        await broadcast(hub, "a", "2")
        await turns(3)
        for name in "fine", "fine too":
            assert [json.loads(event["text"])["data"]["text"] for event in events[name][1:]] == ["1", "2"]
        for name in "broken", "sends", "closes":
            assert events[name][1:] == [{"type": "websocket.close", "code": 1011, "reason": "internal error"}]


@pytest.mark.parametrize("compress", [False, True])
async def test_compressed_by_option(compress: bool) -> None:
    """Where the room says so, members that negotiated it get one and the same compressed frame, all others a plain."""
    hub = Hub(rooms={"*": RoomOptions(compress=compress)})
    members = [await member_of(hub, "a", window_bits=bits) for bits in (None, 12, None, 12, 15)]
    text = "a text that repeats itself " * 20
    await broadcast(hub, "a", text)
    await turns()
    assert {tuple(said(member)) for member in members} == {(text,)}
    first = [member.socket.writes[0][0] for member in members]
    assert first == ([0x81, 0xC1, 0x81, 0xC1, 0xC1] if compress else [0x81] * 5)
    assert members[1].socket.writes[0] is members[3].socket.writes[0]
    assert members[0].socket.writes[0] is members[2].socket.writes[0]
    await broadcast(hub, "a", text)
    await members[1].connection.send(Said(text="reply"))
    members[3].socket.pause()
    await turns()
    members[3].socket.take()
    assert said(members[1]) == [text, text, "reply"]
    assert said(members[3]) == [text, text]


async def test_a_member_that_does_not_read_holds_bytes_that_all_share() -> None:
    """A thousand stalled members of one room hold one copy of what waits for them."""
    hub = Hub()
    members = [await member_of(hub, "a") for _ in range(1000)]
    for member in members:
        member.socket.pause()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(50):
            await broadcast(hub, "a", f"{number} {'x' * 10_000}")
            await turns(2)
        least = 50 * 10_000
        await eventually(lambda: min(each.connection.pending_bytes for each in members) > least, timeout=20)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50 * 10_100 + 1000 * 50 * 600
    for member in members:
        await member.connection.aclose()


async def test_before_accept_nothing_is_joined() -> None:
    """A connection joins in `on_connect`, not before: whom a guard turns away would be a member for ever."""
    hub = Hub()
    connection = direct(Socket(), None)
    with pytest.raises(RuntimeError, match="once it is accepted"):
        await hub.join(connection, "a")
    assert hub.rooms == {}


async def test_another_hub_is_refused() -> None:
    """A connection is a member of its own router's hub: another would never learn of its end."""
    hub, other = Hub(), Hub()
    member = await member_of(hub)
    with pytest.raises(RuntimeError, match="hub of its router"):
        await other.join(member.connection, "a")
    assert (hub.rooms, other.rooms) == ({}, {})
    await hub.node.release(hub.node.exit(member.connection))
    await member.connection.close()
    await hub.join(member.connection, "a")
    assert hub.rooms == {}


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run something in an event loop of its own, which ends at once, whatever it has still to do."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_hub_outlives_an_event_loop() -> None:
    """What a loop that has ended never wrote does not keep the next one from broadcasting."""
    hub = Hub()

    async def first() -> None:
        members = [await member_of(hub, "a", seconds=0.001) for _ in range(60)]
        await broadcast(hub, "a", "lost")
        for member in members:
            await hub.node.release(hub.node.exit(member.connection))

    async def second() -> None:
        member = await member_of(hub, "a")
        await broadcast(hub, "a", "1")
        await turns(2)
        assert said(member) == ["1"]
        await hub.node.release(hub.node.exit(member.connection))

    run(first)
    run(second)
    run(second)


def test_presence_outlives_an_event_loop() -> None:
    """A loop that ended before members were told does not keep the next one from telling."""
    hub = Hub(rooms={"*": RoomOptions(presence=True)})

    async def first() -> None:
        members = [await member_of(hub, "a", user="ann", seconds=0.001) for _ in range(60)]
        for member in members:
            await hub.node.release(hub.node.exit(member.connection))
        await asyncio.sleep(2 * DELAY)  # what is announced by then is; members are told later

    async def second() -> None:
        one, two = await member_of(hub, "a", user="bob"), await member_of(hub, "a", user="cid")

        def told() -> bool:
            frames = [json.loads(text) for text in one.socket.texts()]
            return any("cid" in frame["data"].get("join", {}) for frame in frames if frame["type"] == "$presence_diff")

        await eventually(told)
        for member in one, two:
            await hub.node.release(hub.node.exit(member.connection))

    run(first)
    run(second)


def test_history_outlives_an_event_loop() -> None:
    """A loop that ended before old publications were forgotten does not keep the next one from forgetting them."""
    broker = MemoryBroker()
    hub = Hub(broker, rooms={"*": RoomOptions(history=History(ttl=0.05))})

    async def first() -> None:
        await broadcast(hub, "a", "1")

    async def second() -> None:
        await broadcast(hub, "b", "1")
        await eventually(lambda: not len(broker._server.streams))  # pyright: ignore[reportPrivateUsage] # no way to ask for it

    run(first)
    run(second)


async def test_the_portable_path_lets_others_work() -> None:
    """A fan-out to thousands through ASGI's `send` is done in slices as well, by the writers that are woken."""
    hub = Hub()
    sent = 0

    async def send(event: Event) -> None:
        nonlocal sent
        sent += event["type"] == "websocket.send"

    connections = [portable(send) for _ in range(2000)]
    for connection in connections:
        await connection.accept(None, [])
        await hub.node.enter(connection)
        await hub.join(connection, "a")
    async with gone(*connections, hub=hub):
        for expected in 2000, 4000:
            async with Busiest(lambda: sent) as busiest:
                await broadcast(hub, "a", "x")
                while sent < expected:
                    await turns()
            assert busiest.turn <= 300


async def test_a_member_that_replied_costs_no_writer() -> None:
    """A portable connection whose cork went with a reply starts nothing for an empty one."""
    hub = Hub()
    events: list[str] = []

    async def send(event: Event) -> None:
        events.append(event["type"])

    connection = portable(send)
    await connection.accept(None, [])
    await hub.node.enter(connection)
    before = asyncio.all_tasks()
    await hub.join(connection, "a")
    connection.flush()
    await turns()
    assert asyncio.all_tasks() == before
    async with gone(connection, hub=hub):
        pass


@pytest.mark.parametrize("way", ["write", "reply", "flush"])
async def test_what_one_iteration_brings_makes_nobody_slow(way: str) -> None:
    """A portable client that reads gets more than its outbox holds, whatever is sent to it in between."""
    hub = Hub(rooms={"new": RoomOptions(overflow="drop_new")})
    texts: list[str] = []

    async def send(event: Event) -> None:
        if event["type"] == "websocket.send":
            texts.append(json.loads(event["text"])["data"]["text"])

    connection = portable(send, limits=Limits(outbox_frames=4))
    await connection.accept(None, [])
    await hub.node.enter(connection)
    for room in "a", "new":
        await hub.join(connection, room)
    expected: list[str] = []
    async with gone(connection, hub=hub):
        for round in range(3):
            for number in range(5):
                for room in "a", "new":
                    expected.append(f"{room} {round}.{number}")
                    await broadcast(hub, room, expected[-1])
            expected.append(f"own {round}")
            frame = connection.encode(Said(text=expected[-1]))
            if way == "reply":
                connection.reply(frame)
            elif way == "write":
                await connection.write(frame)
            else:
                expected.pop()
                connection.flush()
        await turns(5)
        assert connection.closed is None
        assert texts == expected
    assert (hub.stats().slow, hub.stats().dropped) == (0, 0)
