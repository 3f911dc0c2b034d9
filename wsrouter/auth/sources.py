"""Where credentials are looked for: the header, a cookie, the subprotocols, the query."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import HTTPConnection
from starlette.types import Scope

from wsrouter.errors import ConfigurationError
from wsrouter.guards.requirements import TOKEN
from wsrouter.identity import Principal
from wsrouter.redaction import redact_header, redact_parameter

logger = logging.getLogger("wsrouter")

Verify: TypeAlias = Callable[[str], Awaitable[Principal]]

_BEARER: Final = re.compile(r"bearer +(.+)", re.IGNORECASE)
_PREFIX: Final = "bearer."
_OFFERED: Final = "wsrouter.bearers"
_BLANK: Final = " \t"
"""White space of headers (RFC 9110, section 5.6.3). To take away more of it, as ``strip()`` does, would make of
``\\xa0__Host-session``, which any page of a subdomain can set, the cookie that none can."""


class BadCredential(Exception):
    """There is a credential that can't be right: it is given twice, or is empty.

    The text is for the log, so it has nothing in it that a client sent.
    """


class Source(ABC):
    """One place of a handshake or an HTTP request in which `JWTAuth` looks for a credential."""

    ambient: ClassVar[bool] = False
    """Whether browsers send the credential by themselves, whichever page opens the connection."""

    @abstractmethod
    def find(self, connection: HTTPConnection) -> str | None:
        """Return the credential, ``None`` if there is none in this place.

        Raises:
            BadCredential: it is given more than once, or is no credential.
        """

    async def resolve(self, connection: HTTPConnection, credential: str, verify: Verify) -> Principal:
        """Return whom a credential speaks for; ``verify`` does that for tokens.

        Raises:
            Deny: nobody.
        """
        return await verify(credential)

    def started(self) -> None:  # noqa: B027 (most have nothing to do)
        """Get ready: called at application start, perhaps more than once."""

    def conceal(self, scope: Scope) -> None:  # noqa: B027
        """Take the credential out of a scope that handlers are going to see."""

    async def aclose(self) -> None:  # noqa: B027
        """Release what is held; called when the application ends."""


class Header(Source):
    """``Authorization: Bearer <token>`` (RFC 6750, section 2.1).

    Another scheme is no credential. Two ``Authorization`` headers, and one without a token, are a bad one. Pages
    in browsers can't set the header for a WebSocket.
    """

    def __init__(self) -> None:
        self.started()

    def find(self, connection: HTTPConnection) -> str | None:
        given = connection.headers.getlist("authorization")
        if not given:
            return None
        if len(given) > 1:
            raise BadCredential("more than one Authorization header")
        found = _BEARER.fullmatch(given[0])
        if found is None:
            if given[0].strip(_BLANK).lower() == "bearer":
                raise BadCredential("an Authorization header without a token")
            return None
        return found[1]

    def started(self) -> None:
        redact_header("authorization")
        redact_header("proxy-authorization")


class Cookie(Source):
    """A cookie whose value is the token.

    Two cookies of the name are a bad credential (a page of another subdomain can plant one), so is an empty one.
    Browsers send cookies whichever page opens a connection: a router with such a source needs a guard that
    checks origins, such as `wsrouter.guards.AllowOrigins`.

    Args:
        name: of the cookie, as it is spelled; ``__Host-`` in front keeps other subdomains from setting it.

    Raises:
        ConfigurationError: no cookie can have that name.
    """

    ambient = True

    def __init__(self, name: str) -> None:
        if not TOKEN.fullmatch(name):  # RFC 6265, section 4.1.1
            raise ConfigurationError(f"Cookie({name!r}): expected the name of a cookie, such as '__Host-session'")
        self.name = name
        redact_header("cookie")

    def find(self, connection: HTTPConnection) -> str | None:
        values = [
            value.strip(_BLANK)
            for header in connection.headers.getlist("cookie")
            for name, separator, value in (pair.partition("=") for pair in header.split(";"))
            if separator and name.strip(_BLANK) == self.name
        ]
        return only(values, "cookie")

    def started(self) -> None:
        redact_header("cookie")


class Subprotocol(Source):
    """``Sec-WebSocket-Protocol: wsrouter.v1, bearer.<token>``: how a page can send a token with a handshake.

    Elements that begin with ``bearer.``, in any case, are credentials; two of them, or one without a token, are a bad
    one. All are taken out of the scope, whichever source decides: a handler does not see them, and none is
    chosen. Clients have to offer ``wsrouter.v1`` too, since a browser gives up if none of its subprotocols
    is chosen. Empty elements are ignored. HTTP requests have no credential here.
    """

    def __init__(self) -> None:
        redact_header("sec-websocket-protocol")

    def find(self, connection: HTTPConnection) -> str | None:
        if connection.scope["type"] != "websocket":
            return None
        self.conceal(connection.scope)
        bearers: _Bearers = connection.scope[_OFFERED]
        return only(bearers.tokens, "subprotocol")

    def started(self) -> None:
        redact_header("sec-websocket-protocol")

    def conceal(self, scope: Scope) -> None:
        if scope["type"] != "websocket" or _OFFERED in scope:
            return
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        offered: list[str] = list(scope.get("subprotocols") or ())
        in_headers = _take_bearers(headers)  # wsproto leaves the header out
        in_list = [each.strip(_BLANK)[len(_PREFIX) :] for each in offered if _is_bearer(each)]
        scope[_OFFERED] = _Bearers(in_list if len(in_list) > len(in_headers) else in_headers)
        scope["headers"] = headers
        scope["subprotocols"] = [each for each in offered if not _is_bearer(each)]


class _Bearers:
    """The tokens that a client offered, in an object that does not show them when a scope is printed."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens


def _is_bearer(element: str) -> bool:
    return element.strip(_BLANK)[: len(_PREFIX)].lower() == _PREFIX


def _take_bearers(headers: list[tuple[bytes, bytes]]) -> list[str]:
    """Take the credentials out of a list of headers, and return their tokens."""
    tokens: list[str] = []
    for index in reversed(range(len(headers))):
        name, value = headers[index]
        if name.lower() != b"sec-websocket-protocol":
            continue
        elements = [element.strip(_BLANK) for element in value.decode("latin-1").split(",")]
        found = [element[len(_PREFIX) :] for element in elements if _is_bearer(element)]
        if not found:
            continue
        tokens += found
        rest = ", ".join(element for element in elements if element and not _is_bearer(element))
        headers[index : index + 1] = [(name, rest.encode("latin-1"))] if rest else []
    return tokens


class Query(Source):
    """A query parameter whose value is the token.

    The parameter given twice is a bad credential, so is an empty one. Its value is kept out of the logs of
    uvicorn and hypercorn, but not out of those of proxies, and of what browsers and error reporters show: prefer
    `Ticket`, which puts nothing into an address that is worth something afterwards. A warning at application start
    says so.

    Args:
        name: of the parameter.

    Raises:
        ConfigurationError: the name is empty.
    """

    def __init__(self, name: str) -> None:
        if not name:
            raise ConfigurationError("Query(''): expected the name of a query parameter, such as 'token'")
        self.name = name
        self._warned = False
        redact_parameter(name)

    def find(self, connection: HTTPConnection) -> str | None:
        return find_parameter(connection.scope, self.name)

    def started(self) -> None:
        redact_parameter(self.name)
        if not self._warned:
            self._warned = True
            logger.warning(
                "Query(%r): a token in an address ends up in the logs of proxies and in error reports; let"
                " an HTTP route hand out a Ticket",
                self.name,
            )


def find_parameter(scope: Scope, name: str) -> str | None:
    """Return the value of a query parameter, ``None`` if it is not there.

    Raises:
        BadCredential: it is there twice, or empty.
    """
    query: Any = scope.get("query_string") or b""
    parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return only([value for key, value in parameters if key == name], "query parameter")


def only(values: list[str], place: str) -> str | None:
    """Return the one credential of a place, ``None`` if there is none.

    Raises:
        BadCredential: there are more, or it is empty.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadCredential(f"more than one {place}")
    if not values[0]:
        raise BadCredential(f"an empty {place}")
    return values[0]
