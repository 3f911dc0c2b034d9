"""Who is signed in, on which device. It is kept in memory; an application has a table in its place."""

import hashlib
import secrets
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in: a browser, until it signs out or the time is over."""

    id: str
    """Not secret: it stands in access tokens (``sid``)."""

    account: str
    expires_at: float
    """By `time.monotonic`."""


class Sessions:
    """Open sessions, by the hash of the secret in their cookie: who can read them can't use them.

    Args:
        lifetime: seconds until one has to sign in again.
    """

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._by_secret: dict[bytes, Session] = {}
        self._by_id: dict[str, bytes] = {}

    def begin(self, account: str) -> str:
        """Open a session, and return the secret for its cookie."""
        self._forget_expired()
        secret = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(12), account, monotonic() + self._lifetime)
        self._by_secret[_hash(secret)] = session
        self._by_id[session.id] = _hash(secret)
        return secret

    def find(self, secret: str) -> Session | None:
        """Return the session that a cookie stands for."""
        session = self._by_secret.get(_hash(secret))
        return session if session is not None and session.expires_at > monotonic() else None

    def is_open(self, id: str) -> bool:
        """Return whether a session is neither ended nor expired."""
        hashed = self._by_id.get(id)
        return hashed is not None and self._by_secret[hashed].expires_at > monotonic()

    def end(self, id: str) -> None:
        """End one session."""
        hashed = self._by_id.pop(id, None)
        if hashed is not None:
            del self._by_secret[hashed]

    def end_all(self, account: str) -> None:
        """End all sessions of an account."""
        for session in [each for each in self._by_secret.values() if each.account == account]:
            self.end(session.id)

    def _forget_expired(self) -> None:
        now = monotonic()
        for session in [each for each in self._by_secret.values() if each.expires_at <= now]:
            self.end(session.id)


def _hash(secret: str) -> bytes:
    # The secret is random: it needs no salt, and nothing slow.
    return hashlib.sha256(secret.encode(errors="replace")).digest()
