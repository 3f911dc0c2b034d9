"""What the page and the server say to each other."""

from typing import Annotated

from pydantic import Field, StringConstraints

from wsrouter import Message


class Write(Message):
    """Ask for a text. The answers are its words, one in each ``$item``, then ``$ok``.

    Attributes:
        prompt: What it shall be about: 1 to 200 characters, not counting white space around them.
        words: How many it shall have, at least; it ends with a sentence.
        pace: Words a second. Without it they come as fast as the client takes them.
        seed: The same prompt and seed give the same text.
        after: How many words of it the client has already. So a text that was cut short goes on where it broke off.
    """

    prompt: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    words: Annotated[int, Field(ge=1, le=1_000_000)]
    pace: Annotated[float, Field(gt=0, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    after: Annotated[int, Field(ge=0, le=1_001_000)] = 0


class Ready(Message, type="stream.ready"):
    """The first message on a connection.

    Attributes:
        at_once: How many texts are written at once; others wait for their turn.
    """

    at_once: int


class Generators(Message, type="stream.generators"):
    """The generators of this server, those for other pages too.

    Attributes:
        running: How many there are now.
        finished: How many came to their end since the server started.
        cut_short: How many were cancelled, by ``$cancel`` or because their client had left.
        words: How many they have yielded, all together.
    """

    running: int = 0
    finished: int = 0
    cut_short: int = 0
    words: int = 0
