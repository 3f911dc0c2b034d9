"""What clients get when publications are lost between processes: all of them later, or a frame that says so."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.envelopes import close_of, receive, send
from tests.lines import WAYS, DirectSocket, PortableSocket, Way, turns
from tests.nodes import ROOMS, Desk, Node, Said, ShakyBroker, come_back, go_away, log_in, nodes
from tests.sockets import Busiest, gone, member_of
from tests.support import at_rest, connect, eventually
from wsrouter import BrokerError, History, Hub, Limits, Position, RoomOptions, WebSocketHandler, on

FEED: Final = "feed:tea"


async def joined(ws: ClientConnection, room: str = FEED, since: str | None = None) -> dict[str, Any]:
    """Join a room, and return what was answered."""
    await send(ws, "$join", {"room": room, "since": since}, id="join")
    frame = await receive(ws)
    while "id" not in await receive(ws):
        pass
    data: dict[str, Any] = frame["data"]
    return data


async def said(ws: ClientConnection, *numbers: int) -> list[int]:
    """Check that these come next, in this order; return their offsets."""
    offsets: list[int] = []
    for n in numbers:
        frame = await receive(ws)
        assert (frame["type"], frame["data"]) == ("said", {"n": n})
        offsets.append(frame.get("offset", 0))
    return offsets


async def publish(node: Node[ShakyBroker], room: str, *numbers: int) -> None:
    for n in numbers:
        await node.hub.broadcast(room, Said(n=n))


# Without history


async def test_a_hole_is_announced_in_its_place() -> None:
    """Every member of a room is told once, after what came before the hole and before what comes after it; nobody knows
    how much is missing, so it is null."""
    async with nodes() as (a, b):
        clients = [await b.enter("room=hall") for _ in range(3)]
        other = await a.enter("room=hall")
        await publish(a, "hall", 1)
        b.broker.flowing = False
        await publish(a, "hall", 2)
        b.broker.flowing = True
        b.broker.lose()
        await publish(a, "hall", 3)
        for client in clients:
            await said(client, 1)
            assert await receive(client) == {"type": "$gap", "room": "hall", "data": {"dropped": None}}
            await said(client, 3)
        await said(other, 1, 2, 3)


async def test_a_user_is_told_as_well() -> None:
    """Messages to a user that may be missing are told without a room, on every device."""
    async with nodes() as (a, b):
        devices = [await b.enter("user=ada") for _ in range(2)]
        nobody = await b.enter()
        b.broker.lose()
        await a.hub.send_to_user("ada", Said(n=1))
        for device in devices:
            assert await receive(device) == {"type": "$gap", "data": {"dropped": None}}
            await said(device, 1)
        await send(nobody, "id", id=1)
        assert (await receive(nobody))["type"] == "$ok"


class Raw(WebSocketHandler):
    async def on_connect(self) -> None:
        await self.join("raw:a")

    async def on_message(self, message: str) -> None:
        await self.broadcast("raw:a", message)


async def test_members_of_a_raw_room_have_to_come_back() -> None:
    """There is no frame that could tell them: they get what came before, and are closed with 4510."""
    async with nodes(handlers={"/": Raw}) as (a, b):
        here, there = await a.enter("room=raw:a"), await b.enter("room=raw:a")
        await here.send("1")
        await asyncio.wait_for(there.recv(), 5)
        b.broker.lose()
        assert await close_of(there) == (4510, "messages may be missing")
        await here.send("2")
        assert [await here.recv() for _ in range(2)] == ["1", "2"]


async def test_many_holes_are_told_of_in_turns() -> None:
    """A loss in thousands of rooms does not hold up the event loop, and each is told of it before what follows."""
    broker = ShakyBroker()
    async with Hub(broker) as hub:
        members = [await member_of(hub, f"room {number}") for number in range(6000)]
        async with Busiest(lambda: hub.health().announced) as busiest:
            broker.tell()
            at_once = hub.health().announced
            for number in range(0, 6000, 50):
                await hub.broadcast(f"room {number}", Said(n=number))
            await eventually(lambda: hub.health().announced == 6000)
        assert at_once < 6000
        assert busiest.turn < 6000
        await eventually(lambda: all(member.socket.writes for member in members))
        await turns(3)
        for number, member in enumerate(members):
            types = [json.loads(text)["type"] for text in member.socket.texts()]
            assert types == (["$gap"] if number % 50 else ["$gap", "said"])


# With history


async def test_what_was_lost_is_recovered_for_all_at_once() -> None:
    """Members get what was lost, in order and once, and the broker is asked once for all of them."""
    async with nodes() as (a, b):
        clients = [await b.enter() for _ in range(3)]
        for client in clients:
            await joined(client)
        await publish(a, FEED, 1)
        b.broker.flowing = False
        await publish(a, FEED, 2, 3)
        b.broker.flowing = True
        b.broker.asked.clear()
        b.broker.lose()
        await publish(a, FEED, 4)
        for client in clients:
            assert await said(client, 1, 2, 3, 4) == [1, 2, 3, 4]
        assert b.broker.asked == [f"recover {FEED}"]


async def test_offsets_tell_of_a_hole_that_nobody_noticed() -> None:
    """The same, where the broker itself does not know that it lost something."""
    async with nodes() as (a, b):
        ws = await b.enter()
        await joined(ws)
        b.broker.flowing = False
        await publish(a, FEED, 1, 2)
        b.broker.lose(tell=False)
        await publish(a, FEED, 3)
        b.broker.flow()
        assert await said(ws, 1, 2, 3) == [1, 2, 3]


async def test_what_comes_twice_is_sent_once() -> None:
    """What the broker hands over again, or late, is passed over."""
    async with nodes() as (a, b):
        ws = await b.enter()
        await joined(ws)
        b.broker.flowing = False
        await publish(a, FEED, 1, 2)
        again = [*b.broker.waiting]
        b.broker.tell()
        b.broker.flow()
        b.broker.waiting.extend([*again, again[0]])
        b.broker.flowing = True
        await publish(a, FEED, 3)
        assert await said(ws, 1, 2, 3) == [1, 2, 3]


@pytest.mark.parametrize("how", ["too many", "begun anew"])
async def test_what_can_not_be_recovered_is_said(how: str) -> None:
    """Every member is told where it stands now, unasked, that it did not recover, and gets what comes from there."""
    room = "small:a"
    async with nodes() as (a, b):
        clients = [await b.enter() for _ in range(2)]
        end = 7 if how == "too many" else 6
        firsts = [await joined(client, room) for client in clients]
        await publish(a, room, 1)
        b.broker.flowing = False
        if how == "begun anew":
            b.broker.begin_anew()
        await publish(a, room, *range(2, 8))
        b.broker.flowing = True
        b.broker.lose()
        for client, first in zip(clients, firsts, strict=True):
            await said(client, 1)
            told = await receive(client)
            assert (told["type"], told["room"]) == ("$joined", room)
            assert (told["data"]["recovered"], told["data"]["count"]) == (False, 0)
            assert (told["data"]["epoch"] == first["epoch"]) is (how == "too many")
            assert told["data"]["offset"] == end
        await publish(a, room, 8)
        for client in clients:
            assert await said(client, 8) == [end + 1]


async def test_a_stream_that_begins_anew_is_noticed_by_its_epoch() -> None:
    """The same, where the broker itself does not tell of it."""
    async with nodes() as (a, b):
        ws = await b.enter()
        first = await joined(ws)
        await publish(a, FEED, 1)
        await said(ws, 1)
        b.broker.begin_anew()
        await publish(a, FEED, 2)
        told = await receive(ws)
        assert (told["type"], told["data"]["recovered"], told["data"]["offset"]) == ("$joined", False, 1)
        assert told["data"]["epoch"] != first["epoch"]
        await publish(a, FEED, 3)
        assert await said(ws, 3) == [2]


async def test_recovery_waits_for_the_broker() -> None:
    """While the broker is away rooms are not given up: when it is there again members get what was published
    meanwhile elsewhere."""
    async with nodes() as (a, b):
        ws = await b.enter()
        await joined(ws)
        go_away(b)
        b.broker.tell()
        await publish(a, FEED, 1, 2)
        b.broker.asked.clear()
        await eventually(lambda: len(b.hub.node.recoveries) == 1)
        b.broker.up = True  # and nobody tells
        assert await said(ws, 1, 2) == [1, 2]
        come_back(b)
        await publish(a, FEED, 3)
        assert await said(ws, 3) == [3]


async def test_what_the_broker_owes_is_asked_for_as_soon_as_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that says that it answers again is asked at once, however long it was in vain."""
    monkeypatch.setattr("wsrouter.recovering.FIRST_PAUSE", 60.0)
    monkeypatch.setattr("wsrouter.recovering.LONGEST_PAUSE", 60.0)
    async with nodes() as (a, b):
        ws = await b.enter()
        await joined(ws)
        b.broker.flowing = False
        await publish(a, FEED, 1)
        b.broker.waiting.clear()
        b.broker.up, b.broker.flowing = False, True
        b.broker.asked.clear()
        b.broker.tell()
        await eventually(lambda: b.broker.asked == [f"recover {FEED}"])
        b.broker.restore()
        assert await said(ws, 1) == [1]


async def test_a_thousand_rooms_are_recovered() -> None:
    """Many rooms that lost something are asked about some at a time, and all are whole again."""
    async with nodes() as (a, b):
        clients = [await b.enter() for _ in range(20)]
        for number, client in enumerate(clients):
            for room in range(50):
                await send(client, "$join", {"room": f"feed:{number}:{room}"}, id=room)
        for client in clients:
            for _ in range(100):
                await receive(client)
        go_away(b)
        for number in range(20):
            for room in range(50):
                await publish(a, f"feed:{number}:{room}", 1)
        come_back(b)
        for client in clients:
            assert len({(await receive(client))["room"] for _ in range(50)}) == 50
        await eventually(lambda: len(b.hub.node.recoveries) == 0)


# Who comes


async def test_who_comes_ahead_of_the_reader_gets_nothing_twice() -> None:
    """The broker's answer to a join has what has not been handed over yet: that is not sent once more."""
    async with nodes() as (a, b):
        member = await b.enter()
        first = await joined(member)
        b.broker.flowing = False
        await publish(a, FEED, 1, 2, 3)
        late = await b.enter()
        await send(late, "$join", {"room": FEED, "since": f"{first['epoch']}:1"}, id=1)
        await at_rest(lambda: len(b.broker.asked))
        b.broker.flow(2)
        await asyncio.sleep(0)
        assert b.hub.rooms == {FEED: 1}
        b.broker.flowing = True
        b.broker.flow()
        assert (await receive(late))["data"] == {**first, "offset": 1, "recovered": True, "count": 2}
        assert await said(late, 2, 3) == [2, 3]
        assert (await receive(late))["type"] == "$ok"
        assert await said(member, 1, 2, 3) == [1, 2, 3]
        await publish(a, FEED, 4)
        for ws in member, late:
            assert await said(ws, 4) == [4]


async def test_who_comes_when_the_reader_has_lost_it() -> None:
    """Where what the answer has is never handed over, the room is recovered, and the join is through."""
    async with nodes() as (a, b):
        member = await b.enter()
        await joined(member)
        b.broker.flowing = False
        await publish(a, FEED, 1, 2)
        b.broker.lose(tell=False)
        late = await b.enter()
        assert (await joined(late))["offset"] == 2
        assert await said(member, 1, 2) == [1, 2]
        b.broker.flowing = True
        await publish(a, FEED, 3)
        for ws in member, late:
            assert await said(ws, 3) == [3]


async def test_who_comes_when_the_stream_has_begun_anew() -> None:
    """Who comes is answered with the new epoch, and those who are there are told of it."""
    async with nodes() as (a, b):
        member = await b.enter()
        first = await joined(member)
        b.broker.flowing = False
        b.broker.begin_anew()
        await publish(a, FEED, 1)
        late = await b.enter()
        answer = await joined(late)
        assert answer["epoch"] != first["epoch"]
        told = await receive(member)
        assert (told["type"], told["data"]) == ("$joined", answer)
        b.broker.flowing = True
        await publish(a, FEED, 2)
        b.broker.flow()
        for ws in member, late:
            assert await said(ws, 2) == [2]


async def test_what_is_lost_while_the_first_one_comes() -> None:
    """What was lost after the broker looked for the first member, and before its answer came, is recovered too."""
    async with nodes() as (a, b):
        gate = asyncio.Event()
        b.broker.gates.append(gate)
        ws = await b.enter()
        await send(ws, "$join", {"room": FEED}, id=1)
        await eventually(lambda: f"recover {FEED}" in b.broker.asked)
        b.broker.flowing = False
        await publish(a, FEED, 1)
        b.broker.lose()
        gate.set()
        assert (await receive(ws))["data"]["offset"] == 0
        assert (await receive(ws))["type"] == "$ok"
        assert await said(ws, 1) == [1]


async def test_an_answer_that_comes_too_late() -> None:
    """What a room missed is not sent to those who left and came back meanwhile: they have their own answer."""
    async with nodes() as (a, b):
        ws = await b.enter()
        first = await joined(ws)
        b.broker.flowing = False
        await publish(a, FEED, 1)
        gate = asyncio.Event()
        b.broker.gates.append(gate)
        b.broker.lose()
        await eventually(lambda: not b.broker.gates)
        await send(ws, "$leave", {"room": FEED}, id=1)
        assert (await receive(ws))["type"] == "$ok"
        b.broker.flowing = True
        await send(ws, "$join", {"room": FEED, "since": f"{first['epoch']}:0"}, id=2)
        assert (await receive(ws))["data"] == {**first, "recovered": True, "count": 1}
        assert await said(ws, 1) == [1]
        assert (await receive(ws))["type"] == "$ok"
        gate.set()
        await eventually(lambda: len(b.hub.node.recoveries) == 0)
        await publish(a, FEED, 2)
        assert await said(ws, 2) == [2]


# Who does not read


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    """Return each way that a connection has to a client."""
    way: Way = request.param
    return way


@asynccontextmanager
async def seat(way: Way, frames: int, user: str = "") -> AsyncGenerator[tuple[Hub, ShakyBroker, Any]]:
    """Enter a hub with a client that needs no server, whose outbox holds so many frames."""
    broker = ShakyBroker()
    rooms = {
        "plain": RoomOptions(),
        "new": RoomOptions(overflow="drop_new"),
        "old": RoomOptions(overflow="drop_old"),
        "latest": RoomOptions(overflow="latest"),
        **ROOMS,
    }
    async with Hub(broker, rooms=rooms) as hub:
        line = way(user, Limits(outbox_frames=frames))
        await line.connection.accept(None, [])
        await hub.node.enter(line.connection)
        async with gone(line.connection, hub=hub):
            yield hub, broker, line


async def frames_of(line: DirectSocket | PortableSocket) -> list[dict[str, Any]]:
    """Let a client read, and return what it gets."""
    for _ in range(10):
        line.resume()
        await turns(3)
    return [json.loads(text) for text in line.take()]


@pytest.mark.parametrize("room", ["plain", "new", "old", "latest", ""])
async def test_there_is_always_room_for_a_gap(way: Way, room: str) -> None:
    """A client whose outbox is full learns of a hole as others do, in its place, and is not closed for it."""
    async with seat(way, 3, "" if room else "ada") as (hub, broker, line):
        if room:
            await hub.join(line.connection, room)
        line.stall()
        more = 2 if room in ("new", "old", "latest") else 0
        for n in range(3 + issubclass(way, PortableSocket) + more):
            await (hub.broadcast(room, Said(n=n)) if room else hub.send_to_user("ada", Said(n=n)))
            await turns()
        broker.tell()
        broker.tell()
        await turns()
        assert line.connection.closed is None
        frames = await frames_of(line)
        assert frames[-1] == {"type": "$gap", **({"room": room} if room else {}), "data": {"dropped": None}}
        gaps = [frame for frame in frames if frame["type"] == "$gap"]
        assert len(gaps) == (2 if room in ("old", "latest") else 1)


async def test_a_hole_is_not_told_before_what_came_before_it(way: Way) -> None:
    """Two holes with something between them are told of twice, also to who does not read."""
    async with seat(way, 9) as (hub, broker, line):
        await hub.join(line.connection, "plain")
        line.stall()
        for n in range(3):
            await hub.broadcast("plain", Said(n=n))
            broker.tell()
            await turns()
        assert [frame["type"] for frame in await frames_of(line)] == ["said", "$gap"] * 3


async def test_a_stream_that_begins_anew_amid_a_replay(way: Way) -> None:
    """Who is being sent what it missed gets that first; then it learns of the new stream, as members do."""
    async with seat(way, 6) as (hub, broker, line):
        for n in range(12):
            await hub.broadcast(FEED, Said(n=n))
        epoch = (await broker.recover(FEED, History(), None)).epoch
        line.stall()
        joining = asyncio.create_task(hub.join(line.connection, FEED, since=Position(epoch, 0)))
        await turns()
        broker.begin_anew()
        for n in (12, 13):
            await hub.broadcast(FEED, Said(n=n))
            await turns()
        assert hub.rooms == {}
        frames = await frames_of(line)
        await joining
        await hub.broadcast(FEED, Said(n=14))
        await turns()
        frames += await frames_of(line)
        assert frames[0]["data"] == {"epoch": epoch, "offset": 0, "recovered": True, "count": 12}
        assert [frame["offset"] for frame in frames[1:13]] == [*range(1, 13)]
        assert (frames[13]["type"], frames[13]["data"]["recovered"]) == ("$joined", False)
        assert frames[13]["data"]["epoch"] != epoch
        assert frames[13]["data"]["offset"] == 1
        assert [(frame["offset"], frame["data"]["n"]) for frame in frames[14:]] == [(2, 13), (3, 14)]


# While it is away


async def test_local_members_hear_local_broadcasts() -> None:
    """Without history a broadcast reaches the members of its own node; its sender learns that others did not get it."""
    async with nodes() as (a, b):
        one, two = await a.enter("room=hall"), await a.enter("room=hall")
        there = await b.enter("room=hall")
        go_away(a, b)
        await send(one, "say", ["hall", 1], id=1)
        await said(one, 1)
        error = (await receive(one))["error"]
        assert (error["code"], error["retry"]) == ("unavailable", True)
        await said(two, 1)
        come_back(a, b)
        await publish(a, "hall", 2)
        assert (await receive(there))["type"] == "$gap"
        await said(there, 2)


async def test_joins_are_answered_with_unavailable() -> None:
    """A join of a room that nobody on this node is in needs the broker; it makes no member, and can be tried again."""
    async with nodes() as (a, _):
        ws = await a.enter("room=hall")
        go_away(a)
        await send(ws, "$join", {"room": "yard"}, id=1)
        error = (await receive(ws))["error"]
        assert (error["code"], error["retry"], error["after_ms"]) == ("unavailable", True, 1000)
        other = await a.enter("room=hall")
        await send(ws, "$join", {"room": FEED}, id=2)
        assert (await receive(ws))["error"]["code"] == "unavailable"
        come_back(a)
        for each in ws, other:
            assert (await receive(each))["type"] == "$gap"
        await send(ws, "$join", {"room": "yard"}, id=3)
        assert (await receive(ws))["type"] == "$ok"
        assert a.hub.rooms == {"hall": 2, "yard": 1}


async def test_connections_that_need_it_are_told_to_come_back() -> None:
    """Whose user the broker has to know is denied with 503; who joins in `on_connect` is closed with 4503; nothing
    of them is left."""
    async with nodes(handlers={"/": Desk, "/raw": Raw}) as (a, _):
        here = await a.enter("user=bob")
        go_away(a)
        with pytest.raises(InvalidStatus) as denied:
            await connect(a.server, "/?user=ada")
        assert denied.value.response.status_code == 503
        assert denied.value.response.headers["Retry-After"] == "1"
        async with connect(a.server, "/?room=hall") as ws:
            assert (await close_of(ws))[0] == 4503
        async with connect(a.server, "/raw") as ws:
            assert (await close_of(ws))[0] == 4503
        await eventually(lambda: a.hub.stats().connections == 1)
        assert a.hub.stats().users == 1
        another = await a.enter("user=bob")
        await another.close()
        a.broker.up = True
        await a.hub.send_to_user("bob", Said(n=1))
        await eventually(lambda: a.hub.stats().connections == 1)
        a.broker.flow()
        await said(here, 1)


class Unsure(WebSocketHandler):
    guards = [log_in]

    @on("say")
    async def say(self, message: None) -> None:
        raise BrokerError("the password is secret", outcome_unknown=True)


async def test_an_outcome_that_is_not_known_is_said() -> None:
    """The client learns that it may have happened, and nothing else of the error."""
    async with nodes(1, handlers={"/": Unsure}) as (a,):
        ws = await a.enter()
        await send(ws, "say", None, id=1)
        assert await receive(ws) == {
            "type": "$error",
            "id": 1,
            "error": {
                "code": "unavailable",
                "message": "It is not known whether this was done",
                "retry": True,
                "after_ms": 1000,
                "details": {"outcome_unknown": True},
            },
        }


async def test_http_routes_answer_503() -> None:
    """A route that lets a `BrokerError` pass is answered with 503 and `Retry-After`, without its text."""
    async with nodes() as (a, _):
        app = FastAPI()

        @app.post("/announce")
        async def announce() -> None:
            await publish(a, FEED, 1)

        go_away(a)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/announce")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert response.json() == {"detail": "This is not possible at the moment"}


@pytest.mark.logs_errors
async def test_all_names_are_let_go_of_whatever_happens_to_one() -> None:
    """When a connection ends, a name that can't be unsubscribed from keeps none of the others."""
    async with nodes() as (a, _):
        rooms = [f"room{number}" for number in range(5)]
        ws = await a.enter("user=ada&" + "&".join(f"room={room}" for room in rooms))
        await eventually(lambda: len(a.broker.names) == 6)
        a.broker.stubborn = "room2"
        await ws.close()
        await eventually(lambda: a.broker.names == {("room", "room2")})
