"""`$join` and `$leave`: rooms that clients may join by themselves."""

from typing import Annotated, Any

import pytest
from fastapi import Depends
from websockets.asyncio.client import ClientConnection

from tests.envelopes import app_of, receive, send
from tests.support import connect, eventually, serve
from wsrouter import (
    ConfigurationError,
    Deny,
    Hub,
    Limits,
    Message,
    RoomOptions,
    WebSocketHandler,
    WebSocketRouter,
    on,
)


class Said(Message):
    text: str


class Reader(WebSocketHandler):
    """May read the news, but not the bad ones."""

    client_rooms = ["news:*", "lobby"]
    closed = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def on_join(self, room: str, opened: Annotated[str, Depends(lambda: "opened")]) -> None:
        assert opened == "opened"
        assert room not in self.connection.rooms
        self.asked.append(room)
        if room == "news:bad":
            raise Deny(403, reason="Too sad")

    @on("asked")
    async def what_was_asked(self, payload: None) -> list[str]:
        return self.asked


async def call(ws: ClientConnection, type: str, data: Any = None, id: int = 1) -> dict[str, Any]:
    """Send a message with an id, and return its reply."""
    await send(ws, type, data, id=id)
    answer: dict[str, Any] = await receive(ws)
    assert answer["id"] == id
    return answer


async def test_a_client_joins_and_leaves() -> None:
    """A room that the class allows is joined after `on_join` agreed, and left again."""
    hub = Hub()
    async with serve(app_of(Reader, hub=hub)) as server, connect(server) as ws:
        assert (await call(ws, "$join", {"room": "news:good"}))["type"] == "$ok"
        assert hub.rooms == {"news:good": 1}
        await hub.broadcast("news:good", Said(text="hi"))
        assert (await receive(ws)) == {"type": "said", "room": "news:good", "data": {"text": "hi"}}
        assert (await call(ws, "$leave", {"room": "news:good"}))["type"] == "$ok"
        assert hub.rooms == {}


async def test_without_an_id_nothing_is_answered_but_errors() -> None:
    """A join is a call like any other: without an id there is no bare `$ok`."""
    hub = Hub()
    async with serve(app_of(Reader, hub=hub)) as server, connect(server) as ws:
        await send(ws, "$join", {"room": "lobby"})
        await send(ws, "$join", {"room": "news:bad"})
        error = await receive(ws)
        assert (error["type"], error["error"]["code"], error["error"]["message"]) == ("$error", "forbidden", "Too sad")
        assert hub.rooms == {"lobby": 1}


async def test_on_join_is_asked_before_membership_and_once() -> None:
    """It decides; whoever is a member already is not asked again."""
    hub = Hub()
    async with serve(app_of(Reader, hub=hub)) as server, connect(server) as ws:
        for room, code in ("news:a", None), ("news:a", None), ("news:bad", "forbidden"), ("lobby", None):
            answer = await call(ws, "$join", {"room": room})
            assert answer.get("error", {}).get("code") == code
        assert (await call(ws, "asked"))["data"] == ["news:a", "news:bad", "lobby"]
        assert hub.rooms == {"news:a": 1, "lobby": 1}


@pytest.mark.parametrize("room", ["", "new", "news", "NEWS:a", "xnews:a", "lobby\n", "lobby:x", "*"])
async def test_other_rooms_are_forbidden(room: str) -> None:
    """What no pattern allows is not joined, and `on_join` does not hear of it."""
    hub = Hub()
    async with serve(app_of(Reader, hub=hub)) as server, connect(server) as ws:
        assert (await call(ws, "$join", {"room": room}))["error"]["code"] == "forbidden"
        assert (await call(ws, "asked"))["data"] == []
        assert hub.rooms == {}


@pytest.mark.parametrize(
    "data", [None, "lobby", {}, {"room": 1}, {"room": None}, {"room": ["lobby"]}, {"room": "lobby", "more": 1}, []]
)
@pytest.mark.parametrize("type", ["$join", "$leave"])
async def test_what_is_no_request_is_invalid(type: str, data: Any) -> None:
    """A join without a room is answered as any message that does not validate."""
    async with serve(app_of(Reader)) as server, connect(server) as ws:
        assert (await call(ws, type, data))["error"]["code"] == "invalid"


async def test_limits_hold_for_clients_too() -> None:
    """The length of names, the rooms of a connection and the members of a room are answered as errors."""
    hub = Hub(rooms={"lobby": RoomOptions(max_members=1)})
    router = WebSocketRouter(hub=hub, limits=Limits(rooms=2, name_bytes=20))
    router.add_handler("/", Reader)
    app = app_of(Reader)
    app.include_router(router, prefix="/limited")
    async with serve(app) as server, connect(server, "/limited/") as one, connect(server, "/limited/") as two:
        assert (await call(one, "$join", {"room": "news:" + "a" * 16}))["error"]["code"] == "invalid"
        assert (await call(one, "asked"))["data"] == [], "no hook has to deal with such a name"
        assert (await call(one, "$join", {"room": "lobby"}))["type"] == "$ok"
        assert (await call(two, "$join", {"room": "lobby"}))["error"]["code"] == "conflict"
        assert (await call(one, "$join", {"room": "news:1"}))["type"] == "$ok"
        assert (await call(one, "$join", {"room": "news:2"}))["error"]["code"] == "conflict"
        assert (await call(one, "$leave", {"room": "lobby"}))["type"] == "$ok"
        assert (await call(one, "$join", {"room": "news:2"}))["type"] == "$ok"
        assert (await call(two, "$join", {"room": "lobby"}))["type"] == "$ok"


async def test_without_client_rooms_there_is_no_join() -> None:
    """By default clients may join nothing: the type is as unknown as any other."""

    class Plain(WebSocketHandler):
        @on("ping")
        async def ping(self, payload: None) -> None: ...

    async with serve(app_of(Plain)) as server, connect(server) as ws:
        for type in "$join", "$leave":
            assert (await call(ws, type, {"room": "lobby"}))["error"]["code"] == "unknown_type"


async def test_what_the_server_joined_is_not_for_clients_to_leave() -> None:
    """A client leaves only what it may join; a room that the server chose stays."""

    class Placed(WebSocketHandler):
        client_rooms = ["news:*"]

        async def on_connect(self) -> None:
            await self.join("place")

    hub = Hub()
    async with serve(app_of(Placed, hub=hub)) as server, connect(server) as ws:
        await eventually(lambda: hub.rooms == {"place": 1})
        assert (await call(ws, "$leave", {"room": "place"}))["error"]["code"] == "forbidden"
        assert hub.rooms == {"place": 1}


async def test_a_plain_function_decides_too() -> None:
    """`on_join` may be a plain function, which runs in a thread."""

    class Waiting(WebSocketHandler):
        client_rooms = ["*"]

        def on_join(self, room: str) -> None:
            if room == "closed":
                raise Deny(403)

    hub = Hub()
    async with serve(app_of(Waiting, hub=hub)) as server, connect(server) as ws:
        assert (await call(ws, "$join", {"room": "closed"}))["error"]["code"] == "forbidden"
        assert (await call(ws, "$join", {"room": "open"}))["type"] == "$ok"
        assert hub.rooms == {"open": 1}


@pytest.mark.logs_errors
@pytest.mark.parametrize("answer", [False, True, "no", 0, []])
async def test_what_is_no_answer_lets_nobody_in(answer: Any) -> None:
    """A hook that returns whether a client may join, in place of raising, has not decided: nobody joins."""

    class Deciding(WebSocketHandler):
        client_rooms = ["*"]

        async def on_join(self, room: str) -> Any:
            return answer

    hub = Hub()
    async with serve(app_of(Deciding, hub=hub)) as server, connect(server) as ws:
        assert (await call(ws, "$join", {"room": "lobby"}))["error"]["code"] == "internal"
        assert hub.rooms == {}


def test_mistakes_are_told_at_registration() -> None:
    """A hook that never runs, a generator, and patterns that are none."""

    class Never(WebSocketHandler):
        async def on_join(self, room: str) -> None: ...

    class Yields(WebSocketHandler):
        client_rooms = ["a"]

        async def on_join(self, room: str) -> Any:
            yield room

    class Text(WebSocketHandler):
        client_rooms = "news:*"

    class Empty(WebSocketHandler):
        client_rooms = [""]

    class NoRoom(WebSocketHandler):
        client_rooms = ["a"]

        async def on_join(self) -> None: ...

    for cls, text in [
        (Never, "client_rooms"),
        (Yields, "remove the yield"),
        (Text, "expected a list"),
        (Empty, "is no name"),
        (NoRoom, "on_join"),
    ]:
        with pytest.raises(ConfigurationError, match=text) as failure:
            WebSocketRouter().add_handler("/", cls)
        assert cls.__qualname__ in str(failure.value)


async def test_what_is_of_no_use_in_a_room_harms_nobody() -> None:
    """Clients may send a position to a room without history, and `on_join` tell of presence where there is none."""

    class Telling(WebSocketHandler):
        client_rooms = ["news:*", "desk:*"]

        async def on_join(self, room: str) -> dict[str, str]:
            return {"reads": room}

    hub = Hub(rooms={"desk:*": RoomOptions(presence=True)})
    async with serve(app_of(Telling, hub=hub)) as server, connect(server) as ws:
        assert (await call(ws, "$join", {"room": "news:1", "since": "epoch:7"})) == {"type": "$ok", "id": 1}
        await send(ws, "$join", {"room": "desk:1", "since": "nonsense"}, id=2)
        frames = {frame["type"]: frame for frame in [await receive(ws) for _ in range(3)]}
        assert frames["$ok"] == {"type": "$ok", "id": 2}
        (told,) = frames["$presence_diff"]["data"]["join"].values()
        assert [*told.values()] == [{"reads": "desk:1"}]
        assert hub.rooms == {"news:1": 1, "desk:1": 1}
