"""How a client learns that it is not let in."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Final

from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException, WebSocketException
from starlette.types import Scope, Send

from wsrouter.chain import Reject
from wsrouter.errors import (
    BrokerError,
    Deny,
    Disconnect,
    WebSocketError,
    cut_reason,
    detail_of,
    error_code,
    is_close_code,
    status_of,
)
from wsrouter.outcome import answerable, strongest
from wsrouter.transports import DirectTransport

logger = logging.getLogger("wsrouter")

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
"""A header's name (RFC 9110, section 5.1)."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def denial_of(exc: BaseException) -> Deny:
    """Return the denial that an exception before accept stands for; what is unexpected is logged and masked."""
    exc = answerable(strongest(exc))
    if isinstance(exc, Deny):
        return exc
    if isinstance(exc, BrokerError):
        logger.info("A handshake was denied: %s", exc)
    if isinstance(exc, HTTPException) and 400 <= exc.status_code <= 599:
        denial = Deny(exc.status_code, headers=exc.headers)
        denial.detail = detail = detail_of(exc)
        if isinstance(detail, str):
            denial.reason = detail
        return denial
    if isinstance(exc, WebSocketError):
        return Deny(status_of(exc.code), reason=exc.message)
    if isinstance(exc, Disconnect):
        return Deny(403, code=exc.code, reason=exc.reason)
    if isinstance(exc, WebSocketException) and is_close_code(exc.code):  # how FastAPI's own guards are written
        return Deny(403, code=exc.code, reason=exc.reason)
    logger.error("The handshake failed with an unexpected exception", exc_info=exc)
    return Deny(500)


def closes(reject: Reject, scope: Scope) -> bool:
    """Whether a denied connection is accepted and closed: in mode ``auto`` one with an ``Origin`` header is."""
    return reject == "close" or (reject == "auto" and any(name == b"origin" for name, _ in scope["headers"]))


async def accept_and_close(
    denial: Deny, send: Send, subprotocol: str | None, transport: DirectTransport | None, timeout: float
) -> None:
    """Answer a handshake with a denial that a browser can read: accept it, and close at once with the code.

    Args:
        denial: what it is.
        send: the ASGI ``send``.
        subprotocol: what was chosen of those that the client offers.
        transport: the way to the socket, if there is one.
        timeout: seconds after which a socket that can be reached is aborted.
    """
    reason = cut_reason(denial.reason)
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
    if transport is None:
        await send({"type": "websocket.close", "code": denial.code, "reason": reason})
    else:
        transport.close(denial.code, reason, timeout)


async def refuse(denial: Deny, scope: Scope, send: Send) -> None:
    """Answer a handshake with the HTTP response of a denial.

    Where the server does not offer ``websocket.http.response`` it is a plain close: HTTP 403 on every server.
    """
    if "websocket.http.response" in (scope.get("extensions") or {}):
        body = _body(denial)
        headers = _headers(denial.headers or {}, body)
        await send({"type": "websocket.http.response.start", "status": denial.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": denial.code, "reason": cut_reason(denial.reason)})


def _body(denial: Deny) -> bytes:
    try:
        detail = to_jsonable_python(denial.detail, by_alias=True, inf_nan_mode="null", fallback=str)
    except ValueError:  # it contains itself
        detail = denial.reason
    return json.dumps({"code": error_code(denial.status), "detail": detail}).encode()


def _headers(given: Mapping[str, str], body: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers that no text of a client's can break out of."""
    headers = {"content-type": "application/json"}
    headers.update((name.lower(), " ".join(_CONTROLS.sub(" ", str(value)).split())) for name, value in given.items())
    headers["content-length"] = str(len(body))
    return [
        (name.encode(), value.encode("latin-1", errors="replace"))
        for name, value in headers.items()
        if _NAME.fullmatch(name) and name != "transfer-encoding"
    ]
