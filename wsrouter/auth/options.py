"""The options of `JWTAuth`, checked when it is made."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from wsrouter.auth.sources import Header, Source
from wsrouter.errors import ConfigurationError
from wsrouter.guards.requirements import SCOPE

MAX_TIME: Final = 253_402_300_800
"""The end of the year 9999, in seconds since the epoch: a time beyond it is none."""

_CLAIMS: Final = frozenset({"exp", "nbf", "iat", "sub", "iss", "aud", "jti"})


def texts(given: Any, name: str, example: str) -> list[str] | None:
    """Return an option that is a text, several, or ``None``.

    Raises:
        ConfigurationError: it is anything else, or empty.
    """
    if given is None:
        return None
    each: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Collection) else [*given]
    if not each or not all(isinstance(text, str) and text for text in each):
        raise ConfigurationError(f"JWTAuth({name}={given!r}): expected a text, or a list of some, such as [{example}]")
    return each


def seconds(given: Any, name: str, least: float) -> float:
    """Return an option that is a number of seconds.

    Raises:
        ConfigurationError: it is none, or below ``least``.
    """
    if isinstance(given, bool) or not isinstance(given, int | float) or not least <= given < MAX_TIME:
        raise ConfigurationError(f"JWTAuth({name}={given!r}): expected seconds, {least} or more")
    return given


def required(given: Collection[str]) -> list[str]:
    """Return the claims that a token has to have.

    Raises:
        ConfigurationError: one is none of those that RFC 7519 registers.
    """
    if isinstance(given, str):
        raise ConfigurationError(f"JWTAuth(require={given!r}): expected a list; write [...] around it")
    unknown = [each for each in given if each not in _CLAIMS]
    if unknown:
        known = ", ".join(sorted(_CLAIMS))
        raise ConfigurationError(
            f"JWTAuth(require=...): {unknown[0]!r} is no registered claim; expected some of {known}"
        )
    return [*given]


def listed_sources(given: Sequence[Source] | None) -> Sequence[Source]:
    """Return where credentials are looked for.

    Raises:
        ConfigurationError: nowhere, or something is no source.
    """
    if given is None:
        return [Header()]
    if isinstance(given, Source) or not given or not all(isinstance(each, Source) for each in given):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"JWTAuth(sources={given!r}): expected a list of sources, such as [Header(), Cookie('session')]"
        )
    return [*given]


def checked_realm(given: str) -> str:
    """Return a realm that can stand in quotes.

    Raises:
        ConfigurationError: it can't.
    """
    if not given.isascii() or not given.isprintable() or '"' in given or "\\" in given:
        raise ConfigurationError(f"JWTAuth(realm={given!r}): expected printable ASCII without quotes")
    return given


def quotable(scopes: Sequence[str]) -> str:
    """Return scopes as they stand in quotes in a header, each once.

    Raises:
        ConfigurationError: one is none (RFC 6749, section 3.3).
    """
    for scope in scopes:
        if not SCOPE.fullmatch(scope):
            raise ConfigurationError(
                f"Security(scopes=...): {scope!r} is no scope; expected printable ASCII without spaces and quotes, such"
                " as 'chat:write'; list several as several texts"
            )
    return " ".join(dict.fromkeys(scopes))
