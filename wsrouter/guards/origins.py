"""From which pages browsers may connect."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final, Literal, NamedTuple

import idna
from starlette.requests import HTTPConnection

from wsrouter.errors import ConfigurationError, Deny
from wsrouter.identity import AMBIENT

_MAX_LENGTH: Final = 512
"""Characters of an origin that is looked at: a host name has at most 253."""
_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>0|[1-9][0-9]{0,4}))?"
)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_UNICODE_HOST: Final = re.compile(r"(?P<scheme>[^/?#]*://)(?P<host>[^/?#@:\[\]\\\s]+)(?P<rest>.*)", re.DOTALL)


class Origin(NamedTuple):
    """An origin in its normal form; two are the same if they are equal (RFC 6454, section 5)."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """The origin with its port, also where that is the default one."""
        return f"{self.scheme}://{self.host}" + (f":{self.port}" if self.port is not None else "")


class AllowOrigins:
    """Admit browsers only from pages of these origins (RFC 6454; RFC 6455, section 10.2).

    A browser always sends ``Origin`` with a WebSocket handshake and a page can't forge it, other clients can
    send what they like: this protects users whose browser is made to connect by a foreign page, not the
    server from foreign clients. Denied with 403: another origin, several ``Origin`` headers or several
    origins in one, and what is no origin. On an HTTP route it is a dependency; browsers leave the header out
    of ``GET`` requests to their own origin there.

    Args:
        origins: such as ``"https://app.example"``, compared by scheme, host and port after normalising case,
            default ports, international names and IPv6 addresses; ``"https://*.app.example"`` for every
            subdomain at any depth, but not the domain itself; ``"null"`` for pages without an origin.
        missing: whether a request without ``Origin``, which no browser sends, is admitted. By default it is
            where no authenticator of the handler takes a credential that browsers attach by themselves
            (`Authenticator.ambient`), so it is not where a cookie signs in.

    Raises:
        ConfigurationError: something that is no origin, or none at all.
    """

    checks_origin: ClassVar[Literal[True]] = True
    """By this attribute the start-up check recognises a guard that looks at origins, one of the
    application's own too; a handler whose authenticator is `ambient` has to have one."""

    def __init__(self, *origins: str, missing: bool | None = None) -> None:
        if not origins:
            raise ConfigurationError("AllowOrigins(): name at least one origin, such as 'https://app.example'")
        self._missing = missing
        self._null = False
        self._exact: set[Origin] = set()
        self._subdomains: set[Origin] = set()
        for origin in origins:
            if origin == "null":
                self._null = True
            elif "://*." in origin:
                self._subdomains.add(_configured(origin, origin.replace("://*.", "://", 1), wild=True))
            else:
                self._exact.add(_configured(origin, origin))

    async def __call__(self, connection: HTTPConnection) -> None:
        """Deny with 403 what comes from elsewhere."""
        given = connection.headers.getlist("origin")
        if not given:
            if not (self._missing if self._missing is not None else not connection.scope.get(AMBIENT)):
                raise Deny(403, reason="An Origin header is needed")
        elif len(given) > 1 or not self._admits(given[0]):
            raise Deny(403, reason="This origin is not allowed")

    def _admits(self, value: str) -> bool:
        if value == "null":
            return self._null
        origin = parse_origin(value)
        if origin is None:
            return False
        return origin in self._exact or any(
            origin.scheme == parent.scheme and origin.port == parent.port and origin.host.endswith(f".{parent.host}")
            for parent in self._subdomains
        )


def _configured(written: str, value: str, *, wild: bool = False) -> Origin:
    """Return an origin that the application names.

    Args:
        written: what the application wrote, for the error.
        value: the origin, without a wildcard.
        wild: whether it stands for subdomains.
    """
    if value == "*":
        raise ConfigurationError(
            "AllowOrigins('*'): name the origins; to admit every page, leave the guard out where no cookie signs in"
        )
    origin = parse_origin(_punycode(value))
    if origin is None or (wild and _is_address(origin.host)):
        raise ConfigurationError(
            f"AllowOrigins({written!r}): expected scheme, host and perhaps port, without a path or a slash at the end,"
            " such as 'https://app.example' or 'https://*.app.example'"
        )
    if origin.scheme in ("ws", "wss"):
        raise ConfigurationError(
            f"AllowOrigins({written!r}): an origin is that of the page, not of the socket; write"
            f" {written.replace('ws', 'http', 1)!r}"
        )
    return origin


def _punycode(value: str) -> str:
    """Return an origin with its host as browsers send it (UTS #46); unchanged where it has none such."""
    found = _UNICODE_HOST.fullmatch(value)
    if value.isascii() or found is None:
        return value
    try:
        host = idna.encode(found["host"], uts46=True).decode()
    except idna.IDNAError:
        return value
    return f"{found['scheme']}{host}{found['rest']}"


def parse_origin(value: str) -> Origin | None:
    """Return an origin in its normal form; ``None`` for everything that no browser would send for one.

    That is a host beyond ASCII, user information, a path, a query, a list, a trailing dot, a percent sign, white
    space, a port with leading zeros, a half address.
    """
    if len(value) > _MAX_LENGTH or not value.isascii():
        return None
    found = _ORIGIN.fullmatch(value.lower())
    if found is None:
        return None
    scheme, host = found["scheme"], found["host"]
    port = _PORTS.get(scheme) if found["port"] is None else int(found["port"])
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            return Origin(scheme, f"[{IPv6Address(host[1:-1])}]", port)
        except ValueError:
            return None
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if labels[-1].isdigit() and not _is_address(host):
        return None
    return Origin(scheme, host, port)


def _is_address(host: str) -> bool:
    if host.startswith("["):
        return True
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True
