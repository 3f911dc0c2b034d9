"""What can be chosen when the board is started."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field


def random_key() -> str:
    """Return a new key for signing tokens."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one application."""

    origins: Sequence[str]
    """Where the page is served, such as ``https://board.example``: nobody else's page gets an answer."""

    key: str = field(default_factory=random_key, repr=False)
    """What access tokens are signed with, 32 bytes or more. By default a new one: a restart voids every token."""

    token_lifetime: int = 60
    """Seconds that an access token is worth something."""

    expiry_grace: float = 5.0
    """Seconds that a connection outlives its token, for a page whose refresh was slow."""

    session_lifetime: int = 12 * 3600
    """Seconds after which one has to sign in again."""

    revalidate_every: float = 2.0
    """Seconds between two looks at whether somebody may stay. It costs nothing while sessions are in memory; with a
    database, half a minute is plenty."""

    @property
    def https(self) -> bool:
        """Whether all pages are served over https: cookies are then ``Secure``, and keep to their host."""
        return all(origin.startswith("https://") for origin in self.origins)
