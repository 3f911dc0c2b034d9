"""Ready guards. A guard of one's own is a dependency that raises `Deny`: a function is enough."""

from collections import Counter
from collections.abc import AsyncGenerator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError, Deny

__all__ = ["AllowOrigins", "ConnectionLimit"]

_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class AllowOrigins:
    """Admit browsers only from pages of these origins (RFC 6454; RFC 6455, section 10.2).

    A browser always sends ``Origin`` and a page can't forge it, other clients can send what they like: this
    protects users whose browser is made to connect by a foreign page, not the server from foreign clients.

    Args:
        origins: such as ``"https://app.example"``, compared by scheme, host and port; ``"https://*.app.example"``
            for every subdomain, but not the domain itself; ``"null"`` for pages without an origin.
        missing: whether a request without ``Origin``, which no browser sends, is admitted.

    Raises:
        ConfigurationError: something that is no origin.
    """

    def __init__(self, *origins: str, missing: bool = True) -> None:
        if not origins:
            raise ConfigurationError("AllowOrigins(): name at least one origin, such as 'https://app.example'")
        self._missing = missing
        self._exact: set[tuple[str, str, int] | None] = set()
        self._subdomains: set[tuple[str, str, int]] = set()
        for origin in origins:
            if origin == "null":
                self._exact.add(None)
                continue
            scheme, _, rest = origin.partition("://")
            wild = rest.startswith("*.")
            parsed = _parse_origin(f"{scheme}://{rest.removeprefix('*.')}")
            if parsed is None:
                raise ConfigurationError(
                    f"AllowOrigins({origin!r}): expected scheme, host and perhaps port, such as 'https://app.example'"
                )
            (self._subdomains if wild else self._exact).add(parsed)

    async def __call__(self, connection: HTTPConnection) -> None:
        """Deny with 403 what comes from elsewhere."""
        given = connection.headers.getlist("origin")
        if not given and self._missing:
            return
        if len(given) != 1 or not self._admits(given[0]):
            raise Deny(403, reason="This origin is not allowed")

    def _admits(self, value: str) -> bool:
        if value == "null":
            return None in self._exact
        origin = _parse_origin(value)
        if origin is None:
            return False
        if origin in self._exact:
            return True
        scheme, host, port = origin
        return any(
            scheme == wanted and port == wanted_port and host.endswith("." + domain)
            for wanted, domain, wanted_port in self._subdomains
        )


def _parse_origin(value: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an origin, in lower case; ``None`` if it is none.

    A host beyond ASCII, user information, a path, a query and a trailing dot make it none.
    """
    if not value.isascii() or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or host.endswith(".") or "*" in host:
        return None
    if "@" in parts.netloc or parts.path or parts.query or parts.fragment or value.endswith(("?", "#", ":")):
        return None
    if ":" in host:
        try:
            host = str(ip_address(host))
        except ValueError:
            return None
    return parts.scheme, host, _PORTS[parts.scheme] if port is None else port


class ConnectionLimit:
    """Hold one of a number of places while the connection lives; deny with 429 when there is none.

    It counts within one process. List it after the guard that knows the user.

    Args:
        total: connections at once.
        per_user: connections of one user at once; those without a user are not limited by it.
        retry_after: seconds that the ``Retry-After`` header names.

    Raises:
        ConfigurationError: no limit, or one below 1.
    """

    def __init__(self, *, total: int | None = None, per_user: int | None = None, retry_after: int = 5) -> None:
        if total is None and per_user is None:
            raise ConfigurationError("ConnectionLimit(): give total=, per_user= or both")
        for name, limit in (("total", total), ("per_user", per_user)):
            if limit is not None and limit < 1:
                raise ConfigurationError(f"ConnectionLimit({name}={limit}): expected 1 or more")
        self._total = total
        self._per_user = per_user
        self._retry_after = retry_after
        self._users: Counter[str] = Counter()
        self._taken = 0

    async def __call__(self, connection: Connection) -> AsyncGenerator[None]:
        """Take a place, and give it back when the connection ends."""
        user = connection.user_id if self._per_user is not None else None
        if self._total is not None and self._taken >= self._total:
            raise self._denial("There are too many connections")
        if user is not None and self._per_user is not None and self._users[user] >= self._per_user:
            raise self._denial("You have too many connections")
        self._taken += 1
        if user is not None:
            self._users[user] += 1
        try:
            yield
        finally:
            self._taken -= 1
            if user is not None:
                self._users[user] -= 1
                if not self._users[user]:
                    del self._users[user]

    def _denial(self, reason: str) -> Deny:
        return Deny(429, reason=reason, headers={"Retry-After": str(self._retry_after)})
