"""Publications on their way to many connections: encoded once, framed once, joined once."""

from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

from starlette.types import Message as Event

from wsrouter.codecs import Codec, Frame
from wsrouter.frames import event_of, size_of
from wsrouter.outbox import Overflow
from wsrouter.transports import compressed, framed

MAX_FRAMES: Final = 64
"""A run of so many frames is written before anything is added."""
MAX_BYTES: Final = 64 * 1024
"""A run of so many bytes likewise."""


class Prepared(NamedTuple):
    """A publication that can be written by any codec."""

    type: str
    data: bytes | None
    """The payload as JSON, ``None`` for none."""
    room: str | None = None
    offset: int | None = None
    frame: Frame | None = None
    """In a raw room: the frame as it goes out, in place of all that."""
    key: Hashable = None
    """What it is the newest value of, in a room that keeps the ``latest``."""

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return len(self.frame or self.data or b"")

    def encode(self, codec: Codec) -> Frame:
        """Return its frame."""
        if self.frame is not None:
            return self.frame
        return codec.publication(self.type, self.data, self.room, self.offset)


class Run:
    """Publications of one room, or to one user, that follow each other and have the same recipients.

    Args:
        room: name of the room, ``None`` if they are for a user.
        overflow: the policy of the room.
        compress: whether connections that negotiated it get them compressed.
    """

    __slots__ = (
        "_events",
        "_frames",
        "_wire",
        "compress",
        "holders",
        "open",
        "overflow",
        "prepared",
        "recipients",
        "room",
        "served",
        "size",
        "tells_of_gap",
    )

    def __init__(self, room: str | None, overflow: Overflow, compress: bool = False) -> None:
        self.room = room
        self.overflow: Overflow = overflow
        self.compress = compress
        self.open = True
        """Whether publications may still be added: it is the last thing that each of its holders waits for."""
        self.holders = 0
        self.recipients: dict[Any, None] = {}
        """While it waits for all of them at once, and not on the cork of each: who gets it."""
        self.served: set[Any] = set()
        """Those of them who don't: they have it already, or are excluded."""
        self.prepared: list[Prepared] = []
        self.size = 0
        self.tells_of_gap = False
        """Whether it is the ``$gap`` of what was lost on the way here: there is always room for that."""
        self._frames: dict[tuple[Codec, int | None], Sequence[bytes]] = {}
        self._wire: dict[tuple[Codec, int | None], bytes] = {}
        self._events: dict[Codec, Sequence[tuple[Event, int]]] = {}

    def add(self, prepared: Prepared) -> None:
        """Add a publication; the run ends when it is large enough."""
        self.prepared.append(prepared)
        self.size += prepared.size
        if len(self.prepared) >= MAX_FRAMES or self.size >= MAX_BYTES:
            self.open = False

    def wire(self, codec: Codec, window_bits: int | None) -> bytes:
        """Return all of it as bytes of the wire; it has to have ended.

        Args:
            codec: what the connection speaks.
            window_bits: what the connection negotiated for compression, ``None`` for nothing.
        """
        way = (codec, window_bits if self.compress else None)
        data = self._wire.get(way)
        if data is None:
            data = self._wire[way] = b"".join(self.frames(codec, window_bits))
        return data

    def frames(self, codec: Codec, window_bits: int | None) -> Sequence[bytes]:
        """Return what `wire` joins: one frame per publication."""
        way = (codec, window_bits if self.compress else None)
        frames = self._frames.get(way)
        if frames is None:
            frames = self._frames[way] = [
                framed(frame) if way[1] is None else compressed(frame, way[1])
                for frame in (prepared.encode(codec) for prepared in self.prepared)
            ]
        return frames

    def events(self, codec: Codec) -> Sequence[tuple[Event, int]]:
        """Return the ASGI events of it, each with its size in bytes; it has to have ended."""
        events = self._events.get(codec)
        if events is None:
            encoded = [prepared.encode(codec) for prepared in self.prepared]
            events = self._events[codec] = [(event_of(frame), size_of(frame)) for frame in encoded]
        return events
