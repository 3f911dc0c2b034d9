"""What a connection has to have: scopes of its user, a subprotocol."""

import re
from collections.abc import Iterable
from typing import Any, ClassVar, Final, Literal

from starlette.requests import HTTPConnection

from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError, Deny

SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, section 3.3."""
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""


class RequireScopes:
    """Admit users who have all of these scopes.

    As a guard it stands after the authenticator, and runs again when the client renews its credential with
    ``$auth``. On one message method: ``@on(guards=[RequireScopes("chat:write")])``. On an HTTP route it is a
    dependency, after one that puts the user into ``scope["user"]``, as `JWTAuth` does.

    The scopes are those of ``user.scopes``, a collection of texts or one text with spaces; for a user without
    that attribute those of Starlette's ``AuthenticationMiddleware`` (``scope["auth"]``). Nobody, and a user
    whose ``is_authenticated`` is false, is denied with 401; who lacks a scope with 403 and
    ``WWW-Authenticate: Bearer error="insufficient_scope"`` (RFC 6750, section 3.1).

    Args:
        scopes: such as ``"chat:write"``; all of them are needed.

    Raises:
        ConfigurationError: none, or one that is no scope (RFC 6749, section 3.3); at application start before the
            authenticator of the same handler.
    """

    reads_user: ClassVar[Literal[True]] = True
    """It depends on who the user is: it runs again after ``$auth``."""

    needs_user: ClassVar[Literal[True]] = True
    """It is refused at application start where the authenticator is listed after it."""

    def __init__(self, *scopes: str) -> None:
        if not scopes:
            raise ConfigurationError("RequireScopes(): name at least one scope, such as 'chat:write'")
        for scope in scopes:
            if not _matches(SCOPE, scope):
                raise ConfigurationError(
                    f"RequireScopes({scope!r}): expected one scope of printable ASCII without spaces, such as"
                    " 'chat:write'; list several as several arguments"
                )
        self._scopes = frozenset(scopes)
        self._challenge = f'scope="{" ".join(dict.fromkeys(scopes))}"'

    async def __call__(self, connection: HTTPConnection) -> None:
        """Deny with 401 who is nobody, with 403 who lacks a scope."""
        user = connection.scope.get("user")
        if user is None or getattr(user, "is_authenticated", True) is False:
            raise Deny(401, reason="Sign in first", headers={"WWW-Authenticate": f"Bearer {self._challenge}"})
        if not self._scopes <= _scopes_of(user, connection.scope.get("auth")):
            raise Deny(
                403,
                reason="This needs more rights than you have",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", {self._challenge}'},
            )


def _scopes_of(user: Any, credentials: Any) -> frozenset[str]:
    scopes: str | Iterable[str] | None = getattr(user, "scopes", None)
    if scopes is None:
        scopes = getattr(credentials, "scopes", None)
    return scopes_in(scopes) if isinstance(scopes, str) else frozenset(scopes or ())


def scopes_in(text: str) -> frozenset[str]:
    """Return the scopes of a text. Only a space separates them: other white space is part of one (RFC 6749, 3.3)."""
    return frozenset(filter(None, text.split(" ")))


class RequireSubprotocol:
    """Admit clients with which one of these subprotocols is agreed on (RFC 6455, section 1.9).

    Agreed on is the first that the client offers of those that the handler speaks: a raw handler its
    ``subprotocols``, any other those of the router's ``codecs``. It is `Connection.subprotocol`, and what the
    handshake answers. A client that offers none of them would be let in without an answer, and a browser then
    drops the connection; with this guard it is denied with 400 (close code 4400), and the reason names what to
    offer. A subprotocol that the handler does not speak is never agreed on: to demand it admits nobody.

    Args:
        subprotocols: such as ``"chat.v2"``; one of them is needed. Case matters.

    Raises:
        ConfigurationError: none, or one that is no token (RFC 9110, section 5.6.2).
    """

    def __init__(self, *subprotocols: str) -> None:
        if not subprotocols:
            raise ConfigurationError("RequireSubprotocol(): name at least one subprotocol, such as 'chat.v2'")
        for subprotocol in subprotocols:
            if not _matches(TOKEN, subprotocol):
                raise ConfigurationError(
                    f"RequireSubprotocol({subprotocol!r}): expected a token, such as 'chat.v2'; list several as several"
                    " arguments"
                )
        self.subprotocols = frozenset(subprotocols)
        """What is admitted."""
        self._reason = f"Offer the subprotocol {' or '.join(dict.fromkeys(subprotocols))}"

    async def __call__(self, connection: Connection) -> None:
        """Deny with 400 where none of them is agreed on."""
        if connection.subprotocol not in self.subprotocols:
            raise Deny(400, reason=self._reason)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
