"""What the page and the server say to each other over the socket."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from examples.secure.notices import Notice
from wsrouter import Message


class Post(Message):
    """Put a notice up; needs ``notes:write``."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=280)]


class Pin(Message):
    """Pin a notice, or no longer; needs ``notes:admin``."""

    notice: Annotated[int, Field(ge=1, lt=2**53)]
    pinned: bool


class Clear(Message):
    """Take down every notice that is not pinned; needs ``notes:admin``."""


class Disable(Message):
    """Disable an account, or enable it again; needs ``notes:admin``."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    disabled: bool


class ListAccounts(Message, type="accounts"):
    """Ask for all accounts; needs ``notes:admin``."""


class Welcome(Message):
    """Sent first: who one is, by what the server saw.

    Attributes:
        connection: Id of the connection.
        credential: What the handshake was authenticated with.
    """

    connection: str
    name: str
    scopes: list[str]
    credential: Literal["cookie", "ticket"]


class Board(Message):
    """All notices; sent after the welcome, and to everybody when something has changed."""

    notices: list[Notice]


class AccountEntry(Message):
    """One account, as an administrator sees it."""

    name: str
    scopes: list[str]
    disabled: bool


class AccountList(Message):
    """The answer to ``accounts``."""

    accounts: list[AccountEntry]
