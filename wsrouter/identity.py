"""Who is at the other end: what an authenticator is, and whom it finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from starlette.requests import HTTPConnection
from starlette.types import Scope

from wsrouter.errors import WebSocketError

AMBIENT: Final = "wsrouter.ambient"
"""Set in the scope of a connection to which a browser attaches a credential by itself, whatever page opens it."""

_RESULTS: Final = "wsrouter.authenticated"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for."""

    id: str
    """The token's ``sub``."""

    scopes: frozenset[str] = frozenset()
    """From ``scope``, a text separated by spaces (RFC 8693, section 4.2)."""

    claims: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Mapping of claim name to value, as signed."""

    expires_at: float | None = None
    """When the token expires, in seconds since the epoch."""


class Authenticator:
    """A guard whose value is the user: it becomes ``scope["user"]``, which handlers see as ``self.user``.

    A subclass has an ``async def __call__`` written as a dependency, which returns the user or raises `Deny`.
    An override of it in a test gives the user as well.
    """

    gives_user: ClassVar[Literal[True]] = True

    ambient: bool = False
    """Whether browsers attach the credential by themselves, as they do cookies. Then a page of anybody's could
    connect in the user's name: a router with such an authenticator has to have a guard that checks origins."""

    expiry_grace: float = 0.0
    """Seconds after ``user.expires_at`` until the connection is closed with 4519."""

    revalidate: Callable[..., Any] | None = None
    """A dependency that is called again and again while the connection lives; it raises to end it."""

    revalidate_every: float = 60.0
    """Seconds between two calls of `revalidate`, give or take a tenth."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return who is at the other end, or raise `Deny`; written as a dependency, ``async def``."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def started(self) -> None:
        """Get ready: called when a handler's chain of guards is bound, at application start, once for each chain."""

    def conceal(self, scope: Scope) -> None:
        """Take credentials out of a scope that handlers are going to see; called before anything reads it."""

    async def aclose(self) -> None:
        """Release what is held; called when the application ends. It can be used again afterwards."""

    async def renew(self, connection: HTTPConnection, token: str) -> Any:
        """Return whom a fresh token speaks for, sent with ``$auth`` on an open connection.

        Args:
            connection: the connection.
            token: what the client sent.

        Raises:
            Deny: the token is not valid, or another subject's.
            WebSocketError: this authenticator takes no fresh tokens (the default).
        """
        raise WebSocketError("invalid", "This connection takes no fresh token")


def remember(scope: Scope, authenticator: Authenticator, user: Any) -> None:
    """Keep whom an authenticator found, so that it looks once per connection, wherever it is asked from."""
    scope.setdefault(_RESULTS, {})[authenticator] = user
    scope["user"] = user


def remembered(scope: Scope, authenticator: Authenticator) -> Any | None:
    """Return whom an authenticator found on this connection before, ``None`` if it did not look yet."""
    return scope.get(_RESULTS, {}).get(authenticator)
