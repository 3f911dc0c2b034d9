"""Exceptions, and the one table that rules statuses, close codes and error codes.

WSRouterError
├── ConfigurationError        fix the code; raised at registration or at application start
├── Deny                      turn a connection away; also an ``HTTPException``
├── WebSocketError            tell the client and go on
├── Disconnect                close the connection
└── BrokerError               retry or degrade: what connects processes did not answer; also an ``HTTPException``
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import HTTPException
from starlette.exceptions import HTTPException as AnyHTTPException

MAX_REASON_BYTES: Final = 123
"""Longest close reason in bytes of UTF-8 (RFC 6455, section 5.5: a control frame holds 125, two are the code)."""

_CLOSE_CODES: Final[Mapping[int, int]] = {
    401: 4401,
    403: 4403,
    404: 4404,
    409: 4409,
    413: 1009,
    422: 4422,
    429: 4529,
    503: 4503,
}
_ERROR_CODES: Final[Mapping[int, str]] = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    429: "rate_limited",
    503: "unavailable",
}
_STATUSES: Final[Mapping[str, int]] = {
    **{error: status for status, error in _ERROR_CODES.items()},
    "invalid": 422,
    "unknown_type": 400,
    "internal": 500,
}
_RETRY: Final = frozenset({"rate_limited", "unavailable", "timeout"})


def close_code(status: int) -> int:
    """Return the close code that stands for an HTTP status."""
    if status >= 500:
        return _CLOSE_CODES.get(status, 1011)
    return _CLOSE_CODES.get(status, 4400)


def error_code(status: int) -> str:
    """Return the error code of an ``$error`` frame that stands for an HTTP status."""
    if status >= 500:
        return _ERROR_CODES.get(status, "internal")
    return _ERROR_CODES.get(status, "invalid")


def status_of(code: str) -> int:
    """Return the HTTP status that an error code stands for; 400 for a code of the application's own."""
    return _STATUSES.get(code, 400)


def denial_status(code: int) -> int:
    """Return the HTTP status that a close code stands for; 403 for one that the table does not have."""
    return next((status for status, known in _CLOSE_CODES.items() if known == code), 403)


def is_close_code(code: object) -> bool:
    """Whether an endpoint may send ``code`` in a close frame (RFC 6455, section 7.4)."""
    if not isinstance(code, int):
        return False
    return code in {1000, 1001, 1002, 1003, *range(1007, 1015)} or 3000 <= code <= 4999


def cut_reason(reason: str) -> str:
    """Return ``reason`` cut to what a close frame holds, never inside a character."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def phrase(status: int) -> str:
    """Return what an HTTP status is called; a status of somebody's own (499) has no name."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Denied"


class WSRouterError(Exception):
    """Root of the exceptions that wsrouter raises."""


class ConfigurationError(WSRouterError):
    """The application is put together wrongly.

    Raised where a handler is registered, or at application start where it depends on how routers are
    included. The text names the class, the parameter and the cure.
    """


class Deny(WSRouterError, HTTPException):
    """Turn a connection away; in a message method, answer with an error frame.

    Args:
        status: HTTP status of the denial, 400 to 599.
        code: close code where the denial has to be one; by default what stands for ``status`` (403: 4403).
        reason: what the client is told.
        headers: headers of the HTTP response, such as ``WWW-Authenticate``.
    """

    detail: Any  # FastAPI takes any JSON value

    def __init__(
        self,
        status: int = 403,
        *,
        code: int | None = None,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"Deny(status={status}): a denial is a status from 400 to 599")
        if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"Deny(reason={reason!r}): a reason is a text; raise HTTPException(status, detail) for JSON"
            )
        if code is not None and not is_close_code(code):
            raise ValueError(f"Deny(code={code}): no endpoint may send that close code; use 3000 to 4999")
        HTTPException.__init__(self, status, reason or phrase(status), dict(headers or {}) or None)
        self.status = status
        self.code = close_code(status) if code is None else code
        self.reason = reason or phrase(status)


class WebSocketError(WSRouterError):
    """Tell the client that its message failed; the connection lives.

    Args:
        code: error code, such as ``"forbidden"``, ``"not_found"`` or one of the application's own.
        message: text for the client.
        details: anything that can be written as JSON.
        retry: whether the same message may succeed later; by default true for ``rate_limited``,
            ``unavailable`` and ``timeout``.
        after_ms: milliseconds to wait before a retry.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        details: Any = None,
        retry: bool | None = None,
        after_ms: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message or code.replace("_", " ").capitalize()
        self.details = details
        self.retry = code in _RETRY if retry is None else retry
        self.after_ms = after_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def as_data(self) -> dict[str, Any]:
        """Return the ``error`` object of an ``$error`` frame."""
        data: dict[str, Any] = {"code": self.code, "message": self.message, "retry": self.retry}
        if self.after_ms is not None:
            data["after_ms"] = self.after_ms
        if self.details is not None:
            data["details"] = self.details
        return data


class Disconnect(WSRouterError):
    """Close the connection.

    Args:
        code: close code; 1000, 1001, 1003, 1007 to 1014, or 3000 to 4999.
        reason: text for the client, cut to 123 bytes of UTF-8.
    """

    def __init__(self, code: int = 1000, reason: str = "") -> None:
        if not is_close_code(code):
            raise ValueError(f"Disconnect({code}): no endpoint may send that close code; use 1000 or 3000 to 4999")
        super().__init__(code, reason)
        self.code = code
        self.reason = cut_reason(reason)


class BrokerError(WSRouterError, HTTPException):
    """What connects processes (Redis) failed or did not answer in time.

    Who does not catch it passes it on to the client, without the text: a message is answered with ``unavailable`` and
    ``retry``, a handshake is denied with 503 and what can't be answered is closed with 4503. It is an ``HTTPException``
    with status 503 and ``Retry-After``, so that an HTTP route answers likewise.

    Args:
        message: what was tried and what came, for the log.
        outcome_unknown: whether what was asked for may have happened all the same.
    """

    detail: Any  # FastAPI takes any JSON value

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        detail = "This is not possible at the moment"
        if outcome_unknown:
            detail = "It is not known whether this was done"
        HTTPException.__init__(self, 503, detail, {"Retry-After": "1"})
        self.message = message
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        return self.message


def from_http(exc: AnyHTTPException) -> WebSocketError:
    """Return the error frame that stands for an ``HTTPException``, its ``Retry-After`` included."""
    code = error_code(exc.status_code)
    after = next((str(value) for name, value in (exc.headers or {}).items() if name.lower() == "retry-after"), "")
    after_ms = int(after) * 1000 if after.isascii() and after.isdigit() else None
    detail = detail_of(exc)
    if isinstance(detail, str):
        unknown = isinstance(exc, BrokerError) and exc.outcome_unknown
        return WebSocketError(code, detail, after_ms=after_ms, details={"outcome_unknown": True} if unknown else None)
    message = exc.reason if isinstance(exc, Deny) else ""
    return WebSocketError(code, message, details=detail, after_ms=after_ms)


def detail_of(exc: AnyHTTPException) -> object:
    """Return the ``detail`` of an ``HTTPException``: FastAPI takes any JSON value, Starlette declares a text."""
    return exc.detail
