"""Who is at the other end: what an authenticator is, and whom it finds."""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from starlette.requests import HTTPConnection
from starlette.types import Scope

from wsrouter.connection import Connection, View, view
from wsrouter.errors import WebSocketError

AMBIENT: Final = "wsrouter.ambient"
"""Set in the scope of a connection to which a browser attaches a credential by itself, whatever page opens it."""

EXPIRED: Final = 4519
"""The close code of a connection whose credential has expired."""

_RESULTS: Final = "wsrouter.authenticated"
_SETTLED: Final = "wsrouter.settled"
_WATCHER: Final = "wsrouter.watcher"


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
    """A dependency that is called again and again while the connection lives. It raises to end it, or returns
    ``False``. What it raises unexpectedly, and a status of 500 or more, is logged: the connection goes on."""

    revalidate_every: float = 60.0
    """Seconds between two calls of `revalidate`, give or take a tenth."""

    def ends_at(self, user: Any) -> float | None:
        """Return when a connection ends that it let in, in seconds since the epoch; ``None`` for never.

        That is ``user.expires_at``, if there is one, and `expiry_grace` later.

        Raises:
            TypeError: ``expires_at`` is no number of seconds.
        """
        expires_at = getattr(user, "expires_at", None)
        if expires_at is None or expires_at == math.inf:
            return None
        if isinstance(expires_at, bool) or not isinstance(expires_at, int | float) or not math.isfinite(expires_at):
            raise TypeError(
                f"{type(user).__qualname__}.expires_at, of {type(self).__qualname__}: expected seconds since the epoch,"
                f" or None, got {type(expires_at).__qualname__}"
            )
        return expires_at + self.expiry_grace

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
    """Keep whom an authenticator found, so that it looks once per connection, wherever it is asked from.

    Until the guards have said who the user is, whoever was found is: it becomes ``scope["user"]``.
    """
    scope.setdefault(_RESULTS, {})[authenticator] = user
    if not scope.get(_SETTLED):
        scope["user"] = user
    watcher: Callable[[], object] | None = scope.get(_WATCHER)
    if watcher is not None:
        watcher()


def settle(scope: Scope) -> None:
    """Note that it is decided who the user is: who is found by an authenticator from here on is not."""
    scope[_SETTLED] = True


def remembered(scope: Scope, authenticator: Authenticator) -> Any | None:
    """Return whom an authenticator found on this connection before, ``None`` if it did not look yet."""
    return scope.get(_RESULTS, {}).get(authenticator)


def end_of(scope: Scope) -> float | None:
    """Return when a connection has to end, in seconds since the epoch: with the first of all that was found.

    Raises:
        TypeError: see `Authenticator.ends_at`.
    """
    ends = [authenticator.ends_at(user) for authenticator, user in found(scope).items()]
    return min((end for end in ends if end is not None), default=None)


def watch(scope: Scope, watcher: Callable[[], object] | None) -> None:
    """Have a function called whenever an authenticator has found somebody, from here on."""
    scope[_WATCHER] = watcher


def found(scope: Scope) -> Mapping[Authenticator, Any]:
    """Return a mapping of authenticator to whom it found on this connection."""
    results: Mapping[Authenticator, Any] = scope.get(_RESULTS, {})
    return results


@contextmanager
def on_trial(connection: Connection) -> Generator[None]:
    """Keep who is found within the block to the block and what it awaits, until it has ended without an exception.

    Meanwhile everybody else sees the scope of the connection as it was.
    """
    scope, before = connection.scope, dict(connection.scope)
    tried: Scope = {**before, _RESULTS: dict(found(scope))}
    tried.pop(_WATCHER, None)
    seen = View(connection, tried)
    token = view.set(seen)
    try:
        yield
    finally:
        view.reset(token)
        seen.connection = None
    for authenticator, user in tried.pop(_RESULTS).items():
        if before.get(_RESULTS, {}).get(authenticator) is not user:
            scope.setdefault(_RESULTS, {})[authenticator] = user
    scope.update((key, value) for key, value in tried.items() if before.get(key) is not value)
