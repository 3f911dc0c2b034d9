"""JSON Web Tokens (RFC 7519), verified by PyJWT."""

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, cast

import jwt
from fastapi.security import SecurityScopes
from jwt.types import Options
from starlette.requests import HTTPConnection
from starlette.types import Scope

from wsrouter.auth.jwks import JWKSet, Unavailable
from wsrouter.auth.keys import SYMMETRIC, Key, KeyRing, UnknownKey, check_algorithms
from wsrouter.auth.options import MAX_TIME, checked_realm, listed_sources, quotable, required, seconds, texts
from wsrouter.auth.sources import BadCredential, Source
from wsrouter.errors import ConfigurationError, Deny
from wsrouter.guards.requirements import scopes_in
from wsrouter.identity import EXPIRED, Authenticator, Principal, remember, remembered
from wsrouter.redaction import redact_frames

logger = logging.getLogger("wsrouter")

MAX_TOKEN_BYTES: Final = 8 * 1024

_COMPACT: Final = re.compile(r"[A-Za-z0-9_=-]+\.[A-Za-z0-9_=-]*\.[A-Za-z0-9_=-]*")
_TIMES: Final = ("exp", "nbf", "iat")
_NO_SCOPES: Final = SecurityScopes()


class JWTAuth(Authenticator):
    """A guard that admits the bearer of a valid token; as a dependency it gives the `Principal`.

    The same object is a dependency for HTTP routes. It looks once per connection, wherever it is asked from.
    The first of its sources that has a credential decides: where that is bad, the others are not asked.
    ``Security(auth, scopes=["chat:write"])`` in place of ``Depends(auth)`` wants all of these scopes.

    It denies with 401 and ``WWW-Authenticate`` (RFC 6750, section 3): without an error where there is no
    credential, else with ``invalid_token``. The close code is 4519 for a token that has expired, else 4401. Who lacks a
    scope is denied with 403 and ``insufficient_scope``.

    A token over 8 KiB is not looked at. One with ``crit`` or ``b64`` is refused (RFC 7515, section 4.1.11; RFC 7797,
    section 7), so is one whose ``exp``, ``nbf`` or ``iat`` is no number up to the year 9999. A ``scope`` that is no
    text gives no scopes.

    Args:
        key: a secret, or a public key as PEM, as JWK (mapping or JSON text), as PyJWK or of cryptography's; several of
            them as JWK set or as mapping of ``kid`` to key. With one key the ``kid`` of a token does not matter.
        jwks_url: where the issuer's keys are, in place of ``key``: an address, or a `JWKSet` with options of its own.
        algorithms: those that are accepted; symmetric or asymmetric ones, never both.
        audience: what ``aud`` has to name, or several of which it has to name one; ``None`` for tokens without one.
        issuer: what ``iss`` has to be, or several; ``None`` does not look at it.
        leeway: seconds by which clocks may differ: a token is good, and its connection lives, for so much longer.
        require: claims that a token has to have; some of ``exp``, ``nbf``, ``iat``, ``sub``, ``iss``, ``aud``, ``jti``.
            A ``sub`` that has to be there may not be empty.
        expiry_grace: seconds after the token's end, ``leeway`` included, until its connection is closed with 4519.
        sources: where the token is looked for, in this order; by default the ``Authorization`` header.
        types: accepted values of the ``typ`` header, such as ``["at+jwt"]`` (RFC 8725, section 3.11), compared
            without case and without ``application/``; ``None`` does not look at it.
        max_lifetime: seconds from ``iat``, or from now where there is none, within which a token has to end;
            one without ``exp`` is refused then. ``None`` is no bound.
        revalidate: a dependency that is called again and again while a connection lives; it raises to end it.
        revalidate_every: seconds between two calls, give or take a tenth.
        realm: the realm in ``WWW-Authenticate``; ``None`` leaves it out.

    Raises:
        ConfigurationError: no algorithms, unknown ones, both sorts in one list, a weak key or one that does
            not fit, an unknown claim in ``require``, or another option that can't be meant.
    """

    def __init__(
        self,
        *,
        key: object = None,
        jwks_url: str | JWKSet | None = None,
        algorithms: Collection[str],
        audience: str | Collection[str] | None = None,
        issuer: str | Collection[str] | None = None,
        leeway: float = 0,
        require: Collection[str] = ("exp", "sub"),
        expiry_grace: float = 25,
        sources: Sequence[Source] | None = None,
        types: Collection[str] | None = None,
        max_lifetime: float | None = None,
        revalidate: Callable[..., Any] | None = None,
        revalidate_every: float = 60,
        realm: str | None = None,
    ) -> None:
        self._algorithms = check_algorithms(algorithms)
        self._keys = _keys(key, jwks_url, self._algorithms)
        self._audience = texts(audience, "audience", "'chat'")
        self._issuer = texts(issuer, "issuer", "'https://issuer.example/'")
        accepted = texts(types, "types", "'JWT'")
        self._types = None if accepted is None else frozenset(map(_type_name, accepted))
        self._leeway = seconds(leeway, "leeway", 0)
        self._max_lifetime = None if max_lifetime is None else seconds(max_lifetime, "max_lifetime", 1)
        self._require = required(require)
        self._options = cast(Options, {"require": self._require, "enforce_minimum_key_length": True})
        self._sources = listed_sources(sources)
        self._challenge = "Bearer" if realm is None else f'Bearer realm="{checked_realm(realm)}"'
        self.ambient = any(source.ambient for source in self._sources)
        self.expiry_grace = seconds(expiry_grace, "expiry_grace", 0)
        self.revalidate = revalidate
        self.revalidate_every = seconds(revalidate_every, "revalidate_every", 0.01)
        self._started = False
        redact_frames()

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes = _NO_SCOPES) -> Principal:
        """Return whom the credential speaks for.

        Args:
            connection: the request, or the handshake.
            security_scopes: what ``Security`` names on the way here; all of them are needed.

        Raises:
            Deny: 401; there is no credential, more than one in one place, or it is not valid, or not any more. 403;
                a scope is missing. 503; the issuer's keys, or the store of tickets, can't be reached.
            ConfigurationError: ``Security`` names what is no scope (RFC 6749, section 3.3), and the user lacks it.
        """
        principal: Principal | None = remembered(connection.scope, self)
        if principal is None:
            principal = await self._look(connection)
        elif (ends_at := self.ends_at(principal)) is not None and ends_at <= time.time():
            raise self._expired()
        if not principal.scopes.issuperset(security_scopes.scopes):
            raise self._insufficient(security_scopes.scopes)
        return principal

    def ends_at(self, user: Any) -> float | None:
        """Return when a connection ends: when its token does, `leeway` and `expiry_grace` later."""
        ends_at = super().ends_at(user)
        return None if ends_at is None else ends_at + self._leeway

    async def _look(self, connection: HTTPConnection) -> Principal:
        if not self._started:
            self.started()
        self.conceal(connection.scope)
        try:
            principal = await self._find(connection)
        except BadCredential as exc:
            raise self._refusal(str(exc)) from None
        if principal.expires_at is not None and principal.expires_at <= time.time() - self._leeway:
            raise self._expired()  # while its ticket waited
        remember(connection.scope, self, principal)
        return principal

    async def verify(self, token: str) -> Principal:
        """Return whom a token speaks for.

        Raises:
            Deny: 401; it is not valid. 503; the issuer's keys can't be reached.
        """
        try:
            if len(token) > MAX_TOKEN_BYTES:
                raise BadCredential("a token over 8 KiB")
            if not _COMPACT.fullmatch(token):
                raise BadCredential("not three parts in base64")
            key = await self._key_of(token)
            algorithms = [each for each in self._algorithms if each in key.algorithms]
            if not algorithms:
                raise UnknownKey
            return self._principal(token, key, algorithms)
        except Unavailable as exc:
            reason = "The token can't be checked at the moment"
            raise Deny(503, reason=reason, headers={"Retry-After": str(exc.retry_after)}) from None
        except jwt.ExpiredSignatureError:
            raise self._expired() from None
        except BadCredential as exc:
            raise self._refusal(str(exc)) from None
        except (UnknownKey, jwt.PyJWTError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise self._refusal(type(exc).__name__) from None  # what PyJWT says quotes the token

    async def renew(self, connection: HTTPConnection, token: str) -> Principal:
        """Return whom a fresh token speaks for: the same subject, by issuer and ``sub``, as so far.

        It changes nothing by itself: who calls it puts the principal in place.

        Raises:
            Deny: 401; it is not valid. 403; it is another subject's, or this authenticator has found nobody here.
        """
        fresh = await self.verify(token)
        current = remembered(connection.scope, self)
        if not isinstance(current, Principal) or not fresh.id or _subject(current) != _subject(fresh):
            raise Deny(403, reason="The token is another subject's")
        return fresh

    def started(self) -> None:
        """Get the sources ready: what they say at start is said, and logs are redacted."""
        self._started = True
        redact_frames()
        for source in self._sources:
            source.started()

    def conceal(self, scope: Scope) -> None:
        """Take out of a scope what sources do not leave to handlers."""
        for source in self._sources:
            source.conceal(scope)

    async def aclose(self) -> None:
        """End a fetch of keys, and release what sources hold."""
        await self._keys.aclose()
        for source in self._sources:
            await source.aclose()

    async def _find(self, connection: HTTPConnection) -> Principal:
        for source in self._sources:
            credential = source.find(connection)
            if credential is not None:
                return await source.resolve(connection, credential, self.verify)
        raise Deny(401, reason="A token is needed", headers={"WWW-Authenticate": self._challenge})

    async def _key_of(self, token: str) -> Key:
        if isinstance(self._keys, KeyRing) and self._keys.sole is not None:
            return self._keys.sole
        header = jwt.get_unverified_header(token)
        return await self._keys.find(header.get("kid"), header.get("alg"))

    def _principal(self, token: str, key: Key, algorithms: Sequence[str]) -> Principal:
        decoded = jwt.decode_complete(
            token,
            key.material,
            algorithms=algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options=self._options,
        )
        header: Mapping[str, Any] = decoded["header"]
        claims: Mapping[str, Any] = decoded["payload"]
        if "crit" in header or "b64" in header:
            raise BadCredential("a token with an extension")
        if self._types is not None and _type_name(header.get("typ")) not in self._types:
            raise BadCredential("a token of another type")
        for name in _TIMES:
            _check_time(claims.get(name))
        expires_at: float | None = claims.get("exp")
        if self._max_lifetime is not None:
            self._check_lifetime(claims.get("iat"), expires_at)
        id: str = claims.get("sub", "")
        id.encode()  # a lone surrogate is no text
        if not id and "sub" in self._require:
            raise BadCredential("a token with an empty subject")
        scope = claims.get("scope")
        scopes = scopes_in(scope) if isinstance(scope, str) else frozenset[str]()
        return Principal(id, scopes, claims, expires_at)

    def _check_lifetime(self, issued_at: float | None, expires_at: float | None) -> None:
        assert self._max_lifetime is not None
        begin = time.time() + self._leeway if issued_at is None else issued_at
        if expires_at is None or expires_at - begin > self._max_lifetime:
            raise BadCredential("a token that lives too long")

    def _expired(self) -> Deny:
        description = "The token has expired"
        return self._refusal(description, code=EXPIRED, description=description)

    def _refusal(self, why: str, *, code: int | None = None, description: str | None = None) -> Deny:
        logger.info("a credential was refused: %s", why)
        details = 'error="invalid_token"'
        if description is not None:
            details += f', error_description="{description}"'
        reason = description or "The token is not valid"
        return Deny(401, code=code, reason=reason, headers=self._challenged(details))

    def _insufficient(self, scopes: Sequence[str]) -> Deny:
        details = f'error="insufficient_scope", scope="{quotable(scopes)}"'
        return Deny(403, reason="This needs more rights than you have", headers=self._challenged(details))

    def _challenged(self, details: str) -> Mapping[str, str]:
        return {"WWW-Authenticate": self._challenge + (", " if "=" in self._challenge else " ") + details}


def _subject(principal: Principal) -> tuple[Any, str]:
    return principal.claims.get("iss"), principal.id


def _check_time(value: Any) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME
    ):
        raise BadCredential("a time that is none")


def _type_name(value: Any) -> str | None:
    return value.lower().removeprefix("application/") if isinstance(value, str) else None


def _keys(key: object, jwks_url: str | JWKSet | None, algorithms: Sequence[str]) -> KeyRing | JWKSet:
    if (key is None) == (jwks_url is None):
        raise ConfigurationError("JWTAuth(): give either key=, or jwks_url=")
    if jwks_url is None:
        return KeyRing(key, algorithms)
    if not SYMMETRIC.isdisjoint(algorithms):
        raise ConfigurationError(
            f"JWTAuth(jwks_url=..., algorithms={list(algorithms)}): what all can fetch is no secret; leave HS* out"
        )
    return JWKSet(jwks_url) if isinstance(jwks_url, str) else jwks_url
