"""What a handler class declares, worked out and checked when it is registered."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from fastapi import params
from pydantic import BaseModel, TypeAdapter
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import SchemaValidator
from starlette.routing import compile_path

from wsrouter.annotations import parameters_of, unfolded
from wsrouter.client_rooms import asked, checked_patterns
from wsrouter.codecs import Frame, Schema, dump, is_message
from wsrouter.errors import ConfigurationError
from wsrouter.frames import CloseInfo, checked
from wsrouter.handler import Guard, WebSocketHandler
from wsrouter.kinds import Kind, kind_of
from wsrouter.limits import Limits
from wsrouter.messages import Envelope, Message, check_type
from wsrouter.names import check_names, registrations
from wsrouter.options import check_instance, guard_needs, listed, sorted_middleware
from wsrouter.payloads import check_payload, discriminated, is_open
from wsrouter.schemas import validator
from wsrouter.signatures import Dependency, Given, Needs, needs_of

Reads = Literal["text", "bytes", "frame", "json", "envelope"]


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """A hook or message method of a class."""

    function: Callable[..., Any]
    needs: Needs
    name: str
    guards: tuple[Dependency, ...] = ()
    """What is solved for every message before all else."""

    @property
    def kind(self) -> Kind:
        return self.needs.kind


class HandlerTable:
    """What a handler class declares.

    Args:
        cls: the class.

    Raises:
        ConfigurationError: with the class, the parameter and the cure.
    """

    def __init__(self, cls: type[WebSocketHandler]) -> None:
        if not _is_handler(cls):
            raise ConfigurationError(f"{cls!r} is no handler; register a class that is a subclass of WebSocketHandler")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise ConfigurationError(f"{cls.__qualname__} is abstract; define {missing}, or register a subclass")
        if not _is_count(cls.max_in_flight):
            raise ConfigurationError(f"{cls.__qualname__}.max_in_flight = {cls.max_in_flight!r}: use 1 or more")
        self.cls = cls
        self._init = cls.__init__
        if kind_of(cls.__init__) is not Kind.SYNC:
            raise ConfigurationError(
                f"{cls.__qualname__}.__init__ is async def, and would not run; write def, and move what awaits to"
                " on_connect or to a dependency"
            )
        if kind_of(getattr(cls, "__post_init__", cls.__init__)) is not Kind.SYNC:
            raise ConfigurationError(
                f"{cls.__qualname__}.__post_init__ is async def, and would not run; write def, and move what awaits to"
                " on_connect"
            )
        if is_pydantic_dataclass(cls):
            raise ConfigurationError(
                f"{cls.__qualname__} is a dataclass of pydantic's, which forgets what a handler has before its"
                " constructor runs; use dataclasses.dataclass"
            )
        self.construct = needs_of(cls, f"{cls.__qualname__}.__init__")
        check_instance(cls.limits, Limits, f"{cls.__qualname__}.limits", "Limits(...)")
        guards = listed(cls.guards, f"{cls.__qualname__}.guards")
        middleware = listed(cls.middleware, f"{cls.__qualname__}.middleware")
        self.guards = [guard_needs(guard, cls.__qualname__) for guard in guards]
        self.middleware, self.frame_limits = sorted_middleware(middleware, cls.__qualname__)
        self.methods: dict[str, Method] = {}
        payloads: dict[str, Any] = {}
        check_names(cls)
        for name, registered in registrations(cls).items():
            method = self._method(name, skip=2, guards=registered.guards)
            for tag, payload in self._types(method, registered.type).items():
                if tag in self.methods:
                    raise ConfigurationError(
                        f"{cls.__qualname__}: {self.methods[tag].name} and {name} are both for the message type"
                        f" {tag!r}; give one of them another type with @on('...')"
                    )
                self.methods[tag] = method
                payloads[tag] = payload
        on_join = self._hook("on_join", skip=2)
        patterns = checked_patterns(cls)
        for tag, answer in asked(cls, patterns, None if on_join is None else on_join.needs).items():
            self.methods[tag] = Method(answer.function, answer.needs, tag)
            payloads[tag] = answer.payload
        self.on_connect = self._hook("on_connect", skip=1)
        self.on_disconnect = self._hook("on_disconnect", skip=1)
        if self.on_disconnect is not None and self.on_disconnect.kind.yields:
            raise ConfigurationError(f"{cls.__qualname__}.on_disconnect: nobody is there to send to; remove the yield")
        self.on_message = self._hook("on_message", skip=2)
        self.reads, self._json = self._reading(self.on_message)
        self.raw = self.on_message is not None and not self.methods and self.reads != "envelope"
        self.schema = Schema(payloads, open=self.reads == "envelope")

    def check(self, path: str) -> None:
        """Check everything that is injected against the path of a route, and that the class is what it was."""
        if self.cls.__init__ is not self._init:
            raise ConfigurationError(
                f"{self.cls.__qualname__}: __init__ was replaced after the class was registered; write"
                " @router.handler(...) above @dataclass"
            )
        for hook in (self.on_connect, self.on_disconnect):
            if hook is not None:
                _check_left_over(hook, path)
        hooks = (self.on_connect, self.on_message, self.on_disconnect)
        methods = [method for method in (*self.methods.values(), *hooks) if method is not None]
        guards = [guard.needs for guard in (*self.guards, *(guard for method in methods for guard in method.guards))]
        roots = [self.construct, *guards, *self.middleware, *(method.needs for method in methods)]
        for root in roots:
            for needs in root.walk():
                needs.parameters(path)
                if self.on_disconnect is None or root is not self.on_disconnect.needs:
                    needs.check_not_given(Given.CLOSE, "CloseInfo is known in on_disconnect only; remove the parameter")

    @cached_property
    def json(self) -> SchemaValidator:
        """What reads the frames of a raw handler that reads JSON."""
        assert self._json is not None, "only a raw handler that reads JSON has one"
        return validator(self._json)

    def encode_raw(self, message: Any) -> Frame:
        """Return the frame of what a raw handler sends.

        Raises:
            TypeError: it is neither text nor bytes nor what the handler itself reads.
            ValueError: a text with a lone surrogate.
        """
        if isinstance(message, str | bytes):
            return checked(message)
        if self._json is None:
            raise TypeError(f"{self.cls.__qualname__} is raw: send str or bytes, not {type(message).__name__}")
        if isinstance(message, BaseModel):
            return dump(message).decode()
        return self._json.dump_json(message, by_alias=True).decode()

    def _hook(self, name: str, *, skip: int) -> Method | None:
        if getattr(self.cls, name) is getattr(WebSocketHandler, name):
            return None
        return self._method(name, skip=skip)

    def _method(self, name: str, *, skip: int, guards: Sequence[Guard] = ()) -> Method:
        owner = f"{self.cls.__qualname__}.{name}"
        function = inspect.getattr_static(self.cls, name)
        if not inspect.isfunction(function):
            raise ConfigurationError(f"{owner}: {function!r} is no method; define it with def or async def")
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        if len([kind for kind in kinds if kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]) < skip:
            if inspect.Parameter.VAR_POSITIONAL in kinds:
                raise ConfigurationError(
                    f"{owner}: *args says nothing of what is injected; declare the parameters (in a decorator, write"
                    " @functools.wraps(function) above the function that it returns)"
                )
            raise ConfigurationError(
                f"{owner}: it is called with {'self and the payload' if skip == 2 else 'self'}; declare"
                f" {'both as its first parameters' if skip == 2 else 'that as its first parameter'}"
            )
        if kind_of(function) is Kind.GENERATOR:
            raise ConfigurationError(f"{owner}: a stream is an async generator; write async def")
        before = tuple(guard_needs(guard, owner) for guard in listed(guards, f"{owner}, argument 'guards' of @on"))
        return Method(function, needs_of(function, owner, skip=skip), name, before)

    def _payload(self, method: Method) -> Any:
        parameter = parameters_of(method.function, method.needs.owner)[1]
        if parameter.annotation is parameter.empty:
            raise ConfigurationError(
                f"{method.needs.owner}, parameter {parameter.name!r}: annotate the payload, so that it can be validated"
            )
        if is_open(parameter.annotation):
            raise ConfigurationError(
                f"{method.needs.owner}, parameter {parameter.name!r}: {inspect.formatannotation(parameter.annotation)}"
                " is not known before somebody says what it stands for, so nothing could be validated; override the"
                " method, and annotate the payload there"
            )
        if any(each is CloseInfo for each in (parameter.annotation, *get_args(parameter.annotation))):
            raise ConfigurationError(
                f"{method.needs.owner}, parameter {parameter.name!r}: a payload is what the client sends; CloseInfo is"
                " given to on_disconnect"
            )
        return parameter.annotation

    def _types(self, method: Method, declared: str | None) -> dict[str, Any]:
        owner = method.needs.owner
        payload = self._payload(method)
        parameter = parameters_of(method.function, owner)[1]
        if parameter.default is not parameter.empty:
            raise ConfigurationError(
                f"{owner}, parameter {parameter.name!r}: a payload has no default; a message without data"
                " has that of its Message's fields, and None for other types: annotate it with ... | None"
            )
        if unfolded(payload)[0] is Envelope:
            raise ConfigurationError(
                f"{owner}: Envelope is what on_message reads; annotate the payload with what stands in data"
            )
        if declared is not None:
            payload = discriminated(payload, owner)
            check_payload(payload, owner)
            return {check_type(declared, owner): payload}
        type_, metadata = unfolded(payload)
        payload = payload if metadata else type_
        members = get_args(payload) if get_origin(payload) in (Union, UnionType) else (payload,)
        if not all(is_message(member) and member is not Message for member in members):
            shown = inspect.formatannotation(payload)
            raise ConfigurationError(
                f"{owner}: {shown} names no message type; annotate the payload with a subclass of Message, or write"
                " @on('type')"
            )
        found: dict[str, Any] = {}
        for member in members:
            check_payload(member, owner)
            other = found.setdefault(member.__message_type__, member)
            if other is not member:
                raise ConfigurationError(
                    f"{owner}: {other.__name__} and {member.__name__} are both the message type"
                    f" {member.__message_type__!r}; give one of them another with type='...'"
                )
        return found

    def _reading(self, method: Method | None) -> tuple[Reads | None, TypeAdapter[Any] | None]:
        """Return what ``on_message`` reads, and for JSON what validates and writes it."""
        if method is None:
            return None, None
        payload = self._payload(method)
        reads: Reads = "json"
        json: TypeAdapter[Any] | None = None
        simple: dict[Any, Reads] = {str: "text", bytes: "bytes", Envelope: "envelope"}
        if payload in simple:
            reads = simple[payload]
        elif get_origin(payload) in (Union, UnionType) and set(get_args(payload)) == {str, bytes}:
            reads = "frame"
        else:
            payload = discriminated(payload, method.needs.owner)
            json = check_payload(payload, method.needs.owner)
        if self.methods and reads not in ("envelope", "bytes"):
            beside = "client_rooms" if all(tag.startswith("$") for tag in self.methods) else "@on methods"
            raise ConfigurationError(
                f"{method.needs.owner}: beside {beside} it reads Envelope (what no method claims) or bytes"
                f" (binary frames), not {inspect.formatannotation(payload)}"
            )
        return reads, json


def _check_left_over(hook: Method, path: str) -> None:
    """Refuse parameters that other frameworks give to a hook, and that a client could fill in here with its query."""
    for parameter in hook.needs.request:
        marks = (*unfolded(parameter.annotation)[1], parameter.default)
        if parameter.name in compile_path(path)[2] or any(isinstance(mark, params.Param) for mark in marks):
            continue
        place = f"{hook.needs.owner}, parameter {parameter.name!r}"
        if parameter.annotation is parameter.empty and parameter.default is parameter.empty:
            raise ConfigurationError(f"{place}: what is injected goes by its annotation; write WebSocket, or another")
        if hook.name == "on_disconnect" and parameter.name in ("code", "close_code", "reason"):
            raise ConfigurationError(
                f"{place}: a client could fill it in with its query; how the connection ended says a parameter"
                " annotated with CloseInfo (if it is of the path or the query, mark it with Path() or Query())"
            )


def _is_handler(cls: object) -> bool:
    return inspect.isclass(cls) and issubclass(cls, WebSocketHandler)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
