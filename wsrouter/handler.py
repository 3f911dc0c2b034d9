"""The class that users write: hooks, typed message methods, and shortcuts to the connection and the hub."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, overload

from fastapi import params

from wsrouter.connection import Connection, ServerConnection
from wsrouter.errors import ConfigurationError
from wsrouter.history import Position
from wsrouter.hub import Hub
from wsrouter.kinds import name_of
from wsrouter.limits import Limits
from wsrouter.metering import FrameLimit

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
Guard: TypeAlias = Callable[..., Any] | params.Depends
Middleware: TypeAlias = Callable[..., Any] | FrameLimit
MARK: Final = "__wsrouter_on__"


@dataclass(frozen=True, slots=True)
class Registration:
    """What `on` says of a method."""

    type: str | None = None
    guards: Sequence[Guard] = ()


@overload
def on(type: FunctionT, /) -> FunctionT: ...
@overload
def on(type: str | None = None, /, *, guards: Sequence[Guard] = ()) -> Callable[[FunctionT], FunctionT]: ...
def on(type: Any = None, /, *, guards: Sequence[Guard] = ()) -> Any:
    """Register a method of a handler for one type of message.

    The first parameter is the payload, validated; all others are injected. What the method returns is the
    reply. An override in a subclass keeps the registration. Under a decorator, what
    the decorator's function is counts: a coroutine function replies, an async generator streams, a plain function
    passes on what is under it, or a value.

    Args:
        type: the message type; by default that of the `Message` that the payload is annotated with.
        guards: dependencies that are solved for every message, before all others of the method, in this order. One
            that raises `Deny` answers with an error frame (403: ``forbidden``), and the method is not called. One that
            the router lists as well runs again.

    Raises:
        ConfigurationError: it is a class, or the method has one already; where the handler is registered, for a
            payload without annotation, two methods for one type, a type that begins with ``$``, or a decorator that
            makes a coroutine function of an async generator.
    """
    if inspect.isclass(type):
        raise ConfigurationError(
            f"@on({type.__name__}): the message class is read from the annotation of the payload; write @on alone"
        )
    if callable(type):
        return _marked(type, Registration())

    def mark(function: FunctionT) -> FunctionT:
        return _marked(function, Registration(type, guards))

    return mark


def _marked(function: FunctionT, registration: Registration) -> FunctionT:
    if hasattr(function, MARK) and not hasattr(function, "__wrapped__"):  # functools.wraps copies the mark of another
        raise ConfigurationError(
            f"{name_of(function)}: @on twice, and only one would count; write a method for each type of message, or"
            " annotate the payload of one with a union of Messages"
        )
    setattr(function, MARK, registration)
    return function


class _Nothing:
    """What a hook that is not overridden returns: ``super()`` may be called with ``await`` and without."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_NOTHING: Final = _Nothing()


class WebSocketHandler:
    """One connection's handler: subclass it, declare what it needs, and register it on a router.

    An instance is made per connection, before accept; ``__init__`` (or the fields of a ``@dataclass``) is
    injected: path, query, header and cookie parameters, ``Depends``, ``Provide[...]``, `Connection`, `Hub`.
    Of the hooks below a class defines those that it wants, ``async def`` or plain ``def`` (which runs in the
    thread pool), with any further parameters injected.
    """

    guards: ClassVar[Sequence[Guard]] = ()
    """Dependencies that let a connection in or raise `Deny`; they run after those of the routers."""
    middleware: ClassVar[Sequence[Middleware]] = ()
    """Message middleware and rate limits; it runs inside that of the routers."""
    limits: ClassVar[Limits | None] = None
    """Limits in place of the router's."""
    subprotocols: ClassVar[Sequence[str]] = ()
    """What a raw handler speaks (RFC 6455, section 1.9): the first that the client offers of them is accepted, see
    `Connection.subprotocol`. Others speak what the router's codecs do."""
    client_rooms: ClassVar[Sequence[str]] = ()
    """Names of rooms that clients may join and leave by themselves with ``$join`` and ``$leave``; ``*`` is any text."""
    max_in_flight: ClassVar[int] = 1
    """How many messages are handled at once; above 1 replies come in the order in which they are ready."""
    cancel_on_disconnect: ClassVar[bool] = False
    """Whether a method is cancelled as soon as the client leaves, and what still waits is dropped."""
    close_on_error: ClassVar[bool] = False
    """Whether an unexpected exception in a message method closes the connection with 1011."""

    connection: Connection
    """The connection that this instance serves."""

    @property
    def user(self) -> Any:
        """What a guard put into ``scope["user"]``; always the current one, ``None`` without such a guard."""
        return self.connection.user

    # A plain `-> Any` lets an override be a coroutine function, a plain function or an async generator.

    def on_connect(self, *args: Any, **kwargs: Any) -> Any:
        """Called once after accept; may send. What it returns or yields is sent."""
        return _NOTHING

    def on_message(self, *args: Any, **kwargs: Any) -> Any:
        """Called for what no `on` method claims, or for every frame of a raw handler.

        The annotation of its first parameter decides how a frame is read: ``str`` a text frame, ``bytes`` a
        binary frame, `Envelope` what no `on` method claims, anything else the JSON of the whole frame.
        """
        return _NOTHING

    def on_join(self, *args: Any, **kwargs: Any) -> Any:
        """Called with the name of a room before a client's ``$join`` makes it a member; may raise `Deny`.

        It runs for rooms that ``client_rooms`` allows, and not when the server itself joins a client. A mapping that
        it returns is what others see of the connection in a room with presence.
        """
        return _NOTHING

    def on_disconnect(self, *args: Any, **kwargs: Any) -> Any:
        """Called once at the end if ``on_connect`` began; a parameter typed `CloseInfo` says how it ended."""
        return _NOTHING

    async def send(self, message: Any) -> None:
        """Send a message to this client; see `Connection.send`."""
        await self.connection.send(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close this connection; see `Connection.close`."""
        await self.connection.close(code, reason)

    async def join(
        self, room: str, *, since: Position | None = None, presence: Mapping[str, object] | None = None
    ) -> None:
        """Become a member of a room; see `Hub.join`.

        Args:
            room: name of the room.
            since: how far the client has read a room with history; of no meaning in others.
            presence: what others see of this connection in a room with presence; an error in others.
        """
        await hub_of(self).join(self.connection, room, since=since, presence=presence)

    async def leave(self, room: str) -> None:
        """End a membership; see `Hub.leave`."""
        await hub_of(self).leave(self.connection, room)

    async def broadcast(
        self,
        room: str,
        message: Any,
        *,
        exclude: str | Iterable[str] = (),
        exclude_users: str | Iterable[str] = (),
    ) -> None:
        """Send a message to all in a room, this client too if it is a member; see `Hub.broadcast`.

        Args:
            room: name of the room.
            message: a `Message`; for a raw handler what it may also `send`.
            exclude: ids of connections that do not get it, such as ``self.connection.id``.
            exclude_users: ids of users who do not get it.
        """
        connection = connection_of(self)
        if connection.raw:
            message = connection.encode(message)
        await hub_of(self).broadcast(room, message, exclude=exclude, exclude_users=exclude_users)


def hub_of(handler: WebSocketHandler) -> Hub:
    """Return the hub that `attach` gave to a handler."""
    hub: Hub = object.__getattribute__(handler, "__wsrouter_hub__")
    return hub


def connection_of(handler: WebSocketHandler) -> ServerConnection:
    """Return the connection that `attach` gave to a handler, as sessions and the hub have it."""
    connection: ServerConnection = object.__getattribute__(handler, "connection")
    return connection


def attach(handler: WebSocketHandler, connection: ServerConnection, hub: Hub) -> None:
    """Give a handler its connection and hub, before its constructor runs; also to a frozen dataclass.

    Not by its ``__dict__``: an instance has no dictionary until somebody looks at it, and there may be very many.
    """
    object.__setattr__(handler, "connection", connection)
    object.__setattr__(handler, "__wsrouter_hub__", hub)
