"""Mistakes in messages, methods and hooks are reported at registration, with the class and the cure."""

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, cast

import pydantic.dataclasses
from fastapi import Depends, Path, WebSocket
from pydantic import BaseModel

from tests.mistakes import Mistake, Mistakes, check_refused, register
from wsrouter import CloseInfo, Envelope, Message, WebSocketHandler, on

mistakes = Mistakes()


class Say(Message):
    text: str


class AlsoSay(Message, type="say"):
    text: str


class Model(BaseModel):
    text: str


class Other(BaseModel):
    number: int


@mistakes.refused("Chat: say and shout", "'say'", "@on('...')")
def two_methods_for_one_message() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say) -> None: ...

        @on
        async def shout(self, message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat: say and also", "'say'", "@on('...')")
def two_messages_of_one_type() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say) -> None: ...

        @on
        async def also(self, message: AlsoSay) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "Say and AlsoSay", "'say'")
def two_messages_of_one_type_in_a_union() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say | AlsoSay) -> None: ...

    register(Chat)


async def who() -> str:
    return "ann"


@mistakes.refused("Chat.whoami, parameter 'user'", "nothing is injected", "payload: None")
def a_dependency_where_the_payload_is() -> None:
    class Chat(WebSocketHandler):
        @on("whoami")
        async def whoami(self, user: Annotated[str, Depends(who)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.whoami, parameter 'user'", "nothing is injected", "payload: None")
def a_dependency_as_default_where_the_payload_is() -> None:
    class Chat(WebSocketHandler):
        @on("whoami")
        async def whoami(self, user: str = Depends(who)) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_message, parameter 'text'", "nothing is injected")
def a_dependency_where_the_frame_is() -> None:
    class Chat(WebSocketHandler):
        async def on_message(self, text: Annotated[str, Depends(who)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_join, parameter 'me'", "nothing is injected")
def a_dependency_where_the_room_is() -> None:
    class Chat(WebSocketHandler):
        client_rooms = ["*"]

        async def on_join(self, me: Annotated[str, Depends(who)]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.enter, parameter 'room'", "nothing is injected")
def a_path_parameter_where_the_payload_is() -> None:
    class Chat(WebSocketHandler):
        @on("enter")
        async def enter(self, room: Annotated[str, Path()]) -> None: ...

    register(Chat, "/chat/{room}")


@mistakes.refused("Chat.say", "Envelope is what on_message reads")
def an_envelope_in_a_method() -> None:
    class Chat(WebSocketHandler):
        @on("say")
        async def say(self, message: Envelope) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'close'", "CloseInfo is given to on_disconnect")
def how_it_closes_as_a_payload() -> None:
    class Chat(WebSocketHandler):
        @on("say")
        async def say(self, close: CloseInfo | None) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_disconnect, parameter 'close_code'", "its query", "CloseInfo")
def a_close_code_as_starlette_gives_it() -> None:
    class Chat(WebSocketHandler):
        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_disconnect, parameter 'code'", "its query", "CloseInfo")
def a_close_code_with_a_default() -> None:
    class Chat(WebSocketHandler):
        async def on_disconnect(self, code: int = 1000) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect, parameter 'websocket'", "by its annotation")
def a_parameter_of_a_hook_without_annotation() -> None:
    class Chat(WebSocketHandler):
        async def on_connect(self, websocket) -> None: ...  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]

    register(Chat)


@mistakes.refused("Chat is a dataclass of pydantic's", "dataclasses.dataclass")
def a_dataclass_of_pydantics() -> None:
    @pydantic.dataclasses.dataclass
    class Chat(WebSocketHandler):
        name: str = ""

    register(Chat)


@mistakes.refused("Chat.__post_init__ is async def", "on_connect")
def a_post_init_that_would_have_to_be_awaited() -> None:
    @dataclass
    class Chat(WebSocketHandler):
        name: str = ""

        async def __post_init__(self) -> None: ...  # type: ignore[override]

    register(Chat)


@mistakes.refused("around, parameter 'message'", "nothing is injected")
def a_dependency_where_a_middleware_has_the_message() -> None:
    async def around(message: Annotated[Any, Depends(who)], connection: Any, call_next: Any) -> None: ...

    class Chat(WebSocketHandler):
        middleware = [around]

    register(Chat)


@mistakes.refused("Chat.page, parameter 'page'", "no default", "| None")
def a_payload_with_a_default() -> None:
    class Chat(WebSocketHandler):
        @on("page")
        async def page(self, page: int = 1) -> None: ...

    register(Chat)


T = TypeVar("T")


class Crud(WebSocketHandler, Generic[T]):
    @on("create")
    async def create(self, item: T) -> None: ...


class CrudOfMany(WebSocketHandler, Generic[T]):
    @on("create")
    async def create(self, items: list[T]) -> None: ...


@mistakes.refused("Items.create, parameter 'item'", "~T", "override the method")
def a_payload_that_is_a_type_variable() -> None:
    class Items(Crud[Model]):
        pass

    register(Items)


@mistakes.refused("Items.create, parameter 'items'", "list[~T]", "override the method")
def a_payload_with_a_type_variable() -> None:
    class Items(CrudOfMany[Model]):
        pass

    register(Items)


@mistakes.refused("say", "@on twice", "union")
def a_method_for_two_types() -> None:
    class Chat(WebSocketHandler):
        @on("a")
        @on("b")
        async def say(self, message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat is abstract", "say", "subclass")
def a_class_that_is_abstract() -> None:
    class Chat(WebSocketHandler, ABC):
        @on
        @abstractmethod
        async def say(self, message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "self and the payload")
def a_method_without_a_payload() -> None:
    class Chat(WebSocketHandler):
        @on("say")
        async def say(self) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "self and the payload")
def a_payload_that_is_keyword_only() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, *, message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say, parameter 'message'", "annotate the payload")
def a_payload_without_an_annotation() -> None:
    class Chat(WebSocketHandler):
        @on("say")
        async def say(self, message: Any) -> None: ...

    del Chat.say.__annotations__["message"]
    register(Chat)


@mistakes.refused("Chat.on_message, parameter 'frame'", "annotate the payload")
def a_frame_without_an_annotation() -> None:
    class Chat(WebSocketHandler):
        async def on_message(self, frame: Any) -> None: ...

    del Chat.on_message.__annotations__["frame"]
    register(Chat)


@mistakes.refused("Chat.say", "int", "subclass of Message", "@on('type')")
def a_payload_that_names_no_type() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: int) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "Message", "@on('type')")
def message_itself_as_payload() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Message) -> None: ...

    register(Chat)


@mistakes.refused("Chat.say", "Service", "pydantic")
def a_payload_that_pydantic_cannot_validate() -> None:
    class Service:
        pass

    class Chat(WebSocketHandler):
        @on("say")
        async def say(self, message: Service) -> None: ...

    register(Chat)


@mistakes.refused("Chat.add", "Model | tests", "Literal", "Field(discriminator=")
def a_union_without_a_discriminator() -> None:
    class Chat(WebSocketHandler):
        @on("add")
        async def add(self, message: Model | Other) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_message", "Literal", "Field(discriminator=")
def a_union_of_frames_without_a_discriminator() -> None:
    class Chat(WebSocketHandler):
        async def on_message(self, frame: Model | Other | None) -> None: ...

    register(Chat)


@mistakes.refused("Chat.add", "'$cancel'", "'$'")
def a_type_that_is_ours() -> None:
    class Chat(WebSocketHandler):
        @on("$cancel")
        async def add(self, message: int) -> None: ...

    register(Chat)


@mistakes.refused("Chat.add", "''", "not empty")
def an_empty_type() -> None:
    class Chat(WebSocketHandler):
        @on("")
        async def add(self, message: int) -> None: ...

    register(Chat)


@mistakes.refused("Chat.add", "5", "text")
def a_type_that_is_no_text() -> None:
    class Chat(WebSocketHandler):
        @on(cast(str, 5))
        async def add(self, message: int) -> None: ...

    register(Chat)


@mistakes.refused("Refused", "'$say'", "'$'")
def a_message_class_of_a_type_that_is_ours() -> object:
    class Refused(Message, type="$say"):
        pass

    return Refused


@mistakes.refused("Refused", "''", "not empty")
def a_message_class_of_an_empty_type() -> object:
    class Refused(Message, type=""):
        pass

    return Refused


@mistakes.refused("@on(Say)", "annotation", "@on")
def on_with_a_class() -> None:
    mark: Any = on
    mark(Say)


@mistakes.refused("Chat.on_message", "Envelope", "bytes", "dict")
def on_message_beside_on_with_another_payload() -> None:
    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say) -> None: ...

        async def on_message(self, frame: dict[str, Any]) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect", "no method", "def or async def")
def a_hook_that_is_no_function() -> None:
    five: Any = 5

    class Chat(WebSocketHandler):
        on_connect = five

    register(Chat)


@mistakes.refused("Chat.on_connect", "no method", "def or async def")
def a_hook_that_is_an_object() -> None:
    class Hook:
        async def __call__(self) -> None: ...

    hook: Any = Hook()

    class Chat(WebSocketHandler):
        on_connect = hook

    register(Chat)


@mistakes.refused("Chat.on_disconnect", "no method", "def or async def")
def a_static_hook() -> None:
    async def function() -> None: ...

    static: Any = staticmethod(function)

    class Chat(WebSocketHandler):
        on_disconnect = static

    register(Chat)


@mistakes.refused("Chat.on_connect", "no method", "def or async def")
def a_hook_of_the_class() -> None:
    async def function(cls: Any) -> None: ...

    of_class: Any = classmethod(function)

    class Chat(WebSocketHandler):
        on_connect = of_class

    register(Chat)


@mistakes.refused("Chat.say", "no method", "def or async def")
def a_static_message_method() -> None:
    class Chat(WebSocketHandler):
        @on
        @staticmethod
        async def say(message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect", "with self")
def a_hook_without_self() -> None:
    async def function() -> None: ...

    hook: Any = function

    class Chat(WebSocketHandler):
        on_connect = hook

    register(Chat)


@mistakes.refused("Chat.on_disconnect", "nobody is there", "remove the yield")
def on_disconnect_that_streams() -> None:
    async def streaming(self: Any) -> AsyncIterator[int]:
        yield 1

    hook: Any = streaming

    class Chat(WebSocketHandler):
        on_disconnect = hook

    register(Chat)


@mistakes.refused("Chat.say", "async generator", "async def")
def a_sync_generator() -> None:
    class Chat(WebSocketHandler):
        @on
        def say(self, message: Say) -> Iterator[int]:
            yield 1

    register(Chat)


@mistakes.refused("Chat.on_connect", "async generator", "async def")
def a_hook_that_is_a_sync_generator() -> None:
    def streaming(self: Any) -> Iterator[int]:
        yield 1

    hook: Any = streaming

    class Chat(WebSocketHandler):
        on_connect = hook

    register(Chat)


def collecting(function: Callable[..., AsyncIterator[int]]) -> Callable[..., Coroutine[Any, Any, list[int]]]:
    @functools.wraps(function)
    async def collect(*args: Any, **kwargs: Any) -> list[int]:
        return [item async for item in function(*args, **kwargs)]

    return collect


@mistakes.refused("Chat.say", "decorator", "yield item")
def a_stream_under_a_coroutine_function() -> None:
    class Chat(WebSocketHandler):
        @on
        @collecting
        async def say(self, message: Say) -> AsyncIterator[int]:
            yield 1

    register(Chat)


@mistakes.refused("Chat.say →", "stream:", "decorator", "yield item")
def a_dependency_that_yields_under_a_coroutine_function() -> None:
    @collecting
    async def stream() -> AsyncIterator[int]:
        yield 1

    class Chat(WebSocketHandler):
        @on
        async def say(self, message: Say, value: Annotated[Any, Depends(stream)]) -> None: ...

    register(Chat)


def logged(function: Callable[..., Any]) -> Any:
    async def logging(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return logging


@mistakes.refused("Chat.say", "*args", "functools.wraps")
def a_method_whose_parameters_a_decorator_hides() -> None:
    class Chat(WebSocketHandler):
        @on("say")
        @logged
        async def say(self, message: Say) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_conect", "no connection calls it", "write on_connect")
def a_hook_that_is_misspelled() -> None:
    class Chat(WebSocketHandler):
        async def on_conect(self) -> None: ...

    register(Chat)


@mistakes.refused("Chat.onconnect", "no connection calls it", "write on_connect")
def a_hook_without_its_underscore() -> None:
    class Chat(WebSocketHandler):
        async def onconnect(self) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_receive", "no connection calls it", "write on_message")
def a_hook_as_starlette_calls_it() -> None:
    class Chat(WebSocketHandler):
        async def on_receive(self, text: str) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_close", "no connection calls it", "write on_disconnect")
def a_hook_of_a_base_class_as_tornado_calls_it() -> None:
    class Closing(WebSocketHandler):
        def on_close(self) -> None: ...

    class Chat(Closing):
        async def on_connect(self) -> None: ...

    register(Chat)


@mistakes.refused("Chat.on_connect", "*args", "functools.wraps")
def a_hook_whose_parameters_a_decorator_hides() -> None:
    class Chat(WebSocketHandler):
        @logged
        async def on_connect(self, socket: WebSocket) -> None: ...

    register(Chat)


class Observer:
    """Of somebody else's, who calls what it has."""

    def on_close(self) -> None: ...

    def on_disconect(self) -> None: ...


def test_what_is_called_almost_like_a_hook_may_be_ones_own() -> None:
    """Where the hook itself is there or ``@on`` is above it, in mixins, and where it is another word."""

    class Watching(Observer, WebSocketHandler):
        def on_close(self) -> None: ...

        def on_reconnect(self) -> None: ...

        def on_connected(self) -> None: ...

        def on_messages(self) -> None: ...

        def to_message(self) -> None: ...

        def do_disconnect(self) -> None: ...

    register(Watching)

    class Raising:
        def __get__(self, instance: object, owner: object) -> None:
            raise LookupError

    @dataclass
    class Chat(WebSocketHandler):
        told: str = ""
        on_open: Callable[..., Any] = logged
        on_receive = Raising()

        async def on_connect(self) -> None:
            await self.on_connected()

        async def on_connected(self) -> None: ...

        @on("close")
        async def on_close(self, payload: None) -> None: ...

        def on_behalf_of(self) -> None: ...

    register(Chat)


@mistakes.each()
def test_a_mistake_in_a_method_is_refused_at_once(mistake: Mistake) -> None:
    """Where the class is registered, a ConfigurationError names the class, the method and what to write instead."""
    check_refused(mistake)
