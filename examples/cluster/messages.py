"""What the clients on the page and the nodes say to each other."""

from typing import Annotated

from pydantic import Field

from wsrouter import Message

Serial = Annotated[int, Field(ge=1, lt=2**53)]
Source = Annotated[int, Field(ge=0, lt=2**32)]


class Order(Message):
    """Something that nobody may miss: its room has a history.

    Attributes:
        source: Made up by the page, so that its clients are told from those of another.
        serial: Counts the orders of a client. One that was not acknowledged is sent again with the same.
    """

    source: Source
    serial: Serial


class Tick(Message):
    """Something that is old a second later: its room keeps nothing.

    Attributes:
        source: As of an order.
        serial: Counts the ticks of a client.
    """

    source: Source
    serial: Serial


class Move(Message):
    """Ask to be sent away, as by a server that wants to be rid of its clients."""


class Ordered(Message):
    """An order, as all get it."""

    sender: str
    source: int
    serial: int


class Ticked(Message):
    """A tick, as all get it."""

    sender: str
    source: int
    serial: int


class Welcome(Message):
    """The client is in both rooms.

    Attributes:
        node: Name of the node that it is connected to.
    """

    node: str
