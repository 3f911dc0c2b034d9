"""Frames on their way to the server: their events, their sizes, and how a connection ends."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from starlette.types import Message as Event

from wsrouter.codecs import Frame

Send: TypeAlias = Callable[[Event], Coroutine[Any, Any, None]]
"""The ASGI ``send``, as a coroutine function: what it returns can be stepped."""


@dataclass(frozen=True, slots=True)
class CloseInfo:
    """How a connection ended."""

    code: int
    """Close code (RFC 6455, section 7.4); 1005 for a close frame without one, 1006 for none at all."""

    reason: str = ""
    """Close reason, at most 123 bytes of UTF-8."""

    by: Literal["client", "server"] = "client"
    """Who closed first."""


def size_of(frame: Frame) -> int:
    """Return the size of a frame's payload in bytes."""
    return len(frame) if isinstance(frame, bytes) or frame.isascii() else len(frame.encode(errors="replace"))


def checked(frame: Frame) -> Frame:
    """Return a frame if it can be sent.

    Raises:
        ValueError: a text with a lone surrogate, which has no UTF-8.
    """
    if isinstance(frame, str) and not frame.isascii():
        frame.encode()
    return frame


def event_of(frame: Frame) -> Event:
    """Return the ASGI event that sends a frame."""
    key = "text" if isinstance(frame, str) else "bytes"
    return {"type": "websocket.send", key: frame}
