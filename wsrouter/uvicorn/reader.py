"""Bytes from a client become messages and control frames (RFC 6455, section 5). Pure: no socket, no loop."""

from typing import Final, NamedTuple, TypeAlias

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its C extension
    from websockets.utils import apply_mask

FIN: Final = 0x80
RSV1: Final = 0x40
RESERVED: Final = 0x70
OPCODE: Final = 0x0F
CONTROL: Final = 0x08
MASKED: Final = 0x80
LENGTH: Final = 0x7F

TEXT: Final = int(Opcode.TEXT)
PING: Final = int(Opcode.PING)
PONG: Final = int(Opcode.PONG)
_WHOLE: Final = (FIN | TEXT, FIN | int(Opcode.BINARY))
"""How a message in one frame begins that is not compressed: nearly all do."""
_OPCODES: Final = frozenset(int(opcode) for opcode in Opcode)
_LONGEST_CONTROL: Final = 125


class Ping(NamedTuple):
    """A ping; its payload is to be sent back."""

    payload: bytes


class Pong(NamedTuple):
    """A pong."""

    payload: bytes


class Fragment(NamedTuple):
    """One frame of a message, and not the last."""


_FRAGMENT: Final = Fragment()

Received: TypeAlias = str | bytes | Ping | Pong | Close | Fragment
"""A whole text or binary message, a control frame, or the sign that a part of a message was read."""


class Violation(Exception):
    """The client broke the protocol or a limit: what the close frame is to say. Nothing more can be read."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class FrameReader:
    """What one client sends, read one frame at a time.

    Args:
        max_size: bytes of a message, decompressed.
        max_fragments: frames of a message.
        deflate: the negotiated permessage-deflate (RFC 7692).
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_compressed",
        "_deflate",
        "_fragments",
        "_max_fragments",
        "_max_size",
        "_opcode",
        "_size",
    )

    def __init__(self, max_size: int, max_fragments: int, deflate: PerMessageDeflate | None) -> None:
        self._max_size = max_size
        self._max_fragments = max_fragments
        self._deflate = deflate
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._opcode = 0
        """That of the message whose fragments are under way, 0 while there is none."""
        self._compressed = False
        self._fragments: list[bytes] | None = None
        self._size = 0
        """Of the fragments so far."""

    @property
    def unread(self) -> int:
        """How many bytes were fed and not read."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        if not self.unread:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            del self._buffer[: self._at]
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer[self._at :])
            self._buffer += data
        self._at = 0

    def read(self) -> Received | None:
        """Read the next frame; ``None`` until more is fed.

        Raises:
            Violation: what comes next breaks the protocol or a limit.
        """
        buffer, at = self._buffer, self._at
        fed = len(buffer)
        if fed - at < 2:
            if fed == at:
                self._buffer, self._at = b"", 0
            return None
        first, second = buffer[at], buffer[at + 1]
        simple = first in _WHOLE and second >= MASKED and not self._opcode
        if not simple:
            self._check(first, second)
        length, begin = second & LENGTH, at + 6
        if length > _LONGEST_CONTROL:
            begin += 2 if length == 126 else 8
            if fed < begin:
                return None
            length = int.from_bytes(buffer[at + 2 : begin - 4])
            if length > self._max_size - self._size:
                raise self._too_large()
        end = begin + length
        if fed < end:
            return None
        self._at = end
        payload = apply_mask(buffer[begin:end], buffer[begin - 4 : begin])
        if simple and length <= self._max_size:
            return _message(first & OPCODE, payload)
        return self._control(first, payload) if first & CONTROL else self._add(first, payload)

    def _check(self, first: int, second: int) -> None:
        """Raise if the first two bytes of a frame say what is not allowed here."""
        opcode, reserved = first & OPCODE, first & RESERVED
        if opcode not in _OPCODES:
            raise Violation(1002, "invalid opcode")
        if second < MASKED:
            raise Violation(1002, "incorrect masking")
        if reserved and (reserved != RSV1 or self._deflate is None or not opcode or opcode & CONTROL):
            raise Violation(1002, "reserved bits must be 0")
        if opcode & CONTROL:
            if second & LENGTH > _LONGEST_CONTROL:
                raise Violation(1002, "control frame too long")
            if not first & FIN:
                raise Violation(1002, "fragmented control frame")
        elif opcode and self._opcode:
            raise Violation(1002, "expected a continuation frame")
        elif not opcode and not self._opcode:
            raise Violation(1002, "unexpected continuation frame")

    def _control(self, first: int, payload: bytes) -> Received:
        opcode = first & OPCODE
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        try:
            close = Close.parse(payload)
        except ProtocolError as exc:
            raise Violation(1002, str(exc)) from None
        except UnicodeDecodeError:
            raise Violation(1007, "the reason is not UTF-8") from None
        if self._opcode:
            raise Violation(1002, "incomplete fragmented message")
        return close

    def _add(self, first: int, payload: bytes) -> Received:
        """Return the message of which this is the last frame, the sign of a fragment if it is not."""
        if first & OPCODE:
            self._opcode, self._compressed = first & OPCODE, bool(first & RSV1)
            self._fragments = []
        fragments, fin = self._fragments, bool(first & FIN)
        assert fragments is not None
        if self._compressed:
            payload = self._inflate(Frame(Opcode(first & OPCODE), payload, fin, bool(first & RSV1)))
        self._size += len(payload)
        if self._size > self._max_size:
            raise self._too_large()
        fragments.append(payload)
        if not fin:
            if len(fragments) >= self._max_fragments:
                raise Violation(1008, f"over the limit of {self._max_fragments} fragments")
            return _FRAGMENT
        opcode, self._opcode, self._fragments, self._size = self._opcode, 0, None, 0
        return _message(opcode, fragments[0] if len(fragments) == 1 else b"".join(fragments))

    def _inflate(self, frame: Frame) -> bytes:
        assert self._deflate is not None
        try:
            # A limit of 0 would be none. One byte too many is found by who adds up.
            frame = self._deflate.decode(frame, max_size=max(1, self._max_size - self._size))
        except PayloadTooBig:
            raise self._too_large() from None
        except ProtocolError as exc:
            raise Violation(1002, str(exc)) from None
        return bytes(frame.data)

    def _too_large(self) -> Violation:
        return Violation(1009, f"over the limit of {self._max_size} bytes")


def _message(opcode: int, payload: bytes) -> str | bytes:
    if opcode != TEXT:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Violation(1007, "not UTF-8") from None
