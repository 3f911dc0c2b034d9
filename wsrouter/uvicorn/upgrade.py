"""The opening handshake (RFC 6455, section 4): a request, and how it is answered. Pure: no socket, no loop."""

import email.utils
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.exceptions import HeaderLineTooLong, RequestLineTooLong, TooManyHeaders
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

WINDOW_BITS: Final = 12
"""Of both directions' permessage-deflate: 4 KiB."""

_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,  # so that a frame can be shared, and nothing is kept between messages
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
    client_max_window_bits=WINDOW_BITS,
    compress_settings={"memLevel": 5},
)

# websockets writes every header into its log at DEBUG, credentials too.
_quiet: Final = logging.getLogger("wsrouter.uvicorn.websockets")
_quiet.setLevel(logging.WARNING)

_EXPLANATIONS: Final = {
    400: "This is no WebSocket handshake, or one with a body.",
    405: "A WebSocket handshake is a GET request.",
    414: "The request line is too long.",
    426: "Only WebSocket clients are served here.",
    431: "A header is too long, or there are too many.",
    500: "Internal Server Error",
    503: "The server did not decide about this handshake in time.",
    505: "A WebSocket handshake needs HTTP/1.1.",
}
"""What a client is told. Never what it sent: a credential may be in it."""

HeaderList: TypeAlias = Iterable[tuple[bytes, bytes]]


class Refused(Exception):
    """A request that can't be accepted; ``response`` is what goes out."""

    def __init__(self, status: int, headers: HeaderList = ()) -> None:
        super().__init__(status)
        self.status = status
        self.response = explained(status, headers)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A handshake that can be accepted."""

    request: Request
    response: Response
    deflate: PerMessageDeflate | None
    """What was negotiated (RFC 7692)."""

    def scope(self, root_path: str) -> dict[str, Any]:
        """Return what the request says, as keys of the ASGI scope."""
        path, _, query = self.request.path.partition("?")
        headers = self.request.headers
        offered = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
        return {
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.raw_items()],
            "subprotocols": [each.strip() for each in offered.split(",")] if offered else [],
        }

    def accepted(self, headers: HeaderList, subprotocol: str | None) -> bytes:
        """Return the response that accepts."""
        answer = Headers(self.response.headers)
        del answer["Date"]  # the server has one of its own
        answer.update((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
        if subprotocol:
            answer["Sec-WebSocket-Protocol"] = subprotocol
        return Response(101, self.response.reason_phrase, answer).serialize()


def read_upgrade(data: bytes, *, deflate: bool) -> Upgrade:
    """Return the handshake in a whole request.

    Args:
        data: the request, with all of its headers.
        deflate: whether permessage-deflate is negotiated with who offers it.

    Raises:
        Refused: it is none, or it goes beyond a limit: 8 KiB for a line, 128 headers, no body.
    """
    server = ServerProtocol(extensions=[_DEFLATE] if deflate else None, logger=_quiet)
    server.receive_data(data)
    request = next(iter(server.events_received()), None)
    if not isinstance(request, Request):
        raise Refused(_status_of(server.handshake_exc))
    response = server.accept(request)
    if response.status_code != 101:
        names = [name for name in ("Allow", "Upgrade") if name in response.headers]
        raise Refused(response.status_code, [(name.encode(), response.headers[name].encode()) for name in names])
    extensions = [each for each in server.extensions if isinstance(each, PerMessageDeflate)]
    return Upgrade(request, response, extensions[0] if extensions else None)


def _status_of(problem: Exception | None) -> int:
    if isinstance(problem, RequestLineTooLong):
        return 414
    if isinstance(problem, HeaderLineTooLong | TooManyHeaders):
        return 431
    return 400


def answered(status: int, headers: HeaderList, body: bytes) -> bytes:
    """Return the response that denies, after which the connection ends."""
    answer = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    answer.setdefault("Date", email.utils.formatdate(usegmt=True))
    answer.setdefault("Connection", "close")
    answer.setdefault("Content-Length", str(len(body)))
    answer.setdefault("Content-Type", "text/plain; charset=utf-8")
    return Response(status, _phrase(status), answer, body).serialize()


def explained(status: int, headers: HeaderList = ()) -> bytes:
    """Return the response that denies with a sentence of our own."""
    return answered(status, headers, f"{_EXPLANATIONS[status]}\n".encode())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # one of somebody's own
        return ""
