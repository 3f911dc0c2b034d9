"""What the server says to every client. Nobody answers."""

from wsrouter import Message


class Price(Message, key="symbol"):
    """What a share costs now. For a client that falls behind, a newer one takes the place of one that waits.

    Attributes:
        serial: One more with every price of this share; a client sees by it what it did not see.
        at: When it was made, in milliseconds since 1970, UTC.
    """

    symbol: str
    price: float
    serial: int
    at: int


class Quote(Message):
    """A share as a newcomer gets to know it.

    Attributes:
        opening: What it cost when the market opened.
        past: Pairs of time (as ``Price.at``) and price, of the last minute, oldest first.
    """

    symbol: str
    name: str
    opening: float
    past: list[tuple[int, float]]


class Board(Message, type="ticker.board"):
    """The first message on a connection; the prices follow.

    Attributes:
        connection: The id of this connection.
        quotes: All shares.
    """

    connection: str
    quotes: list[Quote]
