"""JSON Web Tokens in the ``Authorization`` header, verified by PyJWT."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import jwt
from starlette.requests import HTTPConnection

from wsrouter.errors import ConfigurationError, Deny
from wsrouter.identity import Authenticator, Principal

logger = logging.getLogger("wsrouter")

MAX_TOKEN_BYTES: Final = 8 * 1024
_SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"}
)


class JWTAuth(Authenticator):
    """A guard that admits the bearer of a valid token; as a dependency it gives the `Principal`.

    It reads ``Authorization: Bearer ...`` (RFC 6750, section 2.1) at the handshake, and denies with 401 and
    ``WWW-Authenticate``. The same object is a dependency for HTTP routes. A connection outlives its token.

    Args:
        key: the secret, or the public key as PEM or as PyJWT takes it.
        algorithms: those that are accepted; symmetric or asymmetric ones, never both.
        audience: what ``aud`` has to name; ``None`` for tokens without one.
        issuer: what ``iss`` has to be; ``None`` does not look at it.
        leeway: seconds by which clocks may differ.
        require: claims that a token has to have.

    Raises:
        ConfigurationError: no algorithms, unknown ones, both sorts in one list, or a weak key.
    """

    def __init__(
        self,
        *,
        key: Any,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        leeway: float = 0,
        require: Sequence[str] = ("exp", "sub"),
    ) -> None:
        given = set(algorithms)
        if not given or isinstance(algorithms, str) or not given <= _SYMMETRIC | _ASYMMETRIC:
            known = ", ".join(sorted(_SYMMETRIC | _ASYMMETRIC))
            raise ConfigurationError(f"JWTAuth(algorithms={algorithms!r}): expected a list of some of {known}")
        if given & _SYMMETRIC and given & _ASYMMETRIC:
            raise ConfigurationError(
                f"JWTAuth(algorithms={algorithms!r}): a public key could be taken for a secret; keep HS* or the others"
            )
        try:
            for algorithm in algorithms:
                method = jwt.get_algorithm_by_name(algorithm)
                weakness = method.check_key_length(method.prepare_key(key))
                if weakness:
                    raise ConfigurationError(f"JWTAuth(key=...): {weakness}")
        except (jwt.PyJWTError, TypeError, ValueError) as exc:
            raise ConfigurationError(f"JWTAuth(key=...): no key for {list(algorithms)} ({exc})") from exc
        self._key = key
        self._algorithms = list(algorithms)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._require = list(require)

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Return whom the token speaks for.

        Raises:
            Deny: 401; there is no token, more than one, or it is not valid.
        """
        headers = connection.headers.getlist("authorization")
        scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            raise Deny(401, reason="A bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        try:
            return self._principal(token)
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as exc:
            logger.info("a token was refused: %s", type(exc).__name__)
            raise Deny(
                401, reason="The token is not valid", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
            ) from None

    def _principal(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError("a token has at most 8 KiB")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options={"require": self._require, "verify_aud": True},
        )
        expires_at = claims.get("exp")
        if expires_at is not None and not math.isfinite(expires_at):
            raise ValueError("a token ends at a time")
        scope = claims.get("scope", "")
        scopes = frozenset(scope.split()) if isinstance(scope, str) else frozenset[str]()
        return Principal(str(claims.get("sub", "")), scopes, claims, expires_at)
