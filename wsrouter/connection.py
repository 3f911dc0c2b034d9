"""One socket: what users see of it, and the same as sessions and the hub have it."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any, Final

from starlette.datastructures import Address, Headers, QueryParams, State
from starlette.requests import HTTPConnection
from starlette.types import Scope

from wsrouter.codecs import Codec, Frame
from wsrouter.frames import CloseInfo, Send
from wsrouter.limits import Limits
from wsrouter.messages import Message
from wsrouter.tasks import check_loop
from wsrouter.writer import Owner, Writer

_NOWHERE: Final[frozenset[str]] = frozenset()


class Connection(ABC):
    """One WebSocket connection.

    Handlers have it as ``self.connection``; dependencies, guards and middleware get it by annotating a
    parameter with `Connection`. It can send once it is accepted.
    """

    __slots__ = ()

    id: str
    """What tells it from all others, on every node: 24 hexadecimal digits, drawn at random."""
    closed: CloseInfo | None
    """How it ended or is being ended, ``None`` while it is open."""
    subprotocol: str | None
    """What was chosen of the subprotocols that the client offers, ``None`` for none."""

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """The ASGI scope of the connection."""

    @property
    @abstractmethod
    def http(self) -> HTTPConnection:
        """Starlette's view of the handshake."""

    @property
    def user(self) -> Any:
        """What a guard put into ``scope["user"]`` (Starlette's convention), else ``None``; always the current one."""
        return self.scope.get("user")

    @property
    def user_id(self) -> str | None:
        """What `Hub.send_to_user` and `Hub.disconnect_user` go by: ``str(user.id)``, else ``user.identity``.

        ``None`` for a connection without a user, and for one whose name is empty.
        """
        return identity_of(self.user)

    @property
    def path_params(self) -> Mapping[str, Any]:
        """Path parameters as the route's convertors read them."""
        return self.http.path_params

    @property
    def query_params(self) -> QueryParams:
        """Query parameters of the handshake."""
        return self.http.query_params

    @property
    def headers(self) -> Headers:
        """Headers of the handshake."""
        return self.http.headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """Cookies of the handshake."""
        return self.http.cookies

    @property
    def client(self) -> Address | None:
        """Address of the peer as the server gives it."""
        return self.http.client

    @property
    def state(self) -> State:
        """A place for the application's own values; it begins with what the lifespan yielded."""
        return self.http.state

    @property
    @abstractmethod
    def rooms(self) -> frozenset[str]:
        """Names of the rooms that it is in; in ``on_disconnect`` those that it was in."""

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Bytes that wait to be sent because the client does not read fast enough.

        What the server itself holds for the kernel counts with `wsrouter.uvicorn.WebSocketProtocol` only; elsewhere
        some 64 KiB, and the message that is being sent, wait before anything shows here.
        """

    @abstractmethod
    async def send(self, message: Any) -> None:
        """Send a message to this client, after everything that was sent before.

        On a closed connection nothing happens. If the client does not read, the message is queued and the
        caller waits until the outbox is below its bound (``Limits.send``, 10 s; then the client is gone: 4508).
        A cancellation does not take back what is queued.

        Args:
            message: a `Message`; for a raw handler ``str``, ``bytes`` or what its ``on_message`` reads.

        Raises:
            TypeError: it is nothing of that kind.
            RuntimeError: the connection is not accepted yet, or lives in another event loop.
        """

    @abstractmethod
    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame after everything that was sent before, and end the connection.

        Args:
            code: close code; 1000, 1001, 1003, 1007 to 1014, or 3000 to 4999.
            reason: text for the client, cut to 123 bytes of UTF-8.

        Raises:
            ValueError: an endpoint may not send that code.
            RuntimeError: the connection lives in another event loop.
        """


class ServerConnection(Writer, Connection):
    """A connection as sessions, the hub and guards of ours have it: all that is done to it.

    Args:
        scope: the ASGI scope.
        send: the ASGI ``send``.
        codec: what the connection speaks.
        encode: makes the frame of what is sent.
        limits: bounds and deadlines.
        raw: whether frames go out as they are, without an envelope.
        subprotocol: what was chosen of those that the client offers.
        owner: see `Writer`.
    """

    __slots__ = ("__weakref__", "_encode", "_http", "_loop", "_scope", "began", "id", "joined", "raw", "subprotocol")

    def __init__(
        self,
        scope: Scope,
        send: Send,
        *,
        codec: Codec,
        encode: Callable[[Any], Frame],
        limits: Limits,
        raw: bool = False,
        subprotocol: str | None = None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__(send, codec, limits, owner)
        self.id = os.urandom(12).hex()
        self.began = monotonic()
        self.subprotocol = subprotocol
        self.raw = raw
        self.joined: frozenset[str] = _NOWHERE
        self._scope = scope
        self._encode = encode
        self._loop = asyncio.get_running_loop()
        self._http: HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self._scope['path']!r}>"

    @property
    def scope(self) -> Scope:
        seen = view.get()
        return self._scope if seen is None or seen.connection is not self else seen.scope

    @property
    def http(self) -> HTTPConnection:
        seen = view.get()
        if seen is not None and seen.connection is self:
            return seen.http
        if self._http is None:
            self._http = HTTPConnection(self._scope)
        return self._http

    @property
    def rooms(self) -> frozenset[str]:
        return self.joined

    @property
    def pending_bytes(self) -> int:
        return 0 if self._outbox is None else self._outbox.bytes

    async def send(self, message: Any) -> None:
        self.check_loop()
        await self.write(self._encode(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.check_loop()
        self.start_close(code, reason)
        await self.flushed()

    def check_loop(self) -> None:
        """Check that the caller runs in the event loop of the connection, while it is open.

        Raises:
            RuntimeError: it does not.
        """
        if self.closed is None:
            check_loop(self._loop, "this connection lives")

    def encode(self, message: Any) -> Frame:
        """Return the frame of a message for this client."""
        return self._encode(message)


class View:
    """Another scope of a connection, which those see who run in a context with this `view`, and nobody else.

    Args:
        connection: the connection.
        scope: what they see in place of its scope.
    """

    __slots__ = ("connection", "http", "scope")

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.connection: Connection | None = connection
        """``None`` when it is over, also for tasks that were started in the context and go on."""
        self.scope = scope
        self.http = HTTPConnection(scope)


view: Final[ContextVar[View | None]] = ContextVar("wsrouter.view", default=None)


def identity_of(user: object) -> str | None:
    """Return what a user goes by, ``None`` for nobody."""
    try:
        id = getattr(user, "id", None)
        id = getattr(user, "identity", None) if id is None else id
    except NotImplementedError:  # the identity of Starlette's BaseUser raises
        return None
    return None if id is None else str(id) or None  # Starlette's UnauthenticatedUser has an empty identity


def message_encoder(codec: Codec) -> Callable[[Any], Frame]:
    """Return what makes the frame of a message, and refuses what is none."""

    def encode(message: Any) -> Frame:
        if not isinstance(message, Message):
            raise TypeError(f"send a Message, not {type(message).__name__}: a subclass of Message names its type")
        return codec.message(message)

    return encode
