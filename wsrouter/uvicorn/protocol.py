"""The class that uvicorn makes for each WebSocket: the ASGI application on one side, the link on the other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from urllib.parse import quote

from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState
from websockets.frames import Close

from wsrouter.errors import is_close_code
from wsrouter.transports import EXTENSION, DirectTransport
from wsrouter.uvicorn.link import Link, State
from wsrouter.uvicorn.upgrade import Refused, Upgrade, answered, explained, read_upgrade

logger: Final = logging.getLogger("uvicorn.error")


class WebSocketProtocol(Link):
    """Serves one WebSocket of uvicorn's: ``uvicorn --ws wsrouter.uvicorn:WebSocketProtocol app:app``.

    It goes by uvicorn's ``ws_max_size``, ``ws_ping_interval``, ``ws_ping_timeout`` and
    ``ws_per_message_deflate``. Limits of its own are attributes of the class, for a subclass to change.
    """

    accept_timeout: float = 20.0
    """Seconds from the request to the application's answer; then the client gets HTTP 503."""
    close_timeout: float = 10.0
    """Seconds for what is written to leave, and for the client's close frame; then the socket is aborted."""
    max_fragments: int = 1024
    """Frames of one message; with more of them it is closed with 1008."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        super().__init__(
            _loop or asyncio.get_event_loop(),
            max_size=config.ws_max_size,
            ping_interval=config.ws_ping_interval,
            ping_timeout=config.ws_ping_timeout,
        )
        self.config = config
        self._app: Callable[[Scope, Receive, Send], Awaitable[object]] = getattr(config, "loaded_app")  # noqa: B009
        self._connections = cast(set[asyncio.Protocol], server_state.connections)
        self._tasks = server_state.tasks
        self._default_headers = server_state.default_headers
        self._app_state = app_state
        self._upgrade: Upgrade | None = None
        """The handshake until it is answered."""
        self._scope: Scope = {}
        self._denial: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        """Status, headers, and as much of the body as there is, of a response that has begun."""
        self._answer_timer: asyncio.TimerHandle | None = None
        self._accepted = False
        self._app_ended = False
        """Whether the application has denied or closed it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.discard(self)
        self._stop_waiting_for_answer()

    def shutdown(self) -> None:
        """End it, because the server ends."""
        if self._state is State.CONNECTING:
            self._respond(explained(503))
        else:
            self._end(Close(1012, ""))

    def _handshake(self, data: bytes) -> None:
        try:
            upgrade = read_upgrade(data, deflate=self.config.ws_per_message_deflate)
        except Refused as refused:
            client = _address(get_remote_addr(self.transport))
            logger.info('%s - "WebSocket handshake" %d', client, refused.status)
            self._respond(refused.response, linger=True)  # a body may follow
            return
        transport: DirectTransport = self
        self._upgrade = upgrade
        self._expect_frames(upgrade.deflate)
        self._scope = {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": self.config.root_path,
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: {"transport": transport}},
            **upgrade.scope(self.config.root_path),
        }
        self._arrivals.begin()
        self._answer_timer = self.loop.call_later(self.accept_timeout, self._answer_is_late)
        task = self.loop.create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        code = 1011
        try:
            result = await self._app(self._scope, self._arrivals.receive, self.send)
            code = 1000
            if self._state is State.CONNECTING:
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            raise
        except BaseException:
            logger.exception("Exception in ASGI application\n")
        finally:
            if self._state is State.CONNECTING:
                self._respond(explained(500))
            elif self._state is State.OPEN:
                self.close(code, "", self.close_timeout)
            elif self._state is State.LOST:
                self._state = State.ENDED
            self._arrivals.forget()
            self._scope = {}

    async def send(self, event: Event) -> None:
        """Take an event of the application's; wait while the client does not read.

        Raises:
            ClientDisconnected: the client is gone; an ``OSError``.
            RuntimeError: the event may not come now.
        """
        kind: str = event["type"]
        if self._app_ended:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after the connection was closed or denied.")
        if not self._accepted:
            self._answer(kind, event)
        elif kind == "websocket.send":
            if self.paused:
                await self._drain()
            if self.ended:
                raise ClientDisconnected
            data = event.get("bytes")
            if data is None:
                data = event.get("text")
            if data is not None:
                self.write(self.frame(data))
        elif kind == "websocket.close":
            self._close(event.get("code", 1000), event.get("reason") or "")
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")

    def _close(self, code: int, reason: str) -> None:
        if not is_close_code(code):
            raise ValueError(f"{code} is no close code that a server may send: use 1000, 1001, 1011 or 3000 to 4999")
        if self._lost:
            raise ClientDisconnected
        self._app_ended = True
        self.close(code, reason, self.close_timeout)
        self._arrivals.end(code, reason)

    def _answer(self, kind: str, event: Event) -> None:
        """Answer the handshake as the application says."""
        upgrade = self._upgrade
        if upgrade is None or self._state is not State.CONNECTING:
            raise ClientDisconnected
        if self._denial is not None:
            self._go_on_denying(self._denial, kind, event)
        elif kind == "websocket.accept":
            response = upgrade.accepted([*self._default_headers, *event.get("headers", ())], event.get("subprotocol"))
            self._log("[accepted]")
            self._answered()
            self._accepted = True
            self.transport.write(response)
            self._open(upgrade.deflate)
        elif kind == "websocket.close":
            self._log("403")
            self._app_ended = True
            self._respond(answered(403, (), b""))
        elif kind == "websocket.http.response.start":
            status: int = event["status"]
            if not 100 <= status < 600:
                raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
            self._log(str(status))
            self._denial = status, list(event.get("headers", ())), b""
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start', "
                f"but got '{kind}'."
            )

    def _go_on_denying(self, denial: tuple[int, list[tuple[bytes, bytes]], bytes], kind: str, event: Event) -> None:
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body', but got '{kind}'.")
        status, headers, body = denial
        body += event.get("body", b"")
        self._denial = status, headers, body
        if not event.get("more_body", False):
            self._app_ended = True
            self._respond(answered(status, headers, body))

    def _answer_is_late(self) -> None:
        self._log("503")
        self._respond(explained(503))

    def _respond(self, response: bytes, *, linger: bool = False) -> None:
        """Answer a handshake with anything but accept."""
        self._answered()
        self.transport.write(response)
        self._arrivals.end(1006)
        self._hang_up(linger=linger)

    def _answered(self) -> None:
        self._upgrade = self._denial = None
        self._scope = {}
        self._stop_waiting_for_answer()

    def _stop_waiting_for_answer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _log(self, outcome: str) -> None:
        """Log what became of a handshake, without the query string: a credential may be in it."""
        client = _address(self._scope["client"])
        logger.info('%s - "WebSocket %s" %s', client, quote(self._scope["path"]), outcome)


def _address(client: tuple[str, int] | None) -> str:
    return "" if client is None else f"{client[0]}:{client[1]}"
