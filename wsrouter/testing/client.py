"""A client that plays in process."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from pydantic import ValidationError
from starlette.types import ASGIApp
from starlette.types import Message as Event

from wsrouter.codecs import Frame, Id, JSONCodec, dump
from wsrouter.frames import CloseInfo
from wsrouter.in_process import Lifespan, Run, websocket_scope
from wsrouter.messages import Message

MessageT = TypeVar("MessageT", bound=Message)
TIMEOUT: Final = 1.0
"""Seconds that a wait lasts by default."""
GRACE: Final = 10.0
"""Seconds more for what takes its time by nature: start and end of the application, handshakes, clean-up."""

_json = JSONCodec()


class Denied(Exception):
    """The application did not let the connection in."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status)
        self.status = status
        """HTTP status of the denial."""
        self.headers = headers
        """Mapping of header name, in lower case, to value."""
        self.body = body
        """Body of the response."""

    def __str__(self) -> str:
        return f"denied with HTTP {self.status}: {self.body.decode(errors='replace')}"

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


class Unexpected(AssertionError):
    """Something else came than what the test expected; the text shows what."""


class TestConnection:
    """The client's end of one connection; made by `WebSocketTestClient.connect`."""

    __test__ = False

    def __init__(self, run: Run, timeout: float, subprotocol: str | None) -> None:
        self._run = run
        self._timeout = timeout
        self._kept: deque[Event] = deque()
        self._close: CloseInfo | None = None
        self._left = False
        self._ids = 0
        self.subprotocol = subprotocol
        """What the application accepted of the subprotocols that were offered."""

    async def send(self, message: Message, *, id: Id | None = None) -> None:
        """Send a message, with an id if one is given."""
        await self.send_frame(_json.message(message, id))

    async def send_json(self, value: Any) -> None:
        """Send any value as the JSON of a text frame."""
        await self.send_frame(dump(value).decode())

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame as it is: ``str`` as text, ``bytes`` as binary."""
        self._run.put({"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame})

    @overload
    async def receive(self, expect: type[MessageT], *, timeout: float | None = None) -> MessageT: ...
    @overload
    async def receive(self, expect: None = None, *, timeout: float | None = None) -> dict[str, Any]: ...
    async def receive(
        self, expect: type[Message] | None = None, *, timeout: float | None = None
    ) -> Message | dict[str, Any]:
        """Return the next frame: as the message class that is expected, else the whole envelope as a dict.

        Args:
            expect: class of the message.
            timeout: seconds; by default that of the client.

        Raises:
            Unexpected: nothing came in time, the connection was closed, or something else came.
        """
        frame = await self.receive_frame(timeout=timeout)
        try:
            envelope: dict[str, Any] = json.loads(frame)
        except ValueError:
            raise Unexpected(f"expected JSON, got the frame {frame!r}") from None
        return envelope if expect is None else _message(envelope, expect)

    async def receive_frame(self, *, timeout: float | None = None) -> Frame:
        """Return the next frame as it is."""
        event = await self._event(self._timeout if timeout is None else timeout, "a frame")
        if event["type"] == "websocket.close":
            self._note_close(event)
            raise Unexpected(f"expected a frame, got {self._close}")
        frame: Frame = event["bytes"] if event.get("text") is None else event["text"]
        return frame

    @overload
    async def call(self, message: Message, *, expect: type[MessageT], timeout: float | None = None) -> MessageT: ...
    @overload
    async def call(self, message: Message, *, expect: None = None, timeout: float | None = None) -> dict[str, Any]: ...
    async def call(
        self, message: Message, *, expect: type[Message] | None = None, timeout: float | None = None
    ) -> Message | dict[str, Any]:
        """Send a message with an id and return its terminal reply; other frames are kept for `receive`.

        Args:
            message: what to send.
            expect: class of the reply; by default the reply's envelope is returned as a dict, errors too.
            timeout: seconds; by default that of the client.

        Raises:
            Unexpected: no reply came in time, or another than expected.
        """
        self._ids += 1
        id = f"call-{self._ids}"
        await self.send(message, id=id)
        others: list[Event] = []
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                while True:
                    event = await self._event(None, "a reply")
                    text = event.get("text")
                    envelope: dict[str, Any] = {} if text is None else json.loads(text)
                    if envelope.get("id") == id and envelope["type"] != "$item":
                        return envelope if expect is None else _message(envelope, expect)
                    others.append(event)
                    if event["type"] == "websocket.close":
                        raise Unexpected(f"expected a reply to {message!r}, the connection was closed: {event}")
        except TimeoutError:
            raise Unexpected(f"expected a reply to {message!r}, got none, but {_shown(others)}") from None
        finally:
            self._kept.extendleft(reversed(others))

    async def expect_nothing(self, *, for_: float = 0.05) -> None:
        """Check that no frame comes for some seconds.

        Raises:
            Unexpected: one came.
        """
        try:
            event = await self._event(for_, "nothing")
        except Unexpected:
            return
        raise Unexpected(f"expected nothing, got {_shown([event])}")

    async def closed(self, *, timeout: float | None = None) -> CloseInfo:
        """Wait until the application closes, and return how; frames before that are passed over.

        Raises:
            Unexpected: it did not close in time.
        """
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                while self._close is None:
                    event = await self._event(None, "a close")
                    if event["type"] == "websocket.close":
                        self._note_close(event)
        except TimeoutError:
            raise Unexpected(f"expected a close, and there was none within {limit:g} s") from None
        return self._close

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Leave, with a close frame."""
        self._left = True
        self._run.put({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def _event(self, timeout: float | None, what: str) -> Event:
        if self._kept:
            return self._kept.popleft()
        try:
            return await self._run.get(timeout)
        except TimeoutError:
            raise Unexpected(f"expected {what}, and nothing came within {timeout:g} s") from None
        except EOFError:
            how = "the application ended without a close frame"
            if self._close is not None:
                how = f"the connection was closed before: {self._close}"
            elif self._left:
                how = "the test has closed the connection"
            raise Unexpected(f"expected {what}, and {how}") from None

    def _note_close(self, event: Event) -> None:
        self._close = CloseInfo(event.get("code") or 1000, event.get("reason") or "", "server")


class WebSocketTestClient:
    """Runs an application, its lifespan included, and connects to it.

    Args:
        app: the application.
        timeout: seconds that every wait lasts at most.
    """

    __test__ = False

    def __init__(self, app: ASGIApp, *, timeout: float = TIMEOUT) -> None:
        self._app = app
        self._timeout = timeout
        self._lifespan = Lifespan(app, timeout + GRACE)

    async def __aenter__(self) -> Self:
        """Start the application.

        Raises:
            Exception: what the application raised, such as a `ConfigurationError`.
        """
        await self._lifespan.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the application."""
        await self._lifespan.__aexit__(kind, exc, traceback)

    @asynccontextmanager
    async def connect(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        client: tuple[str, int] = ("127.0.0.1", 50000),
    ) -> AsyncGenerator[TestConnection]:
        """Connect, and leave at the end of the block.

        Args:
            path: path, with a query string or without.
            headers: headers of the handshake, such as ``Origin``.
            cookies: mapping of name to value.
            query: query parameters in addition to those in ``path``.
            subprotocols: what the client offers.
            client: address and port of the client.

        Raises:
            Denied: the application did not let the connection in.
            Exception: what the application raised.
        """
        scope = websocket_scope(path, headers, cookies, query, subprotocols, client)
        run = Run(self._app, {**scope, "state": self._lifespan.state.copy()})
        run.put({"type": "websocket.connect"})
        try:
            subprotocol = await _accepted(run, self._timeout + GRACE)
            yield TestConnection(run, self._timeout, subprotocol)
        finally:
            run.put({"type": "websocket.disconnect", "code": 1000, "reason": ""})
            if not await run.ended(self._timeout + GRACE):
                raise Unexpected(f"the application still serves {path} although the client has left")
        run.task.result()


async def _accepted(run: Run, timeout: float) -> str | None:
    """Wait until the application has accepted, and return the subprotocol; raise `Denied` if it does not."""
    status, headers, body = 403, dict[str, str](), b""
    while True:
        event = await run.get_or_end(timeout)
        if event is None:
            raise Unexpected("the application neither accepted nor denied the handshake")
        if event["type"] == "websocket.accept":
            subprotocol: str | None = event.get("subprotocol")
            return subprotocol
        if event["type"] == "websocket.http.response.start":
            status = event["status"]
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event["headers"]}
            continue
        body += event.get("body", b"")
        if not event.get("more_body"):
            raise Denied(status, headers, body)


def _message(envelope: dict[str, Any], expect: type[MessageT]) -> MessageT:
    if envelope.get("type") != expect.__message_type__:
        raise Unexpected(f"expected {expect.__name__} ({expect.__message_type__!r}), got {envelope}")
    try:
        return expect.model_validate_json(dump(envelope.get("data", {})))
    except ValidationError as exc:
        raise Unexpected(f"expected {expect.__name__}, got {envelope}, which does not validate: {exc}") from None


def _shown(events: Sequence[Event]) -> str:
    return ", ".join(str(event.get("text") or event.get("bytes") or event) for event in events) or "nothing else"
