"""Mistakes in what classes and routers are given, and routes that are no handlers, are reported where they are made."""

import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import pytest
from dependency_injector import containers
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.routing import APIWebSocketRoute
from starlette.routing import Match, Route
from starlette.types import Scope

from tests.mistakes import Mistake, Mistakes, app_of, check_refused, check_refused_at_start, register
from wsrouter import ConfigurationError, Connection, Hub, Limits, WebSocketHandler, WebSocketRouter
from wsrouter.guards import AllowOrigins
from wsrouter.testing import WebSocketTestClient

mistakes, late_mistakes = Mistakes(), Mistakes()


T = TypeVar("T")


class Container(containers.DeclarativeContainer):
    pass


@mistakes.refused("object", "WebSocketHandler")
def a_class_that_is_no_handler() -> None:
    register(object)


@mistakes.refused("Chat", "WebSocketHandler", "class")
def an_instance_in_place_of_the_class() -> None:
    class Chat(WebSocketHandler):
        pass

    register(Chat())


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "4", None])
def test_max_in_flight_is_a_count(most: Any) -> None:
    """max_in_flight that is no integer above zero is refused at registration."""

    class Chat(WebSocketHandler):
        max_in_flight = most

    with pytest.raises(ConfigurationError, match=r"Chat\.max_in_flight = .*: use 1 or more"):
        register(Chat)


@pytest.mark.parametrize(
    "limits",
    [
        {"message_size": 0},
        {"inbox_messages": -1},
        {"send": "10"},
        {"handshake": None},
        {"drain": float("nan")},
        {"rooms": True},
    ],
)
def test_a_limit_is_above_zero(limits: dict[str, Any]) -> None:
    """A limit that is no number above zero is refused where Limits is made, by its name."""
    (name,) = limits
    with pytest.raises(ConfigurationError, match=rf"Limits\({name}=.*\): expected a number above zero"):
        Limits(**limits)


@mistakes.refused("Chat.limits", "Limits(")
def limits_that_are_none() -> None:
    values: Any = {"message_size": 10}

    class Chat(WebSocketHandler):
        limits = values

    register(Chat)


@mistakes.refused("WebSocketRouter(prefix='/ws')", "argument 'limits'", "Limits(")
def limits_of_a_router_that_are_none() -> None:
    values: Any = {"message_size": 10}
    WebSocketRouter(prefix="/ws", limits=values)


@mistakes.refused("WebSocketRouter(", "argument 'hub'", "Hub()")
def a_hub_that_is_a_class() -> None:
    hub: Any = Hub
    WebSocketRouter(hub=hub)


@mistakes.refused("WebSocketRouter(", "argument 'container'", "Container()")
def a_container_that_is_a_class() -> None:
    container: Any = Container
    WebSocketRouter(container=container)


@mistakes.refused("WebSocketRouter(", "reject='silently'", "'http', 'close' or 'auto'")
def a_reject_that_is_none() -> None:
    reject: Any = "silently"
    WebSocketRouter(reject=reject)


@mistakes.refused("WebSocketRouter(prefix='/ws')", "'auth'", "callable")
def a_guard_that_cannot_be_called() -> None:
    guard: Any = "auth"
    WebSocketRouter(prefix="/ws", guards=[guard])


@mistakes.refused("Chat", "None", "callable")
def a_guard_of_a_class_that_cannot_be_called() -> None:
    class Chat(WebSocketHandler):
        guards = [Depends()]

    register(Chat)


@mistakes.refused("WebSocketRouter(", "AllowOrigins", "list an instance, AllowOrigins(...)")
def a_guard_that_is_a_class() -> None:
    WebSocketRouter(guards=[AllowOrigins])


@mistakes.refused("WebSocketRouter(", "list an instance, AllowOrigins(...)")
def a_guard_that_is_a_class_with_arguments() -> None:
    WebSocketRouter(guards=[functools.partial(AllowOrigins, "https://app.example")])


def current_user() -> str:
    return "ann"


CurrentUser: Any = Annotated[str, Depends(current_user)]


@mistakes.refused("WebSocketRouter(", "is a type", "give the callable, current_user")
def a_guard_by_the_alias_of_its_value() -> None:
    WebSocketRouter(guards=[CurrentUser])


@mistakes.refused("WebSocketRouter(", "is a type", "give the callable, current_user")
def a_guard_by_depends_of_the_alias() -> None:
    WebSocketRouter(guards=[Depends(CurrentUser)])


@mistakes.refused("Chat", "is a type", "give the callable, current_user")
def a_guard_of_a_class_by_the_alias() -> None:
    class Chat(WebSocketHandler):
        guards = [CurrentUser]

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'repository'", "is a type", "write a function")
def a_dependency_that_is_a_generic_class() -> None:
    class Repository(Generic[T]):
        pass

    class Chat(WebSocketHandler):
        def __init__(self, repository: Annotated[Repository[int], Depends()]) -> None: ...

    register(Chat)


@mistakes.refused("WebSocketRouter(", "is a type", "write a function")
def a_guard_that_is_a_generic_class() -> None:
    class Role(Generic[T]):
        pass

    WebSocketRouter(guards=[Role[int]])


@mistakes.refused("Chat", "guard", "Check has no hash", "frozen=True")
def a_guard_without_a_hash() -> None:
    @dataclass
    class Check:
        name: str

        async def __call__(self) -> None: ...

    Check.__qualname__ = "Check"

    class Chat(WebSocketHandler):
        guards = [Check("a")]

    register(Chat)


@mistakes.refused("Chat.guards", "a list")
def guards_that_are_no_list() -> None:
    async def check() -> None: ...

    guard: Any = check

    class Chat(WebSocketHandler):
        guards = guard

    register(Chat)


@mistakes.refused("WebSocketRouter(", "argument 'guards'", "a list")
def guards_of_a_router_that_are_no_list() -> None:
    async def check() -> None: ...

    guard: Any = check
    WebSocketRouter(guards=guard)


@mistakes.refused("WebSocketRouter(", "middleware passing", "async def (message, connection, call_next)")
def middleware_that_is_not_async() -> None:
    def passing(message: Any, connection: Connection, call_next: Any) -> None: ...

    passing.__qualname__ = "passing"
    WebSocketRouter(middleware=[passing])


@mistakes.refused("WebSocketRouter(", "middleware passing", "(message, connection, call_next)")
def middleware_with_two_parameters() -> None:
    async def passing(message: Any, call_next: Any) -> None: ...

    passing.__qualname__ = "passing"
    WebSocketRouter().middleware(passing)


@mistakes.refused("Chat", "middleware Passing", "give an instance")
def middleware_of_a_class_that_is_a_class() -> None:
    class Passing:
        async def __call__(self, message: Any, connection: Connection, call_next: Any) -> None: ...

    Passing.__qualname__ = "Passing"

    class Chat(WebSocketHandler):
        middleware = [Passing]

    register(Chat)


@mistakes.refused("Chat", "middleware passing, parameter 'request'", "HTTPConnection")
def middleware_of_a_class_that_asks_for_a_request() -> None:
    async def passing(message: Any, connection: Connection, call_next: Any, request: Request) -> None: ...

    passing.__qualname__ = "passing"

    class Chat(WebSocketHandler):
        middleware = [passing]

    register(Chat)


@mistakes.refused("Chat.middleware", "a list")
def middleware_that_is_no_list() -> None:
    async def passing(message: Any, connection: Connection, call_next: Any) -> None: ...

    function: Any = passing

    class Chat(WebSocketHandler):
        middleware = function

    register(Chat)


@mistakes.refused("WebSocketRouter(", "exception handler answer", "the exception")
def an_exception_handler_without_a_parameter() -> None:
    async def answer() -> None: ...

    answer.__qualname__ = "answer"
    WebSocketRouter().exception_handler(LookupError)(answer)


@mistakes.refused("WebSocketRouter(", "exception handler answer", "yield")
def an_exception_handler_that_streams() -> None:
    async def answer(exc: LookupError) -> AsyncIterator[int]:
        yield 1

    answer.__qualname__ = "answer"
    WebSocketRouter().exception_handler(LookupError)(answer)


@mistakes.refused("WebSocketRouter(", "exception_handler(404)", "exception class")
def an_exception_handler_for_a_status() -> None:
    status: Any = 404
    WebSocketRouter().exception_handler(status)


@mistakes.refused("exception_handler(ExceptionGroup)", "one of its exceptions", "their class")
def an_exception_handler_for_groups() -> None:
    WebSocketRouter().exception_handler(ExceptionGroup)


@mistakes.refused("WebSocketRouter(prefix='/ws').handler(", "Chat)", "@router.handler('/path')")
def a_decorator_without_a_path() -> None:
    decorate: Any = WebSocketRouter(prefix="/ws").handler

    @decorate
    class Chat(WebSocketHandler):
        pass


@mistakes.refused("WebSocketRouter(prefix='/ws')", "Chat", "'chat'", "'/chat'")
def a_path_that_begins_without_a_slash() -> None:
    class Chat(WebSocketHandler):
        pass

    WebSocketRouter(prefix="/ws").add_handler("chat", Chat)


@mistakes.refused("Chat.__init__", "async def", "on_connect")
def a_constructor_that_is_async() -> None:
    class Chat(WebSocketHandler):
        async def __init__(self) -> None:  # type: ignore[misc]
            pass

    register(Chat)


@mistakes.refused("Chat.on_message", "beside client_rooms it reads", "Envelope")
def rooms_for_clients_of_a_handler_that_reads_text() -> None:
    class Chat(WebSocketHandler):
        client_rooms = ["news:*"]

        async def on_message(self, text: str) -> None: ...

    register(Chat)


@late_mistakes.refused("Chat", "__init__", "@router.handler(...) above @dataclass")
def a_class_that_becomes_a_dataclass_when_it_is_registered() -> FastAPI:
    router = WebSocketRouter()

    @dataclass
    @router.handler("/{room}")
    class Chat(WebSocketHandler):
        room: str

    assert Chat is not None
    return app_of(router)


async def endpoint() -> None: ...


ROUTES: list[tuple[str, Callable[[WebSocketRouter], object]]] = [
    ("get", lambda router: router.get("/other")(endpoint)),
    ("post", lambda router: router.post("/other")(endpoint)),
    ("api_route", lambda router: router.api_route("/other")(endpoint)),
    ("add_api_route", lambda router: router.add_api_route("/other", endpoint)),
    ("route", lambda router: router.add_route("/other", endpoint)),
    ("websocket", lambda router: router.websocket("/other")(endpoint)),
    ("add_api_websocket_route", lambda router: router.add_api_websocket_route("/other", endpoint)),
    ("add_websocket_route", lambda router: router.add_websocket_route("/other", endpoint)),
    ("mount", lambda router: router.mount("/other", FastAPI())),
    ("host", lambda router: router.host("/other", FastAPI())),
]


@pytest.mark.parametrize("add", [add for _, add in ROUTES], ids=[name for name, _ in ROUTES])
def test_a_router_holds_handlers_only(add: Callable[[WebSocketRouter], object]) -> None:
    """Any other route would run none of the guards: it is refused where it is added, with the place to put it."""
    with pytest.raises(ConfigurationError) as wrong:
        add(WebSocketRouter(prefix="/ws"))
    assert "WebSocketRouter(prefix='/ws')" in str(wrong.value)
    assert "'/other'" in str(wrong.value)
    assert "APIRouter or the app" in str(wrong.value)


def plain_router() -> APIRouter:
    router = APIRouter()
    router.add_api_route("/other", endpoint)
    return router


@mistakes.refused("WebSocketRouter(prefix='/ws').include_router", "'/other'", "APIRouter or the app")
def inclusion_of_a_router_with_other_routes() -> None:
    WebSocketRouter(prefix="/ws").include_router(plain_router())


@mistakes.refused("WebSocketRouter(prefix='/ws').include_router", "other'", "APIRouter or the app")
def inclusion_of_a_router_that_includes_other_routes() -> None:
    between = APIRouter()
    between.include_router(plain_router(), prefix="/deep")
    WebSocketRouter(prefix="/ws").include_router(between)


@late_mistakes.refused("WebSocketRouter(prefix='/ws')", "other'", "APIRouter or the app")
def a_route_that_is_added_after_the_inclusion() -> FastAPI:
    outer, inner = WebSocketRouter(prefix="/ws"), APIRouter()
    outer.include_router(inner)
    inner.add_api_route("/other", endpoint)
    return app_of(outer)


@late_mistakes.refused("WebSocketRouter(prefix='/ws')", "other'", "APIRouter or the app")
def a_route_that_is_added_deep_after_the_inclusion() -> FastAPI:
    outer, between, inner = WebSocketRouter(prefix="/ws"), APIRouter(), APIRouter()
    between.include_router(inner)
    outer.include_router(between)
    app = app_of(outer)
    inner.add_api_websocket_route("/other", endpoint)
    return app


@late_mistakes.refused("WebSocketRouter(prefix='/ws')", "'/other'", "APIRouter or the app")
def a_route_that_is_slipped_in() -> FastAPI:
    router = WebSocketRouter(prefix="/ws")
    router.routes.append(Route("/other", endpoint))
    return app_of(router)


class Chat(WebSocketHandler):
    async def on_message(self, text: str) -> None: ...


class News(Chat): ...


def chat_and_news_on(second: str) -> FastAPI:
    router = WebSocketRouter(prefix="/ws")
    router.add_handler("/{room}", Chat)
    router.add_handler(second, News)
    return app_of(router)


@late_mistakes.refused("News", "Chat, which comes first", "'/ws/{room}'", "another path")
def two_handlers_on_one_path() -> FastAPI:
    return chat_and_news_on("/{room}")


@late_mistakes.refused("News", "Chat, which comes first", "'/ws/{room}'", "another path")
def two_handlers_on_one_path_with_other_names_in_it() -> FastAPI:
    return chat_and_news_on("/{place}")


@late_mistakes.refused("Chat", "'/ws/chat' is there twice", "include its router once")
def a_router_that_is_included_twice() -> FastAPI:
    router = WebSocketRouter(prefix="/ws")
    router.add_handler("/chat", Chat)
    return app_of(router, router)


class OfVersion(APIWebSocketRoute):
    """A route that some connections go past."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.NONE, {}


async def test_a_route_that_chooses_for_itself_may_come_first() -> None:
    """It does not get all connections of its path."""
    app = FastAPI()
    app.router.routes.append(OfVersion("/chat", endpoint))
    router = WebSocketRouter()
    router.add_handler("/chat", Chat)
    router.add_handler("/{number:int}", Chat)
    router.add_handler("/{room}", News)
    app.include_router(router)
    app.include_router(router, prefix="/other")
    async with WebSocketTestClient(app) as client:
        for path in ("/chat", "/5", "/tea", "/other/chat"):
            async with client.connect(path):
                pass


@late_mistakes.refused("Chat", "talk, which comes first", "'/ws/chat'", "another path")
def a_handler_on_the_path_of_a_plain_endpoint() -> FastAPI:
    app = FastAPI()

    @app.websocket("/ws/chat")
    async def talk(websocket: WebSocket) -> None: ...

    assert talk is not None
    router = WebSocketRouter(prefix="/ws")
    router.add_handler("/chat", Chat)
    app.include_router(router)
    return app


@mistakes.each()
def test_a_mistake_in_what_is_given_is_refused_at_once(mistake: Mistake) -> None:
    """Where the class is registered or the router made, a ConfigurationError names the place and what to give."""
    check_refused(mistake)


@late_mistakes.each()
async def test_a_mistake_among_the_routes_is_refused_at_start(mistake: Mistake) -> None:
    """What only shows when all routes are there is found when the application starts."""
    await check_refused_at_start(mistake)
