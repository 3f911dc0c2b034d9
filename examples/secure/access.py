"""Who may come in, and who may stay."""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import jwt
from dependency_injector.wiring import Provide
from starlette.requests import HTTPConnection

from examples.secure.accounts import Account, Accounts
from examples.secure.container import Container
from examples.secure.sessions import Session, Sessions
from examples.secure.settings import Settings
from wsrouter import Deny
from wsrouter.auth import Cookie, JWTAuth, Principal, Ticket
from wsrouter.guards import AllowOrigins, ConnectionLimit, RequireScopes

ALGORITHM = "HS256"
AUDIENCE = "board"
ISSUER = "board"
TYPE = "at+jwt"
"""RFC 9068: no other token that is ever signed with the same key passes for an access token."""


class SignedIn:
    """Admit whose session is open and whose account is enabled: what a signature can't tell.

    It runs as a guard, after ``$auth`` again, and every few seconds as `JWTAuth`'s ``revalidate``.
    """

    reads_user: ClassVar[Literal[True]] = True

    async def __call__(
        self,
        connection: HTTPConnection,
        accounts: Annotated[Accounts, Provide[Container.accounts]],
        sessions: Annotated[Sessions, Provide[Container.sessions]],
    ) -> None:
        check_signed_in(connection.scope["user"], accounts, sessions)


def check_signed_in(user: Principal, accounts: Accounts, sessions: Sessions) -> None:
    """Raise `Deny` for whose session has ended (401) or whose account is disabled (403)."""
    account = accounts.find(user.id)
    if account is None or account.disabled:
        raise Deny(403, reason="This account is disabled")
    if not sessions.is_open(str(user.claims.get("sid"))):
        raise Deny(401, reason="You were signed out")


class Access:
    """What is shared by the HTTP routes and the handler: the origins, the authenticator, the tickets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        prefix = "__Host-" if settings.https else ""
        self.session_cookie = f"{prefix}board_session"
        self.access_cookie = f"{prefix}board_access"
        # Browsers send Origin with every POST and every handshake: without it, neither is a page's.
        self.origins = AllowOrigins(*settings.origins, missing=False)
        self.tickets = Ticket()
        signed_in = SignedIn()
        self.auth = JWTAuth(
            key=settings.key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            types=[TYPE],
            require=["exp", "iat", "sub", "aud", "iss", "jti"],
            max_lifetime=settings.token_lifetime,
            expiry_grace=settings.expiry_grace,
            # The ticket first: the browser sends the cookie whether or not the page has a ticket.
            sources=[self.tickets, Cookie(self.access_cookie)],
            revalidate=signed_in,
            revalidate_every=settings.revalidate_every,
        )
        self.guards: Sequence[Callable[..., Any]] = [
            self.origins,
            ConnectionLimit(total=10_000, per_ip=100),
            self.auth,
            signed_in,
            RequireScopes("notes:read"),
            # Last: only who gets in pushes out their own oldest connection.
            ConnectionLimit(per_user=5, on_full="replace_oldest"),
        ]

    def sign(self, account: Account, session: Session) -> tuple[str, float]:
        """Return an access token, and the seconds that are left of it."""
        now = time.time()
        expires_at = int(now) + self._settings.token_lifetime
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": account.name,
            "sid": session.id,
            "scope": " ".join(account.scopes),
            "iat": int(now),
            "exp": expires_at,
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, self._settings.key, ALGORITHM, {"typ": TYPE}), expires_at - now
