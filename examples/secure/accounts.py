"""Who may sign in. It is kept in memory; an application has a table in its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from examples.secure.passwords import Passwords, hash_password


@dataclass(slots=True)
class Account:
    """Somebody who may sign in."""

    name: str
    scopes: Sequence[str]
    password_hash: str
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Demo:
    """An account that everybody knows: what only a demonstration has."""

    name: str
    password: str
    scopes: tuple[str, ...]


DEMOS = (
    Demo("rosa", "rosa reads", ("notes:read",)),
    Demo("walt", "walt writes", ("notes:read", "notes:write")),
    Demo("ada", "ada administers", ("notes:read", "notes:write", "notes:admin")),
)


class Accounts:
    """All accounts, by name.

    Args:
        demos: those that it begins with.
    """

    def __init__(self, demos: Sequence[Demo] = DEMOS) -> None:
        self._passwords = Passwords()
        self._accounts = {demo.name: Account(demo.name, demo.scopes, _hash_of(demo)) for demo in demos}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def find(self, name: str) -> Account | None:
        """Return an account, disabled ones too."""
        return self._accounts.get(name)

    async def authenticate(self, name: str, password: str) -> Account | None:
        """Return the account that name and password are of; ``None`` takes as long whichever of them is wrong."""
        account = self._accounts.get(name)
        matches = await self._passwords.verify(account.password_hash if account else None, password)
        return account if matches else None


@cache  # once for a process, however many applications it makes
def _hash_of(demo: Demo) -> str:
    return hash_password(demo.password)
