"""How many may be connected at once."""

from collections import Counter
from collections.abc import AsyncGenerator

from wsrouter.connection import Connection
from wsrouter.errors import ConfigurationError, Deny


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
