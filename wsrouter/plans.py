"""Plans: what a callable needs as a list of direct calls, and the connection scope in which they run."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from types import NoneType
from typing import Any, Final, NoReturn
from uuid import UUID

from starlette.websockets import WebSocket

from wsrouter._fastapi import RequestParameters, overrides_of, take_place
from wsrouter.connection import Connection
from wsrouter.containers import is_pending
from wsrouter.decisions import check_decision
from wsrouter.errors import Deny
from wsrouter.frames import CloseInfo
from wsrouter.identity import Authenticator, remember
from wsrouter.kinds import Kind, name_of
from wsrouter.tasks import in_thread
from wsrouter.validation import readable_errors

_IMMUTABLE: Final = (str, int, float, NoneType, bytes, Enum, UUID, Decimal, date, time, timedelta)


class HandshakeWebSocket(WebSocket):
    """The WebSocket that is injected: for reading headers and state. The session owns the socket."""

    def _refuse(self, instead: str) -> NoReturn:
        raise RuntimeError(f"An injected WebSocket is for reading the handshake; {instead}")

    async def accept(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("the session accepts when all guards have passed")

    async def receive(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("messages come to @on methods and on_message")

    receive_text = receive_bytes = receive_json = receive

    def iter_text(self) -> NoReturn:
        self._refuse("messages come to @on methods and on_message")

    iter_bytes = iter_json = iter_text

    async def send(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("use self.send(message), or send of an injected Connection")

    send_text = send_bytes = send_json = send

    async def send_denial_response(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("raise Deny before accept")

    async def close(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("use self.close(code, reason), or raise Deny before accept")


class ConnectionScope:
    """What lives as long as one connection: values of guards, of `ConnectionScoped`, and their exits."""

    __slots__ = (
        "_requests",
        "_websocket",
        "app",
        "checkpoint",
        "close",
        "connection",
        "no_user",
        "overridden",
        "stack",
        "values",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.app = connection.scope.get("app")
        self.overridden = bool(overrides_of(self.app))
        self.values: dict[Hashable, Any] = {}
        self.stack: AsyncExitStack | None = None
        self.close: CloseInfo | None = None
        self.checkpoint: Callable[[], Awaitable[object]] = nothing
        """Called before the first guard and after each; raises where the handshake is not to go on."""
        self.no_user: Authenticator | None = None
        """Whose value does not become the user although it is a guard: a later one has given another."""
        self._websocket: HandshakeWebSocket | None = None
        self._requests: dict[RequestParameters, dict[str, Any]] | None = None

    def overrides(self) -> bool:
        """Whether the application has any overrides now, or had them when the connection began."""
        return self.overridden or bool(getattr(self.app, "dependency_overrides", None))

    def websocket(self) -> WebSocket:
        if self._websocket is None:
            self._websocket = HandshakeWebSocket(self.connection.scope, _no_channel, _no_channel)
        return self._websocket

    def request_values(self, parameters: RequestParameters) -> dict[str, Any]:
        """Return parameters of the handshake: read once per connection, unless a message could change a value.

        Raises:
            Deny: 422, with the errors but without the input.
        """
        if self._requests is None:
            self._requests = {}
        values = self._requests.get(parameters)
        if values is None:
            values, errors = parameters.read(self.connection.http)
            if errors:
                denial = Deny(422, reason="The request is not valid")
                denial.detail = readable_errors(errors)
                raise denial
            if all(isinstance(value, _IMMUTABLE) for value in values.values()):
                self._requests[parameters] = values
        return values

    def exits(self) -> AsyncExitStack:
        if self.stack is None:
            self.stack = AsyncExitStack()
        return self.stack


async def nothing() -> None:
    """Do nothing."""


async def _no_channel(*args: Any) -> NoReturn:
    raise RuntimeError("The session owns the socket")


class Do(IntEnum):
    """What a step does; the first five are `Kind`."""

    ASYNC = Kind.ASYNC
    SYNC = Kind.SYNC
    CLASS = Kind.CLASS
    ASYNC_GENERATOR = Kind.ASYNC_GENERATOR
    GENERATOR = Kind.GENERATOR
    READ = 5
    GIVE = 6
    PROVIDE = 7
    CHECK = 8


@dataclass(slots=True, eq=False)
class Step:
    """One call of a plan; its result goes into a slot from which later steps read."""

    do: Do
    slot: int
    call: Callable[..., Any]
    name: str = ""
    key: Hashable | None = None
    """Under which the connection keeps the value; ``None`` for a value of the call."""
    lasting: bool = False
    arguments: tuple[tuple[str, int], ...] = ()
    request: RequestParameters | None = None
    concurrency: Any = None
    guard: bool = False
    gives_user: bool = False
    """Whether the value becomes ``scope["user"]``, before any later step runs."""
    authenticator: Authenticator | None = None
    """Whose value it is that the connection remembers."""
    plain: bool = field(init=False)
    """Whether it is a coroutine function whose arguments are other steps' values, and nothing else."""

    def __post_init__(self) -> None:
        beyond = (self.key, self.request, self.concurrency, self.authenticator)
        self.plain = self.do is Do.ASYNC and not self.guard and all(each is None for each in beyond)

    @property
    def yields(self) -> bool:
        return self.do in _YIELDS


@dataclass(slots=True, eq=False)
class Plan:
    """What has to be called, in this order, before a callable can be."""

    steps: Sequence[Step]
    arguments: tuple[tuple[str, int], ...]
    request: RequestParameters | None
    size: int
    empty: bool = field(init=False)
    plain: bool = field(init=False)
    yields: bool = field(init=False)
    lasting: Sequence[Step] = field(init=False)

    def __post_init__(self) -> None:
        self.empty = not self.steps and self.request is None
        self.plain = self.request is None and all(step.plain for step in self.steps)
        self.yields = any(step.yields and not step.lasting for step in self.steps)
        self.lasting = [step for step in self.steps if step.lasting]

    async def solve(self, scope: ConnectionScope, stack: AsyncExitStack | None) -> dict[str, Any]:
        """Return the arguments of the callable.

        Args:
            scope: the connection's.
            stack: takes the exits of ``yield`` dependencies of this call; needed where `yields`.
        """
        values: list[Any] = [None] * self.size
        for step in self.steps:
            if not step.plain:
                await _take(step, values, scope, stack)
            elif step.arguments:
                values[step.slot] = await step.call(**{name: values[slot] for name, slot in step.arguments})
            else:
                values[step.slot] = await step.call()
        arguments: dict[str, Any] = {}
        for name, slot in self.arguments:
            arguments[name] = values[slot]
        if self.request is not None:
            arguments.update(scope.request_values(self.request))
        return arguments

    def written_out(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a coroutine function that takes every step and then calls ``function`` with what it is given.

        For a plan that is `plain`. It is compiled, since a loop over steps costs a message several times as much.
        """
        if self.empty:
            return function
        lines = [f"    value{step.slot} = await call{step.slot}({_keywords(step.arguments)})" for step in self.steps]
        lines.append(f"    return await function(handler, payload, {_keywords(self.arguments)})")
        names: dict[str, Any] = {f"call{step.slot}": step.call for step in self.steps}
        names["function"] = function
        source = "\n".join(["async def call(handler, payload):", *lines])
        exec(compile(source, f"<dependencies of {name_of(function)}>", "exec"), names)
        written: Callable[..., Any] = names["call"]
        return written

    def read_request(self, scope: ConnectionScope) -> None:
        """Read what comes from the handshake, so that it is known to be valid.

        Raises:
            Deny: 422, it is not.
        """
        for request in (self.request, *(step.request for step in self.steps)):
            if request is not None:
                scope.request_values(request)

    async def open_lasting(self, scope: ConnectionScope) -> None:
        """Open what lives as long as the connection, in the task that will close it."""
        if any(step.key is not None and step.key not in scope.values for step in self.lasting):
            values: list[Any] = [None] * self.size
            for step in self.lasting:
                await _take(step, values, scope, None)


def _keywords(arguments: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name}=value{slot}" for name, slot in arguments)


_YIELDS: Final = frozenset({Do.ASYNC_GENERATOR, Do.GENERATOR})


async def _take(step: Step, values: list[Any], scope: ConnectionScope, stack: AsyncExitStack | None) -> None:
    """Take one step of any sort."""
    kept, key, do = scope.values, step.key, step.do
    if key is not None and key in kept:
        values[step.slot] = kept[key]
        return
    value: Any
    if do is Do.CHECK:
        await scope.checkpoint()
        return
    if do is Do.GIVE:
        value = step.call(scope)
    elif do is Do.PROVIDE:
        value = step.call()
        if is_pending(value):
            value = await value
    else:
        arguments = {name: values[slot] for name, slot in step.arguments}
        if step.request is not None:
            arguments.update(scope.request_values(step.request))
        if do is Do.CLASS:
            value = step.call(**arguments)
        elif do in _YIELDS:
            exits = scope.exits() if step.lasting else stack
            assert exits is not None, "a plan that yields is solved with a stack"
            if step.concurrency is not None:
                await exits.enter_async_context(take_place(step.concurrency))
            value = await exits.enter_async_context(step.call(**arguments))
        else:
            value = await _in_turn(step, arguments)
    if step.guard:
        check_decision(step.name, value, yielded=step.yields)
    values[step.slot] = value
    if key is not None:
        kept[key] = value
    if step.authenticator is not None and value is not None:
        remember(scope.connection.scope, step.authenticator, value)
    if step.gives_user and (scope.no_user is None or step.authenticator is not scope.no_user):
        scope.connection.scope["user"] = value


async def _in_turn(step: Step, arguments: Mapping[str, Any]) -> Any:
    async with AsyncExitStack() as place:
        if step.concurrency is not None:
            await place.enter_async_context(take_place(step.concurrency))
        if step.do is Do.SYNC:
            return await in_thread(step.call, **arguments)
        return await step.call(**arguments)
