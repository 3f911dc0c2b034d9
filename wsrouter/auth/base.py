"""What an authenticator is, and whom it finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal


class Authenticator:
    """A guard whose value is the user: it becomes ``scope["user"]``, which handlers see as ``self.user``.

    A subclass has an ``async def __call__`` written as a dependency, which returns the user or raises `Deny`.
    An override of it in a test gives the user as well.
    """

    gives_user: ClassVar[Literal[True]] = True


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for."""

    id: str
    """The token's ``sub``."""

    scopes: frozenset[str] = frozenset()
    """From ``scope``, a text separated by spaces (RFC 8693, section 4.2)."""

    claims: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Mapping of claim name to value, as signed."""

    expires_at: float | None = None
    """When the token expires, in seconds since the epoch."""
