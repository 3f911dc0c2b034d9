"""Passwords, hashed with Argon2id (RFC 9106)."""

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE = 2
"""Hashes that are computed at once. Each takes 64 MiB and several cores for some 30 ms: a flood of sign-ins waits here,
and the event loop does not."""


_hasher = PasswordHasher()
_decoy = _hasher.hash("nobody's")


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    return _hasher.hash(password)


class Passwords:
    """Verifies passwords, in threads."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def verify(self, known: str | None, password: str) -> bool:
        """Return whether it is the password that ``known`` was made of.

        Args:
            known: what is kept; ``None`` for an unknown name, which takes as long as a known one.
            password: what was typed.
        """
        if self._limiter is None:  # it belongs to an event loop
            self._limiter = CapacityLimiter(AT_ONCE)
        matches = await to_thread.run_sync(_matches, known or _decoy, password, limiter=self._limiter)
        return matches and known is not None


def _matches(known: str, password: str) -> bool:
    try:
        return _hasher.verify(known, password)
    except (VerificationError, InvalidHashError):
        return False
