"""What comes in: an ASGI event becomes a call, a control frame takes effect, and ids are kept apart."""

import logging
from typing import Any, Final, Protocol

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Message as Event

from wsrouter.calls import Call
from wsrouter.chain import Chain
from wsrouter.codecs import Frame, Id, Unreadable, is_id, is_object, lenient_id
from wsrouter.connection import ServerConnection
from wsrouter.errors import WebSocketError, from_http
from wsrouter.frames import CloseInfo, size_of
from wsrouter.messages import Envelope
from wsrouter.metering import Excess, Meter

logger = logging.getLogger("wsrouter")

MAX_READ_FOR_ID: Final = 4096
"""Bytes of a frame that is read only to answer it with its id."""


class Owner(Protocol):
    """Whom an intake tells what a client asks of the session as a whole."""

    def left(self, close: CloseInfo) -> None:
        """Take notice that the client has left."""

    def cancel(self, call: Call) -> None:
        """Cancel the call that a ``$cancel`` names."""

    def renew(self, call: Call) -> None:
        """Take the fresh token of the call that an ``$auth`` is, where somebody authenticates."""


class Intake:
    """Reads the events of one connection.

    Args:
        chain: the handler in its chain of routers.
        connection: the connection; it is closed where a frame breaks a rule.
        owner: is told when the client leaves, and what it asks for.
    """

    __slots__ = (
        "_calls",
        "_chain",
        "_connection",
        "_decode",
        "_limit",
        "_meter",
        "_methods",
        "_odd",
        "_owner",
    )

    def __init__(self, chain: Chain, connection: ServerConnection, owner: Owner) -> None:
        self._chain = chain
        self._connection = connection
        self._decode = chain.decoder(connection.codec)
        self._owner = owner
        self._limit = chain.limits.message_size
        self._meter = Meter(connection, chain.frame_limits) if chain.frame_limits else None
        self._methods = chain.methods
        self._odd = chain.table.raw or chain.table.reads == "bytes"
        self._calls: dict[Id, Call] | None = None

    def read(self, event: Event) -> Call | None:
        """Return the message in an event, ``None`` where it was a control frame, a breach or the end."""
        if event["type"] != "websocket.receive":
            self._owner.left(close_of(event))
            return None
        closed = self._connection.closed
        if closed is not None and (closed.by == "server" or self._chain.table.cls.cancel_on_disconnect):
            return None
        text = event.get("text")
        frame: Frame = event["bytes"] if text is None else text
        size = len(frame) if text is None or text.isascii() else size_of(frame)
        if size > self._limit:
            self._connection.start_close(1009, f"a message has at most {self._limit} bytes")
            return None
        if self._meter is not None and (excess := self._meter.count(size)) is not None:
            self._refuse(frame, size, excess)
            return None
        if self._odd and (text is None or self._chain.table.raw):
            return self._read_odd(frame, size)
        try:
            message = self._decode(frame)
        except Unreadable as exc:
            call = Call("", None, exc.id, size, None)
            call.failure = exc.error
            return self._register(call)
        except Exception as exc:
            call = Call("", None, lenient_id(frame), size, None)
            call.failure = self._failure(exc)
            return self._register(call)
        tag, data, id = message["type"], message["data"], message.get("id")
        bound = self._methods.get(tag)
        if bound is None:
            if tag == "$cancel":
                self._find(id)
                return None
            if tag == "$auth":
                return self._read_auth(Call(tag, data, id, size, None))
            bound, data = self._chain.on_message, Envelope(tag, data, id)
        call = Call(tag, data, id, size, bound)
        return call if id is None else self._register(call)

    def done(self, call: Call) -> None:
        """Let the id of a call be used again."""
        if call.id is not None and self._calls is not None and self._calls.get(call.id) is call:
            del self._calls[call.id]

    def end(self) -> None:
        """Let go of what the rate limits count, when the connection has ended."""
        if self._meter is not None:
            self._meter.release()

    def _failure(self, exc: Exception) -> WebSocketError:
        """Return what answers a payload whose validator raised something else than that it is invalid."""
        if isinstance(exc, WebSocketError):
            return exc
        if isinstance(exc, HTTPException):
            return from_http(exc)
        logger.error("%r: a validator of a payload failed", self._connection, exc_info=exc)
        return WebSocketError("internal", "Internal error")

    def _refuse(self, frame: Frame, size: int, excess: Excess) -> None:
        """Answer a frame that is not within the rate limits, ahead of what waits; it is not handled."""
        if excess.verdict == "close" or self._chain.table.raw:
            self._connection.start_close(4529, "messages come too fast")
        elif excess.verdict == "answer":
            id = self._id_in(frame) if size <= MAX_READ_FOR_ID else None
            if id is not None and self._calls is not None and id in self._calls:
                self._connection.start_close(4400, "that id is in flight")
                return
            error = WebSocketError("rate_limited", "Too many messages", after_ms=excess.after_ms)
            self._connection.reply(self._connection.codec.control("$error", id, error=error.as_data()))

    def _id_in(self, frame: Frame) -> Id | None:
        """Return the id that the answer to a frame carries; that of a ``$cancel`` names another call."""
        try:
            value = self._connection.codec.loads(frame)
        except (ValueError, RecursionError):
            return None
        id: object = value.get("id") if is_object(value) and value.get("type") != "$cancel" else None
        return id if is_id(id) else None

    def _read_odd(self, frame: Frame, size: int) -> Call | None:
        """Read a frame of a raw handler, or a binary one for ``on_message``."""
        table = self._chain.table
        data: Any = frame
        if table.reads != "frame" and isinstance(frame, bytes) is not (table.reads == "bytes"):
            wanted = "binary" if table.reads == "bytes" else "text"
            self._connection.start_close(1003, f"expected a {wanted} frame")
            return None
        if table.reads == "json":
            try:
                data = table.json.validate_json(frame)
            except ValidationError:
                self._connection.start_close(1007, "the message is not valid")
                return None
            except Exception:
                logger.exception("%r: a validator of a message failed", self._connection)
                self._connection.start_close(1011, "internal error")
                return None
        return Call("", data, None, size, self._chain.on_message)

    def _register(self, call: Call) -> Call | None:
        if call.id is None:
            return call
        if self._calls is None:
            self._calls = {}
        if call.id in self._calls:
            self._connection.start_close(4400, "that id is in flight")
            return None
        self._calls[call.id] = call
        return call

    def _read_auth(self, call: Call) -> Call | None:
        if not self._chain.sources:
            call.failure = WebSocketError("unknown_type", "This connection has no credential")
            return self._register(call)
        if self._register(call) is not None:
            self._owner.renew(call)
        return None

    def _find(self, id: Id | None) -> None:
        call = None if id is None or self._calls is None else self._calls.get(id)
        if call is not None:
            self._owner.cancel(call)


def close_of(event: Event) -> CloseInfo:
    """Return what a ``websocket.disconnect`` tells.

    uvicorn gives 1005 for a connection that broke too, then without a reason; only servers send 1012.
    """
    code = event.get("code") or 1005
    reason = event.get("reason")
    if code == 1005 and reason is None:
        code = 1006
    return CloseInfo(code, reason or "", "server" if code == 1012 else "client")
