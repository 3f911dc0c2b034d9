"""`RateLimit` as clients meet it: error frames, then the end, over real sockets."""

import asyncio
import json
from time import monotonic
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, Header
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support import connect, eventually, serve
from wsrouter import ConfigurationError, Connection, Envelope, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.metering import Bucket
from wsrouter.rates import CLOSE_AT, RateLimit, RateLimitStats


class User:
    def __init__(self, id: str) -> None:
        self.id = id


async def sign_in(connection: Connection, x_user: Annotated[str, Header()] = "") -> None:
    """Take whom a header names for the user."""
    if x_user:
        connection.scope["user"] = User(x_user)


class Say(Message):
    text: str


class Echo(WebSocketHandler):
    """Returns what it is told, and counts it."""

    handled = 0

    @on
    async def say(self, message: Say) -> Say:
        type(self).handled += 1
        return message


def application(*limits: RateLimit, handler: type[WebSocketHandler] = Echo, guards: list[Any] | None = None) -> FastAPI:
    router = WebSocketRouter(middleware=limits, guards=guards or [])
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


def say(id: Any = None, text: str = "hi") -> str:
    envelope: dict[str, Any] = {"type": "say", "data": {"text": text}}
    return json.dumps(envelope if id is None else {**envelope, "id": id})


async def received(ws: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(ws.recv(), 5))
    return frame


async def asked(ws: ClientConnection, frame: str | bytes) -> dict[str, Any]:
    await ws.send(frame)
    return await received(ws)


def is_refusal(frame: dict[str, Any]) -> bool:
    return frame["type"] == "$error" and bool(frame["error"]["code"] == "rate_limited")


async def all_until_closed(ws: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """Return the frames that come, and the close code."""
    frames: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(5):
            while True:
                frames.append(json.loads(await ws.recv()))
    except ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else None


async def test_too_many_messages_are_answered_with_an_error() -> None:
    """What is too much is not handled: it gets rate_limited with its id and the time to wait, and all goes on."""

    class Counting(Echo):
        handled = 0

    limit = RateLimit(messages="3/hour")
    async with serve(application(limit, handler=Counting)) as server, connect(server) as ws:
        for id in range(3):
            assert (await asked(ws, say(id)))["type"] == "say"
        refusal = await asked(ws, say("four"))
        assert refusal["type"] == "$error"
        assert refusal["id"] == "four"
        after_ms = refusal["error"].pop("after_ms")
        assert refusal["error"] == {"code": "rate_limited", "message": "Too many messages", "retry": True}
        assert 1_190_000 < after_ms <= 1_200_000  # three an hour are one in twenty minutes
        assert "id" not in await asked(ws, say())
        assert Counting.handled == 3
        assert limit.stats() == RateLimitStats(connections=1, users=0, refused=2, closed=0)
    assert limit.stats().connections == 0


async def test_who_waits_as_told_is_let_through() -> None:
    """After after_ms the same message is handled; one that did not wait was not counted against it."""
    limit = RateLimit(messages="20/second", burst=0.05)
    async with serve(application(limit)) as server, connect(server) as ws:
        assert (await asked(ws, say(0)))["type"] == "say"
        for id in range(1, 4):
            refusal = await asked(ws, say(id))
            while is_refusal(refusal):
                assert 1 <= refusal["error"]["after_ms"] <= 50
                await asyncio.sleep(refusal["error"]["after_ms"] / 1000)
                refusal = await asked(ws, say(id))
            assert refusal == {"type": "say", "id": id, "data": {"text": "hi"}}


@pytest.mark.parametrize(
    "frame", ["no JSON", '{"type":"nothing"}', '{"type":"say","data":{}}', b"\x00", '{"type":"$cancel","id":9}', ""]
)
async def test_every_frame_counts(frame: str | bytes) -> None:
    """Invalid frames, unknown types, binary frames, control frames and empty ones use up the allowance."""
    async with serve(application(RateLimit(messages="2/hour"))) as server, connect(server) as ws:
        await ws.send(frame)
        await ws.send(frame)
        answers = [await asked(ws, say(1))]
        while not is_refusal(answers[-1]):
            answers.append(await received(ws))
        assert [is_refusal(answer) for answer in answers].count(True) == 1
        assert "say" not in {answer["type"] for answer in answers}


async def test_twenty_times_the_rate_closes() -> None:
    """More than twenty times what is allowed closes with 4529, and errors came ten at once, then ten per second."""
    limit = RateLimit(messages="5/hour")
    async with serve(application(limit)) as server:
        async with connect(server) as ws:
            began = monotonic()
            for id in range(CLOSE_AT * 5):
                await ws.send(say(id))
            pong = await ws.ping()
            await asyncio.wait_for(pong, 5)
            assert ws.close_code is None
            await ws.send(say("last"))
            frames, code = await all_until_closed(ws)
        assert code == 4529
        assert [frame["id"] for frame in frames if not is_refusal(frame)] == [0, 1, 2, 3, 4]
        refused = [frame["id"] for frame in frames if is_refusal(frame)]
        assert refused[:10] == list(range(5, 15))
        assert len(refused) <= 10 + 10 * (monotonic() - began) + 1
        await eventually(lambda: limit.stats().connections == 0)
        assert limit.stats() == RateLimitStats(connections=0, users=0, refused=96, closed=1)


async def test_bytes_are_limited() -> None:
    """Bytes of the payload count, whatever the number of messages."""
    async with serve(application(RateLimit(bytes="1 KiB per hour"))) as server, connect(server) as ws:
        frame = say(1, "é" * 190)
        assert 400 < len(json.dumps(json.loads(frame), ensure_ascii=False).encode()) < 500
        frame = json.dumps(json.loads(frame), ensure_ascii=False)
        for _ in range(2):
            assert (await asked(ws, frame))["type"] == "say"
        assert is_refusal(await asked(ws, frame))
        assert (await asked(ws, say(2)))["type"] == "say"  # a short one still has room


async def test_one_message_of_more_bytes_than_come_at_once() -> None:
    """It is let through by a full bucket and paid off after, so that no message is too large for ever."""
    async with serve(application(RateLimit(bytes="100 B per minute"))) as server, connect(server) as ws:
        assert (await asked(ws, say(1, "x" * 1000)))["type"] == "say"
        refusal = await asked(ws, say(2))
        assert is_refusal(refusal)
        assert refusal["error"]["after_ms"] > 9 * 60_000


async def test_a_flood_of_bytes_is_warned_before_it_is_closed() -> None:
    """However large the frames, the first that is too much is answered, and the flood ends with 4529."""
    async with serve(application(RateLimit(bytes="1 KiB per hour"))) as server, connect(server) as ws:
        for id in range(3):
            await ws.send(say(id, "x" * 30_000))
        frames, code = await all_until_closed(ws)
    assert [frame["type"] for frame in frames] == ["say", "$error"]
    assert code == 4529


async def test_messages_and_bytes_together() -> None:
    """Whichever is used up first refuses, and the longer time is told."""
    limit = RateLimit(messages="10/hour", bytes="200 B per day")
    async with serve(application(limit)) as server, connect(server) as ws:
        assert (await asked(ws, say(1, "x" * 120)))["type"] == "say"
        refusal = await asked(ws, say(2))
        assert is_refusal(refusal)
        assert refusal["error"]["after_ms"] > 3_600_000


async def test_a_user_s_connections_share_one_allowance() -> None:
    """per="user" counts all connections of a user together; others, and who has no user, count by themselves."""
    limit = RateLimit(messages="3/hour", per="user")
    app = application(limit, guards=[sign_in])
    ada, bob = {"x-user": "ada"}, {"x-user": "bob"}
    async with (
        serve(app) as server,
        connect(server, additional_headers=ada) as phone,
        connect(server, additional_headers=ada) as laptop,
        connect(server, additional_headers=bob) as other,
        connect(server) as first,
        connect(server) as second,
    ):
        assert (await asked(phone, say(1)))["type"] == "say"
        assert (await asked(laptop, say(1)))["type"] == "say"
        assert (await asked(phone, say(2)))["type"] == "say"
        assert is_refusal(await asked(laptop, say(2)))
        assert is_refusal(await asked(phone, say(3)))
        for ws in (other, first, second):
            for id in range(3):
                assert (await asked(ws, say(id)))["type"] == "say"
            assert is_refusal(await asked(ws, say(3)))
        assert limit.stats() == RateLimitStats(connections=5, users=2, refused=5, closed=0)


async def test_to_connect_anew_does_not_renew_a_user_s_allowance() -> None:
    """It outlives the user's last connection until it would be full again, and is forgotten then."""
    limit = RateLimit(messages="4 per 4 seconds", per="user")
    ada = {"x-user": "ada"}
    async with serve(application(limit, guards=[sign_in])) as server:
        async with connect(server, additional_headers=ada) as ws:
            for id in range(4):
                assert (await asked(ws, say(id)))["type"] == "say"
        await eventually(lambda: limit.stats().connections == 0)
        async with connect(server, additional_headers=ada) as ws:
            assert is_refusal(await asked(ws, say(5)))
        await eventually(lambda: limit.stats().connections == 0)
        assert limit.stats().users == 1
        await eventually(lambda: limit.stats().users == 0, 6)


async def test_several_limits_all_count() -> None:
    """Limits of routers and class hold together; what one refuses uses up none of the others."""
    short, long = RateLimit(messages="2 per 40 minutes"), RateLimit(messages="4/day")

    class Limited(Echo):
        middleware = [long]

    outer = RateLimit(messages="1000/second")
    async with serve(application(outer, short, outer, handler=Limited)) as server, connect(server) as ws:
        for id in range(2):
            assert (await asked(ws, say(id)))["type"] == "say"
        for id in range(2, 6):
            assert is_refusal(await asked(ws, say(id)))
        assert [each.stats().refused for each in (outer, short, long)] == [0, 4, 0]


async def test_one_limit_that_is_listed_twice_counts_once() -> None:
    """The same object on router and class takes one from the allowance per frame, not two."""
    limit = RateLimit(messages="4/hour")

    class Limited(Echo):
        middleware = [limit]

    async with serve(application(limit, handler=Limited)) as server, connect(server) as ws:
        answers = [await asked(ws, say(id)) for id in range(5)]
    assert [is_refusal(answer) for answer in answers] == [False] * 4 + [True]


async def test_it_is_added_like_any_middleware() -> None:
    """router.middleware(...) adds a limit, beside middleware that wraps messages and sees only what is let through."""
    seen: list[str] = []
    router = WebSocketRouter()
    limit = router.middleware(RateLimit(messages="1/hour"))

    @router.middleware
    async def note(message: Envelope, connection: Connection, call_next: Any) -> None:
        seen.append(message.type)
        await call_next(message)

    router.add_handler("/", Echo)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server) as ws:
        assert (await asked(ws, say(1)))["type"] == "say"
        assert is_refusal(await asked(ws, say(2)))
    assert seen == ["say"]
    assert limit.stats().refused == 1


@pytest.mark.parametrize(
    ("frame", "id"),
    [
        ('{"type":"say","id":"a"}', "a"),
        ('{"type":"$auth","id":7}', 7),
        ('{"type":"say","data":{"id":1}}', None),
        ('{"id":1.5}', None),
        ('{"id":null}', None),
        ('{"id":true}', None),
        ('{"id":"' + "x" * 65 + '"}', None),
        ('{"type":"$cancel","id":7}', None),
        ('{"id":', None),
        ("[" * 300, None),
        ('[{"id":1}]', None),
        ('{"id":"\\ud800"}', None),
        (b"\xff\x00", None),
        ('{"type":"say","id":1,"data":"' + "x" * 4096 + '"}', None),
    ],
)
async def test_an_error_carries_the_id_of_its_own_frame_or_none(frame: str | bytes, id: str | int | None) -> None:
    """An id deeper in the frame is not it, nor that which a $cancel names; a long frame is not read for it."""
    async with serve(application(RateLimit(messages="1/hour"))) as server, connect(server) as ws:
        await asked(ws, say())
        refusal = await asked(ws, frame)
    assert is_refusal(refusal)
    assert refusal.get("id") == id


class Slow(WebSocketHandler):
    """Answers when it is told to."""

    go: asyncio.Event
    cancel_on_disconnect = True

    @on
    async def say(self, message: Say) -> Say:
        await self.go.wait()
        return message


@pytest.mark.parametrize("most", [1, 4])
async def test_a_refusal_does_not_wait_for_what_is_handled(most: int) -> None:
    """The error comes while an earlier message is being handled; an id that is in flight closes as ever."""

    class Slowly(Slow):
        go = asyncio.Event()
        max_in_flight = most

    async with serve(application(RateLimit(messages="1/hour"), handler=Slowly)) as server, connect(server) as ws:
        await ws.send(say("slow"))
        assert is_refusal(await asked(ws, say("next")))
        Slowly.go.set()
        assert (await received(ws))["id"] == "slow"
        Slowly.go.clear()
    async with serve(application(RateLimit(messages="1/hour"), handler=Slowly)) as server, connect(server) as ws:
        await ws.send(say("slow"))
        await ws.send(say("slow"))
        _, code = await all_until_closed(ws)
        assert code == 4400


async def test_a_raw_handler_is_closed() -> None:
    """A raw protocol has no error frames and must not lose a frame in silence: the first that is too much closes."""

    class Raw(WebSocketHandler):
        async def on_message(self, text: str) -> str:
            return text

    async with serve(application(RateLimit(messages="2/hour"), handler=Raw)) as server, connect(server) as ws:
        for text in ("one", "two"):
            await ws.send(text)
            assert await ws.recv() == text
        await ws.send("three")
        frames, code = await all_until_closed(ws)
    assert (frames, code) == ([], 4529)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"messages": "20"},
        {"messages": "20/fortnight"},
        {"messages": "20 KiB/second"},
        {"messages": "-1/second"},
        {"messages": "0/second"},
        {"messages": "1.5/second"},
        {"messages": "20/0 seconds"},
        {"messages": 20},
        {"messages": (20, 0)},
        {"messages": (20, float("inf"))},
        {"messages": (20, float("nan"))},
        {"messages": (20,)},
        {"messages": "20/second", "burst": 0.04},
        {"messages": "20/second", "burst": 0},
        {"messages": "20/second", "per": "room"},
        {"bytes": "64 Kib per second"},
        {"bytes": ""},
    ],
)
def test_a_limit_that_can_t_be_read_is_refused(options: dict[str, Any]) -> None:
    """A mistake is reported when the limit is made, with what was expected."""
    with pytest.raises(ConfigurationError, match=r"RateLimit\(.*(such as|at least one|use|above zero)"):
        RateLimit(**options)


@pytest.mark.parametrize(
    ("name", "rate", "rest"),
    [
        ("messages", "20/second", (20, 20)),
        ("messages", "20 per second", (20, 20)),
        ("messages", "600/minute", (10, 600)),
        ("messages", "500 per 10 minutes", (500 / 600, 500)),
        ("messages", (3, 0.5), (6, 3)),
        ("bytes", "64 KiB per second", (65536, 65536)),
        ("bytes", "64KiB/second", (65536, 65536)),
        ("bytes", "1 MB per 2 seconds", (500_000, 1_000_000)),
        ("bytes", "36000/hour", (10, 36000)),
        ("bytes", "86400 bytes per day", (1, 86400)),
    ],
)
def test_how_rates_are_written(name: Literal["messages", "bytes"], rate: Any, rest: tuple[float, float]) -> None:
    """An amount with its unit per a number of seconds, minutes, hours or days, or amount and seconds."""
    limit = RateLimit(**{name: rate})
    assert tuple(getattr(limit, f"_{name}")) == pytest.approx(rest)


def test_a_bucket_holds_its_rate() -> None:
    """It gives its capacity at once and then its rate, never more than it holds, and its debts delay what follows."""
    bucket = Bucket(rate=10, capacity=20, now=100.0)
    for _ in range(20):
        assert bucket.wait(1, 100.0) == 0
        bucket.take(1)
    assert bucket.wait(1, 100.0) == pytest.approx(0.1)
    assert bucket.wait(1, 100.1) == 0
    assert bucket.wait(5, 100.1) == pytest.approx(0.4)
    assert bucket.until_full(100.1) == pytest.approx(1.9)
    assert bucket.wait(20, 1000.0) == 0
    assert bucket.wait(50, 1000.0) == 0
    bucket.take(50)
    assert bucket.wait(1, 1000.0) == pytest.approx(3.1)
    assert bucket.wait(1, 1003.1) == 0
