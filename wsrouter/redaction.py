"""What servers log of a handshake, without the credentials in it."""

import copy
import logging
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

LOGGERS: Final = (
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "hypercorn.error",
    "hypercorn.access",
    "granian.access",
)
"""The loggers through which servers tell of requests; a filter of a logger sees only what is logged to itself."""

HIDDEN: Final = "***"

_PARAMETER: Final = re.compile(r"(?<![^&?;\s'\"])(?P<name>[^=&?;\s'\"]++)=[^&;\s]+")
_ODD: Final = re.compile(r"[\W_]")
_BEARER: Final = re.compile(r"(?P<prefix>bearer\.)[^,;\s'\"]+", re.IGNORECASE)
_BEGIN: Final = re.compile(r"[?=]")
_FRAME: Final = re.compile(r"(?P<kind>< (?:TEXT|BINARY|CONT)) (?P<payload>.*) (?P<size>\[[^\[\]]*\])", re.DOTALL)
"""What websockets logs at DEBUG of a frame that came: the payload as ``repr`` writes it, its middle left out."""
_TELLING: Final = ("auth", "token", "\\u", "...", b"auth".hex(" "))

MAX_LENGTH: Final = 4096
MAX_PARAMETERS: Final = 32
MAX_ESCAPES: Final = 256
"""Of a text beyond one of them all parameters are hidden: to look at each takes as long as a client likes."""


class _Redaction(logging.Filter):
    """Replaces credentials in log records; it lets every record through."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: set[str] = set()
        """Names in lower case, without what is neither letter nor digit."""
        self.headers: set[str] = set()
        self.frames = False

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args or ()
        values = arguments.values() if isinstance(arguments, Mapping) else arguments
        if not all(isinstance(each, str | int | float | None) for each in values):
            record.msg, record.args = record.getMessage(), ()  # how an object is written is not known before
        elif isinstance(arguments, Mapping):
            record.args = self._mapping(arguments)
        elif arguments:
            record.args = self._arguments(arguments)
        if isinstance(record.msg, str):
            record.msg = self._text(record.msg)
        if record.exc_info and record.levelno <= logging.DEBUG:
            # websockets tells at DEBUG of handshakes that it refuses, with an exception that quotes the header.
            record.msg, record.args = f"{record.getMessage()} ({_kind(record.exc_info)})", ()
            record.exc_info = None
        return True

    def _arguments(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        first = arguments[0]
        if isinstance(first, str) and first.lower() in self.headers:  # "< %s: %s" of websockets, at DEBUG
            return first, *(HIDDEN for _ in arguments[1:])
        return tuple(self._text(each) if isinstance(each, str) else each for each in arguments)

    def _mapping(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        redacted: Any = copy.copy(arguments)
        for key, value in arguments.items():
            if key.partition("}")[0].lstrip("{").lower() in self.headers:  # "{name}i" in hypercorn's access log
                redacted[key] = HIDDEN
            elif isinstance(value, str):
                redacted[key] = self._text(value)
        result: Mapping[str, Any] = redacted
        return result

    def _text(self, text: str) -> str:
        if self.frames:
            text = _without_token(text)
        begin = _BEGIN.search(text) if self.parameters and _is_costly(text) else None
        if begin is not None:
            text = f"{text[: begin.end()]}{HIDDEN}"
        if "sec-websocket-protocol" in self.headers:
            text = _BEARER.sub(rf"\g<prefix>{HIDDEN}", text)
        return _PARAMETER.sub(self._parameter, text) if self.parameters and "=" in text else text

    def _parameter(self, found: "re.Match[str]") -> str:
        name: str = found["name"]
        # Odd spellings (`token[]`, encoded twice) are no credentials, but somebody's token is behind them.
        hidden = _ODD.sub("", unquote_plus(unquote_plus(name))).lower() in self.parameters
        return f"{name}={HIDDEN}" if hidden else found[0]


def _is_costly(text: str) -> bool:
    return len(text) > MAX_LENGTH or text.count("=") > MAX_PARAMETERS or text.count("%") > MAX_ESCAPES


def _without_token(text: str) -> str:
    """Return what is logged of a frame without the token that ``$auth`` carries.

    Of a frame that is whole and can't be one all stays. Which of the other pieces belong to one can't be told.
    """
    frame = _FRAME.fullmatch(text)
    if frame is not None:
        cut = frame["kind"].endswith("CONT") or "continued" in frame["size"]
        hidden = cut or any(each in frame["payload"] for each in _TELLING)
        return f"{frame['kind']} {HIDDEN} {frame['size']}" if hidden else text
    if "$auth" not in text:
        return text
    before = text.partition("{")[0]  # the token may stand before the type
    return f"{before if len(before) < len(text) else text.partition('$auth')[0]}{HIDDEN}"


def _kind(exc_info: Any) -> str:
    kind: type[BaseException] | None = exc_info[0]
    return "no exception" if kind is None else kind.__name__


_redaction: Final = _Redaction()


def redact_parameter(name: str) -> None:
    """Keep the value of a query parameter out of the logs of servers, from now on and in the whole process.

    The name is compared by its letters and digits, in any case, however it is encoded. Called again it puts
    back a filter that a configuration of logging has dropped.
    """
    _redaction.parameters.add(_ODD.sub("", name).lower())
    _install()


def redact_header(name: str) -> None:
    """Keep a header out of what servers log at DEBUG, from now on and in the whole process."""
    _redaction.headers.add(name.lower())
    _install()


def redact_frames() -> None:
    """Keep the tokens of ``$auth`` out of what servers log of frames at DEBUG, from now on and in the whole process."""
    _redaction.frames = True
    _install()


def _install() -> None:
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_redaction)
