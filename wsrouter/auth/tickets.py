"""One-time credentials: handed out by an HTTP route, spent by one handshake."""

import hashlib
import json
import logging
import math
import re
import secrets
import time
from collections import deque
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError
from starlette.requests import HTTPConnection
from typing_extensions import TypedDict

from wsrouter.auth.sources import BadCredential, Source, Verify, find_parameter
from wsrouter.errors import BrokerError, ConfigurationError, Deny
from wsrouter.guards.origins import parse_origin
from wsrouter.identity import Principal
from wsrouter.redaction import redact_parameter
from wsrouter.stores import MemoryStore, OneTimeStore

logger = logging.getLogger("wsrouter")

MAX_COUNTED: Final = 65_536
"""Tickets that are counted at once; of more the oldest are counted no longer."""

_TICKET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_RETRY_AFTER: Final = {"Retry-After": "1"}


class _Stored(TypedDict):
    """What is kept of a ticket; ``v`` is raised when another version could not read it."""

    v: Literal[1]
    path: str
    origin: str | None
    id: str
    scopes: list[str]
    claims: dict[str, Any]
    expires_at: int | float | None


_stored: Final = TypeAdapter(_Stored)


class Ticket(Source):
    """A query parameter with a credential that works once, for seconds, at one path and from one origin.

    An HTTP route that knows the user hands it out, and the page connects with it at once, so no address has a
    token in it that is worth something afterwards::

        tickets = Ticket()
        auth = JWTAuth(key=..., algorithms=["HS256"], sources=[Header(), tickets])

        @app.post("/tickets/{room}")
        async def ticket(room: str, request: Request, user: Annotated[Principal, Depends(auth)]) -> str:
            return await tickets.issue(user, path=f"/ws/chat/{room}", origin=request.headers.get("origin"))

    A ticket is spent by the first attempt, also by one that is denied. A bad ticket is denied (401); what
    other sources may have is not looked at. Its value is kept out of the logs of uvicorn and hypercorn.

    Args:
        store: where tickets are kept; by default in the memory of this process. With several processes take
            `wsrouter.brokers.redis.RedisStore`.
        ttl: seconds that a ticket lives.
        parameter: name of the query parameter.
        per_user: tickets that this process issues to one `Principal.id` within ``ttl``, spent or not: nobody can
            fill the store alone.

    Raises:
        ConfigurationError: ``ttl`` is not above zero, ``parameter`` is empty, or ``per_user`` is below 1.
    """

    def __init__(
        self,
        store: OneTimeStore | None = None,
        *,
        ttl: float = 30.0,
        parameter: str = "ticket",
        per_user: int = 100,
    ) -> None:
        if not ttl > 0:
            raise ConfigurationError(f"Ticket(ttl={ttl!r}): expected seconds above zero")
        if not parameter:
            raise ConfigurationError("Ticket(parameter=''): expected the name of a query parameter, such as 'ticket'")
        if per_user < 1:
            raise ConfigurationError(f"Ticket(per_user={per_user!r}): expected an integer of 1 or more")
        self._store = MemoryStore() if store is None else store
        self._ttl = ttl
        self._parameter = parameter
        self._issued = Issued(ttl, per_user)
        redact_parameter(parameter)

    async def issue(self, principal: Principal, *, path: str, origin: str | None = None) -> str:
        """Return a ticket for one connection.

        Args:
            principal: whom it speaks for; it comes out of the guard as it is, ``expires_at`` included.
            path: the path it is good for, decoded and with all prefixes, such as ``/ws/chat/my room``.
            origin: the ``Origin`` that the browser will send; ``None`` is good for requests without one only.

        Raises:
            TypeError: ``principal`` is no `Principal`, or a claim can't be written as JSON.
            ValueError: ``path`` does not begin with ``/``, or ``origin`` is none.
            Deny: 429; the user has been given ``per_user`` of them within ``ttl``. 503; the store is full, or did not
                answer.
        """
        if not isinstance(principal, Principal):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"issue(): expected a Principal, not {type(principal).__name__}")
        if not path.startswith("/"):
            raise ValueError(f"issue(path={path!r}): expected a whole path, such as '/ws/chat/1'")
        bound = None if origin is None else _page_of(origin)
        if origin is not None and bound is None:
            raise ValueError("issue(origin=...): expected scheme, host and perhaps port, such as 'https://app.example'")
        stored: _Stored = {
            "v": 1,
            "path": path,
            "origin": bound,
            "id": principal.id,
            "scopes": sorted(principal.scopes),
            "claims": dict(principal.claims),
            "expires_at": principal.expires_at,
        }
        value = json.dumps(stored, allow_nan=False).encode()
        wait = self._issued.count(principal.id)
        if wait > 0:
            raise Deny(429, reason="You have too many tickets", headers={"Retry-After": str(math.ceil(wait))})
        ticket = secrets.token_urlsafe(32)
        try:
            await self._store.put(_key(ticket), value, self._ttl)
        except BrokerError as exc:
            logger.warning("A ticket could not be issued: %s", exc)
            raise Deny(503, reason="No tickets at the moment", headers=_RETRY_AFTER) from exc
        return ticket

    def find(self, connection: HTTPConnection) -> str | None:
        return find_parameter(connection.scope, self._parameter)

    async def resolve(self, connection: HTTPConnection, credential: str, verify: Verify) -> Principal:
        if not _TICKET.fullmatch(credential):
            raise BadCredential("no ticket looks like that")
        try:
            value = await self._store.take(_key(credential))
        except BrokerError as exc:
            logger.warning("A ticket could not be redeemed: %s", exc)
            raise Deny(503, reason="Tickets can't be checked at the moment", headers=_RETRY_AFTER) from exc
        if value is None:
            raise BadCredential("a ticket that is spent or unknown")
        path, origin, principal = _read(value)
        if path != connection.scope["path"]:
            raise BadCredential("a ticket for another path")
        given = connection.headers.getlist("origin")
        if len(given) > 1 or (_page_of(given[0]) if given else None) != origin or (given and origin is None):
            raise BadCredential("a ticket for another origin")
        return principal

    def started(self) -> None:
        redact_parameter(self._parameter)

    async def aclose(self) -> None:
        """Close the store, which keeps what others may still take, and can be used again."""
        await self._store.aclose()


def _key(ticket: str) -> str:
    """Return under what a ticket is kept: who can read the store can't redeem what is in it."""
    return "ticket:" + hashlib.sha256(ticket.encode()).hexdigest()


def _read(value: bytes) -> tuple[str, str | None, Principal]:
    """Return path, origin and principal of a stored ticket.

    Raises:
        BadCredential: it was written by another version, or by somebody else.
    """
    try:
        stored = _stored.validate_json(value, strict=True)
    except ValidationError:
        raise BadCredential("a stored ticket that can't be read") from None
    principal = Principal(stored["id"], frozenset(stored["scopes"]), stored["claims"], stored["expires_at"])
    return stored["path"], stored["origin"], principal


def _page_of(origin: str) -> str | None:
    """Return an origin of a page in its normal form, ``None`` for what is none."""
    parsed = parse_origin(origin)
    return None if parsed is None or parsed.scheme in ("ws", "wss") else str(parsed)


class Issued:
    """When the tickets of each user were issued, as long as they live.

    Args:
        lifetime: seconds.
        most: of one user.
    """

    def __init__(self, lifetime: float, most: int) -> None:
        self._lifetime = lifetime
        self._most = most
        self._ends: dict[bytes, deque[float]] = {}
        self._order: deque[bytes] = deque()
        """The users, once for each ticket, in the order in which those end."""

    @property
    def counted(self) -> tuple[int, int]:
        """How many users and how many tickets it keeps."""
        return len(self._ends), len(self._order)

    def count(self, id: str) -> float:
        """Count one and return 0; or return the seconds until the user may have another."""
        now = time.monotonic()
        while self._order and (self._ends[self._order[0]][0] <= now or len(self._order) >= MAX_COUNTED):
            self._drop_first()
        user = hashlib.sha256(id.encode(errors="surrogatepass")).digest()  # an id may be long
        ends = self._ends.get(user)
        if ends is None:
            ends = self._ends[user] = deque()
        elif len(ends) >= self._most:
            return ends[0] - now
        ends.append(now + self._lifetime)
        self._order.append(user)
        return 0.0

    def _drop_first(self) -> None:
        user = self._order.popleft()
        ends = self._ends[user]
        ends.popleft()
        if not ends:
            del self._ends[user]
