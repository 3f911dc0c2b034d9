"""What a handler may look like: mixins, overrides, unions, generics, many on one router and one on many."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import APIRouter, FastAPI, Query
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from tests.support import connect, serve
from wsrouter import CloseInfo, Connection, Envelope, Hub, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import TestConnection, WebSocketTestClient


class Container(containers.DeclarativeContainer):
    name = providers.Object("of the container")


def app_of(*handlers: type[WebSocketHandler], **options: Any) -> FastAPI:
    """Return an application that serves the handlers at `/0/{room}`, `/1/{room}` and so on."""
    app = FastAPI()
    router = WebSocketRouter(container=Container(), **options)
    for number, handler in enumerate(handlers):
        router.add_handler(f"/{number}/{{room}}", handler)
    app.include_router(router)
    return app


async def ask(app: FastAPI, type: str, data: Any = None, path: str = "/0/lobby?tag=a") -> Any:
    """Connect, send one message, and return the data of its reply, or its error code."""
    async with WebSocketTestClient(app) as client, client.connect(path) as ws:
        return await call(ws, type, data)


async def call(ws: TestConnection, type: str, data: Any = None) -> Any:
    await ws.send_json({"type": type, "id": 1, "data": data} if data is not None else {"type": type, "id": 1})
    reply = await ws.receive()
    return reply["error"]["code"] if reply["type"] == "$error" else reply.get("data")


class Say(Message):
    text: str


class Shout(Message):
    text: str


class HTTPSay(Message):
    text: str = "http"


class Talking(WebSocketHandler):
    @on
    async def say(self, message: Say) -> str:
        return f"{type(self).__name__} says {message.text}"

    async def on_connect(self) -> None:
        await self.send(Shout(text="connected"))

    async def on_disconnect(self, close: CloseInfo) -> None: ...


class Inheriting(Talking):
    @on
    async def shout(self, message: Shout) -> str:
        return f"{type(self).__name__} shouts {message.text}"


class Overriding(Talking):
    async def say(self, message: Say, room: str = "?", tag: Annotated[str, Query()] = "?") -> str:
        return f"{room} {tag}: " + await super().say(message)

    async def on_connect(self, room: str = "?") -> None:
        await self.send(Shout(text=f"connected to {room}"))


class Retyped(Talking):
    @on("speak")
    async def say(self, message: Say) -> str:
        return f"spoken {message.text}"


class Widened(Talking):
    async def say(self, message: Say | Shout) -> str:
        return f"{type(message).__name__} {message.text}"


class Silenced(Talking):
    say = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class Listening:
    """A mixin that is no handler itself."""

    @on("listen")
    async def listen(self, message: int, room: str) -> list[Any]:
        return [room, message]


class Mixed(Listening, Talking):
    pass


INHERITED: list[tuple[type[WebSocketHandler], str, dict[str, Any]]] = [
    (Talking, "connected", {"say": "Talking says hi", "shout": "unknown_type"}),
    (Inheriting, "connected", {"say": "Inheriting says hi", "shout": "Inheriting shouts hi"}),
    (Overriding, "connected to lobby", {"say": "lobby a: Overriding says hi", "shout": "unknown_type"}),
    (Retyped, "connected", {"say": "unknown_type", "speak": "spoken hi"}),
    (Widened, "connected", {"say": "Say hi", "shout": "Shout hi"}),
    (Silenced, "connected", {"say": "unknown_type"}),
    (Mixed, "connected", {"say": "Mixed says hi", "listen": ["lobby", 5]}),
]


@pytest.mark.parametrize(
    ("handler", "greeting", "answers"), INHERITED, ids=[handler.__name__ for handler, _, _ in INHERITED]
)
async def test_methods_are_inherited_and_overridden(
    handler: type[WebSocketHandler], greeting: str, answers: dict[str, Any]
) -> None:
    """An override keeps its registration and may add parameters; another type, a union or None replaces it."""
    async with WebSocketTestClient(app_of(handler)) as client, client.connect("/0/lobby?tag=a") as ws:
        assert await ws.receive(Shout) == Shout(text=greeting)
        for type_, answer in answers.items():
            assert await call(ws, type_, 5 if type_ == "listen" else {"text": "hi"}) == answer


ItemT = TypeVar("ItemT")


class Add(Message, Generic[ItemT]):
    item: ItemT


class Page(Message, Generic[ItemT], type="a.page"):
    items: list[ItemT]


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


@dataclass
class Point:
    x: int
    y: int


Either = TypeAliasType("Either", Say | Shout)


class Payloads(WebSocketHandler):
    @on
    async def either(self, message: Say | Shout) -> str:
        return f"{type(message).__name__} {message.text}"

    @on
    async def generic(self, message: Add[int]) -> int:
        return message.item + 1

    @on
    async def generic_with_a_type(self, message: Page[str]) -> Page[str]:
        return Page[str](items=[*message.items, "more"])

    @on
    async def http(self, message: HTTPSay) -> str:
        return message.text

    @on("draw")
    async def draw(self, shape: Circle | Square | None) -> str:
        return type(shape).__name__

    @on("point")
    async def point(self, point: Point) -> list[int]:
        return [point.y, point.x]

    @on("sum")
    async def sum(self, numbers: Annotated[list[int], "documented"]) -> int:
        return sum(numbers)

    @on("echo")
    async def echo(self, anything: Any) -> Any:
        return anything


async def test_payloads_of_every_sort() -> None:
    """A union of messages, generic messages, unions of models, dataclasses and anything that pydantic validates."""
    async with serve(app_of(Payloads)) as server, connect(server, "/0/lobby") as ws:
        for sent, expected in [
            ('{"type":"say","id":1,"data":{"text":"hi"}}', '{"type":"$ok","id":1,"data":"Say hi"}'),
            ('{"type":"shout","id":1,"data":{"text":"hi"}}', '{"type":"$ok","id":1,"data":"Shout hi"}'),
            ('{"type":"add","id":1,"data":{"item":1}}', '{"type":"$ok","id":1,"data":2}'),
            (
                '{"type":"a.page","id":1,"data":{"items":["a"]}}',
                '{"type":"a.page","id":1,"data":{"items":["a","more"]}}',
            ),
            ('{"type":"http_say","id":1}', '{"type":"$ok","id":1,"data":"http"}'),
            ('{"type":"draw","id":1,"data":{"kind":"circle","radius":1}}', '{"type":"$ok","id":1,"data":"Circle"}'),
            ('{"type":"draw","id":1}', '{"type":"$ok","id":1,"data":"NoneType"}'),
            ('{"type":"point","id":1,"data":{"x":1,"y":2}}', '{"type":"$ok","id":1,"data":[2,1]}'),
            ('{"type":"sum","id":1,"data":[1,2,3]}', '{"type":"$ok","id":1,"data":6}'),
            ('{"type":"echo","id":1,"data":{"a":[null]}}', '{"type":"$ok","id":1,"data":{"a":[null]}}'),
        ]:
            await ws.send(sent)
            assert await ws.recv() == expected
        for invalid in (
            '{"type":"add","id":1,"data":{"item":"one"}}',
            '{"type":"draw","id":1,"data":{"kind":"line"}}',
            '{"type":"point","id":1,"data":{"x":1}}',
            '{"type":"sum","id":1}',
        ):
            await ws.send(invalid)
            assert '"code":"invalid"' in str(await ws.recv())


async def test_a_union_behind_a_name_is_a_union() -> None:
    """A type alias of messages (`type Either = Say | Shout`) registers each of them."""

    class Handler(WebSocketHandler):
        @on
        async def either(self, message: Either) -> str:
            return type(message).__name__

    app = app_of(Handler)
    assert await ask(app, "say", {"text": "hi"}) == "Say"
    assert await ask(app, "shout", {"text": "hi"}) == "Shout"


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("Say", "say"),
        ("HTTPSay", "http_say"),
        ("SayHTTP", "say_http"),
        ("TypingNotice", "typing_notice"),
        ("Say2", "say2"),
        ("V2Say", "v2_say"),
        ("say_hello", "say_hello"),
        ("_Say", "_say"),
    ],
)
def test_the_type_of_a_message_is_its_name_in_snake_case(name: str, type_: str) -> None:
    """Words are found by their capitals; a run of capitals is one word."""
    message: type[Message] = type(name, (Message,), {})
    assert message.__message_type__ == type_


def test_a_subclass_of_a_message_has_a_type_of_its_own() -> None:
    """The class keyword is not inherited; what a generic message is filled with does not change its type."""

    class Said(Message, type="chat.said"):
        text: str

    class SaidLoudly(Said):
        pass

    assert Said.__message_type__ == "chat.said"
    assert SaidLoudly.__message_type__ == "said_loudly"
    assert Add[int].__message_type__ == Add[str].__message_type__ == "add"
    assert Page[int].__message_type__ == "a.page"


class Naming(WebSocketHandler):
    @on("name")
    async def name(self, message: None) -> str:
        return type(self).__name__


class Other(Naming):
    pass


async def test_several_handlers_on_one_router() -> None:
    """By decorator and by call, with the same methods and each with its path and the name of its route."""
    router = WebSocketRouter(prefix="/ws")

    @router.handler("/decorated")
    class Decorated(Naming):
        pass

    assert Decorated.__name__ == "Decorated"
    router.add_handler("/naming", Naming)
    router.add_handler("/other/{room}", Other, name="the-other")
    app = FastAPI()
    app.include_router(router)
    for path, name in [("/ws/decorated", "Decorated"), ("/ws/naming", "Naming"), ("/ws/other/1", "Other")]:
        assert await ask(app, "name", path=path) == name
    assert app.url_path_for("Decorated") == "/ws/decorated"
    assert app.url_path_for("the-other", room="1") == "/ws/other/1"


async def test_one_class_on_two_routers() -> None:
    """Nothing of a router is kept on the class: each gives it its own guards, container and hub."""
    passed: list[str] = []

    class Handler(WebSocketHandler):
        def __init__(self, name: Annotated[str, Provide["name"]], hub: Hub) -> None:
            self.name, self.hub = name, hub

        @on("use")
        async def use(self, message: None, hub: Hub) -> list[Any]:
            assert hub is self.hub
            return [self.name, len(hub.connections)]

    class Another(containers.DeclarativeContainer):
        name = providers.Object("of another")

    async def guard(connection: Connection) -> None:
        passed.append(connection.path_params.get("room", "-"))

    before = dict(vars(Handler))
    one, two = WebSocketRouter(container=Container(), guards=[guard]), WebSocketRouter(container=Another())
    one.add_handler("/one", Handler)
    one.add_handler("/one/{room}", Handler)
    two.add_handler("/two", Handler)
    app = FastAPI()
    app.include_router(one)
    app.include_router(two)
    async with (
        WebSocketTestClient(app) as client,
        client.connect("/one") as first,
        client.connect("/one/x") as second,
        client.connect("/two") as other,
    ):
        assert await call(first, "use") == ["of the container", 2]
        assert await call(second, "use") == ["of the container", 2]
        assert await call(other, "use") == ["of another", 1]
    assert passed == ["-", "x"]
    assert dict(vars(Handler)) == before


async def test_handlers_that_are_added_after_the_inclusion_are_served() -> None:
    """FastAPI includes lazily: what comes to a router later, or to one below it, is served with all guards."""
    passed: list[str] = []

    async def guard() -> None:
        passed.append("guard")

    outer, between, inner = WebSocketRouter(prefix="/outer", guards=[guard]), APIRouter(), WebSocketRouter()
    between.include_router(inner)
    outer.include_router(between)
    app = FastAPI()
    app.include_router(outer)
    inner.add_handler("/late", Naming)
    outer.add_handler("/later", Other)
    async with WebSocketTestClient(app) as client:
        inner.add_handler("/running", Naming)
        for path, name in [("/outer/late", "Naming"), ("/outer/later", "Other"), ("/outer/running", "Naming")]:
            async with client.connect(path) as ws:
                assert await call(ws, "name") == name
    assert passed == ["guard"] * 3


async def test_on_message_beside_on_methods() -> None:
    """It takes what no method claims: an Envelope, or binary frames."""

    class Rest(Naming):
        async def on_message(self, message: Envelope) -> str:
            return f"rest: {message.type} {message.data}"

    class Binary(Naming):
        async def on_message(self, frame: bytes) -> int:
            return len(frame)

    app = app_of(Rest, Binary)
    async with WebSocketTestClient(app) as client:
        async with client.connect("/0/x") as ws:
            assert await call(ws, "name") == "Rest"
            assert await call(ws, "unheard", [1]) == "rest: unheard [1]"
        async with client.connect("/1/x") as ws:
            assert await call(ws, "name") == "Binary"
            await ws.send_frame(b"12345")
            assert await ws.receive() == {"type": "$ok", "data": 5}
