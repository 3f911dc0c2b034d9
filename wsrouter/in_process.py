"""Running an ASGI application in process: what a server does, without sockets."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlencode, urlsplit

from starlette.types import ASGIApp, Scope
from starlette.types import Message as Event


class Run:
    """One call of an application, in a task of its own, and the events in both directions.

    A ``websocket.close`` is answered as a client answers a close frame.
    """

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._from_app: asyncio.Queue[Event] = asyncio.Queue()
        self.task = asyncio.create_task(self._call(app, scope))

    def put(self, event: Event) -> None:
        """Give the application an event to receive."""
        self._to_app.put_nowait(event)

    async def get(self, timeout: float | None) -> Event:
        """Return the next event that the application sent.

        Raises:
            TimeoutError: there was none within so many seconds.
            EOFError: the application has ended, and there will be none.
            Exception: what the application raised.
        """
        event = await self.get_or_end(timeout)
        if event is None:
            raise EOFError if self.task.done() else TimeoutError
        return event

    async def get_or_end(self, timeout: float | None = None) -> Event | None:
        """Return the next event, ``None`` if the application ended before, or if there was none in time.

        Raises:
            Exception: what the application raised.
        """
        event = asyncio.ensure_future(self._from_app.get())
        try:
            await asyncio.wait([event, self.task], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if event.done():
                return event.result()
        finally:
            event.cancel()
        if self.task.done():
            self.task.result()
        return None

    async def ended(self, timeout: float) -> bool:
        """Wait until the application has ended; if it has not within so many seconds, cancel it."""
        await asyncio.wait([self.task], timeout=timeout)
        if self.task.done():
            if not self.task.cancelled():
                self.task.exception()  # whoever does not ask for the result has another failure to tell of
            return True
        self.task.cancel()
        await asyncio.wait([self.task])
        return False

    async def _call(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._to_app.get, self._send)

    async def _send(self, event: Event) -> None:
        if event["type"] == "websocket.close":
            self.put({"type": "websocket.disconnect", "code": event.get("code", 1000), "reason": ""})
        self._from_app.put_nowait(event)


class Lifespan:
    """Starts an application and stops it again.

    Args:
        app: the application.
        timeout: seconds that each step lasts at most.
    """

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._run: Run | None = None
        self.state: dict[str, Any] = {}
        """What it yields to every connection."""

    async def __aenter__(self) -> Self:
        """Start the application.

        Raises:
            TimeoutError: it took too long.
            Exception: what it raised.
        """
        self._run = Run(self._app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state})
        await self._step(self._run, "startup")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the application."""
        assert self._run is not None, "it was entered"
        await self._step(self._run, "shutdown")
        if await self._run.ended(self._timeout):
            self._run.task.result()

    async def _step(self, run: Run, name: str) -> None:
        run.put({"type": f"lifespan.{name}"})
        try:
            answer = await run.get(self._timeout)
        except EOFError:
            raise RuntimeError(f"the application ended its lifespan before {name} was complete") from None
        except TimeoutError:
            await run.ended(0)
            raise TimeoutError(f"the {name} of the application took longer than {self._timeout:g} s") from None
        if answer["type"] == f"lifespan.{name}.failed":
            if await run.ended(self._timeout):
                run.task.result()
            raise RuntimeError(f"the application failed at {name}: {answer.get('message', '')}")


def websocket_scope(
    path: str,
    headers: Mapping[str, str] | None,
    cookies: Mapping[str, str] | None,
    query: Mapping[str, str] | None,
    subprotocols: Sequence[str],
    client: tuple[str, int],
) -> Scope:
    """Return the ASGI scope of a handshake."""
    parts = urlsplit(path)
    query_string = "&".join(part for part in (parts.query, urlencode(query or {})) if part)
    given = {"host": "testserver", **{name.lower(): value for name, value in (headers or {}).items()}}
    if cookies:
        given["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    if subprotocols:
        given["sec-websocket-protocol"] = ", ".join(subprotocols)
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("testserver", 80),
        "client": client,
        "root_path": "",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": query_string.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
    }
