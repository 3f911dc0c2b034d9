"""What the page and the server say to each other."""

from typing import Annotated

from pydantic import Field, StringConstraints

from wsrouter import Message

TEXT_LIMIT = 4000
"""Characters of one line."""


class Say(Message):
    """Put a line into the room.

    Attributes:
        key: Made up by the client, one for each line. A client that lost its connection before it saw the
            answer sends the line again with the same key, and it is stored once.
        text: 1 to 4,000 characters, not counting white space around them.
    """

    key: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_LIMIT)]


class Typing(Message):
    """The sender is writing. The page repeats it every few seconds for as long as that is so."""


class Earlier(Message, type="history"):
    """Ask for the lines before one that the client has.

    Attributes:
        before: The ``id`` of that line.
    """

    before: Annotated[int, Field(ge=1, lt=2**63)]


class Said(Message, type="chat.said"):
    """A line, as it was stored.

    Attributes:
        id: Grows with every line; clients sort by it and show no ``id`` twice.
        key: The one that its sender made up.
        at: When it was stored, in milliseconds since 1970, UTC.
    """

    id: int
    key: str
    name: str
    text: str
    at: int


class Lines(Message, type="chat.lines"):
    """Up to fifty lines, oldest first.

    Attributes:
        more: Whether there are older ones.
    """

    lines: list[Said]
    more: bool


class People(Message, type="chat.people"):
    """Everyone in the room, sent to who has just joined.

    Attributes:
        you: The name that the newcomer signed in with.
        people: Mapping of name to number of devices.
    """

    you: str
    people: dict[str, int]


class Here(Message, type="chat.here"):
    """A person came, left, or has one device more or fewer.

    Attributes:
        devices: How many are connected now. 0: the last one has left.
    """

    name: str
    devices: int


class IsTyping(Message, type="chat.typing"):
    """Somebody else is writing."""

    name: str
