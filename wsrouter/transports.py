"""The way from a connection straight to its socket, on servers that offer one, and the frames that go along it.

A server's protocol class announces itself in the scope: ``scope["extensions"][EXTENSION]["transport"]`` is a
`DirectTransport`. After ``websocket.accept``, which still goes through the ASGI ``send``, all that the connection
sends goes through it: one connection has one path, so nothing overtakes anything.
"""

import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from starlette.types import Scope

from wsrouter.codecs import Frame

EXTENSION: Final = "wsrouter.transport"
"""The key in ``scope["extensions"]`` of a mapping whose ``"transport"`` is the `DirectTransport`."""

_TEXT: Final = 0x81
"""FIN and the opcode of a text frame (RFC 6455, section 5.2)."""
_BINARY: Final = 0x82
_RSV1: Final = 0x40
_FLUSHED: Final = b"\x00\x00\xff\xff"


class DirectTransport(Protocol):
    """What a server's protocol class gives to the connection that it serves.

    It guarantees that nothing is written after a close frame, that its own control frames stand between whole
    frames, and that the application gets ``websocket.disconnect`` from ``receive()`` when the client's close
    frame comes, the closing handshake ends or the socket is lost.
    """

    paused: bool
    """Whether nothing more is to be written until `attach`'s callback is called: more than 64 KiB wait to be
    taken by the kernel, or it is not accepted yet, closing, or lost."""

    write: Callable[[bytes], None]
    """Write whole frames. Called only while `paused` is false, but for the rest of what was begun then."""

    window_bits: int | None
    """The ``server_max_window_bits`` of the negotiated permessage-deflate (RFC 7692), ``None`` without it.
    A frame that one connection may read compressed, without context takeover, another with at least as many
    bits may read too. An uncompressed frame is legal either way."""

    @property
    def ended(self) -> bool:
        """Whether nothing gets out any more, because it is closed or the client is gone; it is paused then, for good.

        What the client sent before may still be to be received.
        """
        ...

    def attach(self, resumed: Callable[[], object], paused: Callable[[], object]) -> None:
        """Have ``resumed`` called whenever `paused` becomes false again, and ``paused`` when it becomes true.

        Called once, after accept.
        """

    def frame(self, frame: Frame) -> bytes:
        """Return one frame as it goes onto this connection's wire, compressed if that was negotiated and pays.

        Raises:
            UnicodeEncodeError: a text with a lone surrogate, which has no UTF-8.
        """
        ...

    def buffered(self) -> int:
        """Return how many bytes wait to be taken by the kernel."""
        ...

    def close(self, code: int, reason: str, timeout: float) -> None:
        """Write a close frame after what is buffered. Never raises; a second call does nothing.

        Args:
            code: close code that may be sent (RFC 6455, section 7.4).
            reason: at most 123 bytes of UTF-8.
            timeout: seconds for the buffer and the closing handshake; then the socket is aborted.
        """

    def abort(self) -> None:
        """Drop the socket and what is buffered. Never raises."""


def transport_of(scope: Scope) -> DirectTransport | None:
    """Return the way to the socket that a server offers, ``None`` if it offers none."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    transport: DirectTransport | None = extensions[EXTENSION]["transport"] if EXTENSION in extensions else None
    return transport


def framed(frame: Frame) -> bytes:
    """Return a text (``str``) or binary (``bytes``) message as one frame from a server: not compressed, FIN set.

    Raises:
        UnicodeEncodeError: a text with a lone surrogate, which has no UTF-8.
    """
    if isinstance(frame, str):
        return _with_header(_TEXT, frame.encode())
    return _with_header(_BINARY, frame)


def compressed(frame: Frame, window_bits: int) -> bytes:
    """Return a message as one frame that is compressed by itself (RFC 7692, section 7.2.1).

    Every connection with at least so many ``server_max_window_bits`` can read it, whatever it was sent before.

    Args:
        frame: text or binary.
        window_bits: 8 to 15.

    Raises:
        UnicodeEncodeError: a text with a lone surrogate, which has no UTF-8.
    """
    if window_bits < 9:  # zlib has no raw stream of 8 bits, and takes 9 instead
        return framed(frame)
    compressor = zlib.compressobj(wbits=-window_bits, memLevel=5)
    payload = frame.encode() if isinstance(frame, str) else frame
    deflated = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _with_header((_TEXT if isinstance(frame, str) else _BINARY) | _RSV1, deflated.removesuffix(_FLUSHED))


def _with_header(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload
