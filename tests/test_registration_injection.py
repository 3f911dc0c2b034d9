"""What can't be injected is reported at registration, with the class, the parameter and the cure."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import BackgroundTasks, Body, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from tests.mistakes import Mistake, Mistakes, app_of, check_refused, check_refused_at_start, register
from wsrouter import CloseInfo, ConnectionScoped, Message, WebSocketHandler, WebSocketRouter, on

mistakes, late_mistakes = Mistakes(), Mistakes()


class Say(Message):
    text: str


class Model(BaseModel):
    text: str


class Container(containers.DeclarativeContainer):
    text = providers.Object("of the container")


@mistakes.refused("Chat.__init__, parameter 'service'", "'Local'", "at module level")
def an_unresolvable_annotation_in_the_constructor() -> None:
    class Local:
        pass

    class Chat(WebSocketHandler):
        def __init__(self, service: "Local") -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'message'", "'LocalMessage'", "at module level")
def an_unresolvable_payload() -> None:
    class LocalMessage(Message):
        pass

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: "LocalMessage") -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_disconnect, parameter 'close'", "CloseInfo is always given", "that alone")
def what_is_given_or_none() -> None:
    class Chat(WebSocketHandler):
        async def on_disconnect(self, close: CloseInfo | None) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "outer", "inner, parameter 'service'", "'Local'", "at module level")
def an_unresolvable_annotation_in_a_dependency_of_a_dependency() -> None:
    class Local:
        pass

    async def inner(service: "Local") -> None: ...

    async def outer(inner: Annotated[None, Depends(inner)]) -> None: ...

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, outer: Annotated[None, Depends(outer)]) -> None: ...

    register(Chat)


@mistakes.refused("guard", "check, parameter 'service'", "'Local'", "at module level")
def an_unresolvable_annotation_in_a_guard() -> None:
    class Local:
        pass

    async def check(service: "Local") -> None: ...

    WebSocketRouter(guards=[check])


@mistakes.refused("Chat.__init__, parameter 'key'", "Container.nothing", "AttributeError")
def an_annotation_that_names_a_provider_which_is_not_there() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, key: str) -> None: ...

    Chat.__init__.__annotations__["key"] = "Annotated[str, Provide[Container.nothing]]"
    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'key'", "'list[int'", "SyntaxError")
def an_annotation_that_is_no_python() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, key: int) -> None: ...

    Chat.__init__.__annotations__["key"] = "list[int"
    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'model'", "body", "Query()")
def a_model_without_a_marker() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, model: Model) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'model'", "body", "Query()")
def a_body_parameter_of_a_method() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, model: Annotated[int, Body()]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect → load, parameter 'names'", "body", "Query()")
def a_list_without_a_marker_in_a_dependency() -> None:
    async def load(names: list[str]) -> None: ...

    load.__qualname__ = "load"

    class Chat(WebSocketHandler):
        async def on_connect(self, loaded: Annotated[None, Depends(load)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_disconnect, parameter 'note'", "body", "Query()")
def a_form_field() -> None:
    class Chat(WebSocketHandler):
        async def on_disconnect(self, note: Annotated[str, Form()]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'upload'", "body", "Query()")
def an_upload() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, upload: Annotated[UploadFile, File()]) -> None: ...

    register(Chat)


@mistakes.refused("check, parameter 'model'", "body", "Query()")
def a_body_parameter_of_a_guard() -> None:
    async def check(model: Model) -> None: ...

    class Chat(WebSocketHandler):
        guards = [check]

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'service'", "Service", "Depends() or Provide[...]")
def a_type_that_pydantic_knows_nothing_of() -> None:
    class Service:
        pass

    class Chat(WebSocketHandler):
        def __init__(self, service: Service) -> None: ...

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'room'", "path")
def a_path_parameter_that_is_no_single_value() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, room: list[int]) -> None: ...

    register(Chat, "/ws/{room}")


@mistakes.refused("Chat.__init__, parameter 'request'", "HTTPConnection")
def a_request() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, request: Request) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "parameter 'request'", "HTTPConnection")
def a_request_in_a_dependency() -> None:
    async def load(request: Request) -> None: ...

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, loaded: Annotated[None, Depends(load)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'tasks'", "start a task of your own")
def background_tasks() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, tasks: BackgroundTasks) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect, parameter 'response'", "Deny(headers=...)")
def a_response() -> None:
    class Chat(WebSocketHandler):
        async def on_connect(self, response: Response) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect, parameter 'http'", "HTTPConnection")
def an_http_connection_of_ones_own() -> None:
    class Mine(HTTPConnection):
        pass

    class Chat(WebSocketHandler):
        async def on_connect(self, http: Mine) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'close'", "on_disconnect")
def a_close_info_before_the_end() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, close: CloseInfo) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'room'", "remove the '/'")
def a_positional_only_parameter() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, room: str, /) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "load, parameter 'room'", "remove the '/'")
def a_positional_only_parameter_of_a_dependency() -> None:
    async def load(room: str, /) -> None: ...

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, loaded: Annotated[None, Depends(load)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "whole type", "Annotated[Service | None, Provide[...]]")
def a_marker_inside_of_a_union() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Provide[Container.text]] | None = None) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "Annotated[Service | None, Provide[...]]")
def a_marker_inside_of_a_list() -> None:
    async def load() -> int:
        return 1

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: list[Annotated[int, Depends(load)]]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "Provide alone", "write Provide[Container.service]")
def provide_without_brackets() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Provide]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "Depends alone", "write Depends(dependency)")
def depends_without_a_call() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Depends]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'key'", "ConnectionScoped alone", "write ConnectionScoped(dependency)")
def connection_scoped_without_a_call() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, key: Annotated[str, ConnectionScoped]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.__init__, parameter 'key'", "Provide[...] around it")
def a_bare_provider() -> None:
    class Chat(WebSocketHandler):
        def __init__(self, key: Annotated[str, Container.text]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "more than one", "keep one")
def two_markers() -> None:
    async def load() -> str:
        return ""

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Depends(load), Provide[Container.text]]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "write Depends(f)")
def depends_on_nothing() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Any = Depends()) -> None: ...

    del Chat.say.__annotations__["key"]
    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "'text'", "callable")
def depends_on_what_cannot_be_called() -> None:
    not_callable: Any = "text"

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Depends(not_callable)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'key'", "Load has no hash", "frozen=True")
def a_dependency_without_a_hash() -> None:
    @dataclass
    class Load:
        table: str

        async def __call__(self) -> str:
            return self.table

    Load.__qualname__ = "Load"

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, key: Annotated[str, Depends(Load("lines"))]) -> None: ...

    register(Chat)


class Asking(WebSocketHandler):
    @on
    async def say(self, message: Say, key: Annotated[str, Provide[Container.text]]) -> None: ...


@late_mistakes.refused("Asking.say, parameter 'key'", "container=...")
def a_provider_without_a_container() -> FastAPI:
    router = WebSocketRouter()
    router.add_handler("/ws", Asking)
    return app_of(router)


@late_mistakes.refused("Asking.say, parameter 'key'", "container=...")
def a_provider_with_a_container_at_one_place_of_two() -> FastAPI:
    router, other = WebSocketRouter(), WebSocketRouter(container=Container())
    router.add_handler("/ws", Asking)
    other.include_router(router, prefix="/other")
    return app_of(other, router)


async def yielding() -> AsyncIterator[str]:
    yield "never closed"


@late_mistakes.refused("Chat.__init__", "yielding", "ConnectionScoped(...)")
def a_generator_in_the_constructor() -> FastAPI:
    class Chat(WebSocketHandler):
        def __init__(self, key: Annotated[str, Depends(yielding)]) -> None: ...

    router = WebSocketRouter()
    router.add_handler("/ws", Chat)
    return app_of(router)


@late_mistakes.refused("Chat.__init__", "yielding", "ConnectionScoped(...)")
def a_generator_beneath_the_constructor() -> FastAPI:
    async def load(key: Annotated[str, Depends(yielding)]) -> None: ...

    class Chat(WebSocketHandler):
        def __init__(self, loaded: Annotated[None, Depends(load)]) -> None: ...

    router = WebSocketRouter()
    router.add_handler("/ws", Chat)
    return app_of(router)


@late_mistakes.refused("Chat.__init__, parameter 'room'", "path")
def a_path_parameter_of_an_inclusion_that_is_no_single_value() -> FastAPI:
    class Chat(WebSocketHandler):
        def __init__(self, room: Annotated[list[int], Query()]) -> None: ...

    router = WebSocketRouter()
    router.add_handler("/ws", Chat)
    return app_of(router, prefix="/{room}")


@mistakes.each()
def test_what_cannot_be_injected_is_refused_at_once(mistake: Mistake) -> None:
    """Where the class is registered or the router made, a ConfigurationError names class, parameter and cure."""
    check_refused(mistake)


@late_mistakes.each()
async def test_what_depends_on_the_router_is_refused_at_start(mistake: Mistake) -> None:
    """What depends on where a router is included is found when the application starts, before it serves anybody."""
    await check_refused_at_start(mistake)
