"""How many may be connected at once."""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import ClassVar, Final, Literal, TypeAlias

from wsrouter.connection import ServerConnection
from wsrouter.errors import ConfigurationError, Deny
from wsrouter.guards.slots import REPLACED, REPLACED_REASON, Slots
from wsrouter.hub import Hub

logger = logging.getLogger("wsrouter")

_UNREADABLE: Final = "unreadable"
"""All clients whose address is none count as one: it must not be a way around the limit."""

OnFull: TypeAlias = Literal["deny", "replace_oldest"]
_Bucket: TypeAlias = tuple[Literal["total", "user", "ip"], Hashable]
_Wanted: TypeAlias = tuple[_Bucket, int, str]
"""Where a place is needed, how many there are, and what a client is told for whom there is none."""


@dataclass(frozen=True, slots=True)
class ConnectionLimitStats:
    """Counts of one `ConnectionLimit`."""

    taken: int
    """Places that are held now."""
    users: int
    """Users who hold a place, where ``per_user`` counts them."""
    addresses: int
    """Addresses that hold a place, where ``per_ip`` counts them."""
    denied: int
    """Connections that were turned away with 429 so far."""
    replaced: int
    """Connections that were closed with 4409 so far."""


class _Place:
    """What one connection holds."""

    __slots__ = ("buckets", "connection")

    def __init__(self, connection: ServerConnection, buckets: list[_Bucket]) -> None:
        self.connection = connection
        self.buckets = buckets
        """Empty from when it is given back."""


class ConnectionLimit:
    """Hold one of a number of places while the connection lives.

    A place is taken before the first ``await`` and given back once, whatever way the connection ends. Where
    there is none, the connection is denied with 429 and ``Retry-After``; or, with
    ``on_full="replace_oldest"``, the one that has been there longest of the same user, address or all is
    closed with 4409 (denied, where it is not accepted yet), and the new one gets its place at once, so that a
    phone that lost its link is back before the server has noticed that the old socket is dead. So for some
    seconds there may be more sockets than places.

    List it first: what is turned away then costs least. ``per_user`` needs the user: list a second one with it
    after the authenticator, and after the guards that may deny if it replaces. One object counts together
    wherever it is listed, in this process; it belongs to one event loop.

    With ``everywhere`` the broker of the hub counts, for all processes together. That takes a question to it for
    each limit and connection, and while it does not answer new connections are denied with 503; those that are there
    stay. Who has to go is closed with 4409 on whatever node. The places of a process that is killed are free when the
    broker takes it for dead (``RedisBroker(ttl=60)``).

    The address is the server's ``scope["client"]``; no header is looked at. Behind a proxy tell uvicorn whom to
    believe (``--forwarded-allow-ips``). IPv6 addresses count by /64, which is what one customer has; IPv4 in
    IPv6 counts as IPv4; all that is no address counts as one. A connection for which the server gives none (a
    Unix socket) is not limited by ``per_ip``, which is logged once.

    Args:
        total: connections at once. Whoever connects often enough pushes out everybody else where it replaces.
        per_user: connections of one user at once; those without a user are not limited by it,
            which is logged once.
        per_ip: connections from one address at once; many people may share one.
        on_full: ``"deny"`` the new connection, or ``"replace_oldest"``.
        retry_after: seconds that the ``Retry-After`` header names.
        everywhere: count on all nodes of the hub. ``replace_oldest`` goes with ``per_user`` only then.
        name: with ``everywhere``: tells this limit from others on the hub, the same on all nodes.

    Raises:
        ConfigurationError: no limit, one below 1, another ``on_full``, or what does not go with ``everywhere``; at
            application start for ``per_user`` before the authenticator of the same handler, and for two of one ``name``
            on a hub.
    """

    reads_user: ClassVar[Literal[False]] = False
    """It is not run again after ``$auth``: a place is held for the connection, and its user stays the same."""

    def __init__(
        self,
        *,
        total: int | None = None,
        per_user: int | None = None,
        per_ip: int | None = None,
        on_full: OnFull = "deny",
        retry_after: int = 5,
        everywhere: bool = False,
        name: str = "connections",
    ) -> None:
        given = {"total": total, "per_user": per_user, "per_ip": per_ip}
        if all(most is None for most in given.values()):
            raise ConfigurationError("ConnectionLimit(): give some of total=, per_user= and per_ip=")
        for option, most in given.items():
            if most is not None and not _is_integer(most, 1):
                raise ConfigurationError(f"ConnectionLimit({option}={most!r}): expected an integer of 1 or more")
        if on_full not in ("deny", "replace_oldest"):
            raise ConfigurationError(f"ConnectionLimit(on_full={on_full!r}): use 'deny' or 'replace_oldest'")
        if not _is_integer(retry_after, 0):
            raise ConfigurationError(f"ConnectionLimit(retry_after={retry_after!r}): expected seconds, an integer")
        if everywhere and on_full == "replace_oldest" and (total is not None or per_ip is not None):
            raise ConfigurationError(
                "ConnectionLimit(everywhere=True, on_full='replace_oldest'): only a connection of the same user can be"
                " told to go on another node; give per_user= alone, and list another limit for the rest"
            )
        if name != "connections" and not everywhere:
            raise ConfigurationError(f"ConnectionLimit(name={name!r}): it needs everywhere=True")
        self._total = total
        self._per_user = per_user
        self._per_ip = per_ip
        self._replaces = on_full == "replace_oldest"
        self._retry_after = retry_after
        self._slots = Slots(name, replaces=self._replaces) if everywhere else None
        # Ordered dicts: to find the oldest of a plain one takes longer the more were taken from its front.
        self._holders: dict[_Bucket, OrderedDict[_Place, None]] = {}
        self._taken = self._denied = self._replaced = 0
        self._warned: set[str] = set()

    @property
    def needs_user(self) -> bool:
        """Whether it has to stand after the authenticator; checked at application start."""
        return self._per_user is not None

    def listed_on(self, hub: Hub) -> None:
        """Take notice at application start of a hub whose connections it limits.

        Raises:
            ConfigurationError: with ``everywhere``: another limit of its name counts there.
        """
        if self._slots is not None:
            self._slots.claim(hub)

    def stats(self) -> ConnectionLimitStats:
        """Counts of this process."""
        kinds = [kind for kind, _ in self._holders]
        return ConnectionLimitStats(self._taken, kinds.count("user"), kinds.count("ip"), self._denied, self._replaced)

    async def __call__(self, connection: ServerConnection, hub: Hub) -> AsyncGenerator[None]:
        """Take a place, and give it back when the connection ends."""
        wanted = list(self._wanted(connection))
        if self._slots is not None:
            async with self._everywhere(self._slots, hub, connection, wanted):
                yield
            return
        place = self._take(connection, wanted)
        try:
            yield
        finally:
            self._give_back(place)

    @asynccontextmanager
    async def _everywhere(
        self, slots: Slots, hub: Hub, connection: ServerConnection, wanted: Sequence[_Wanted]
    ) -> AsyncGenerator[None]:
        try:
            for (kind, of), most, reason in wanted:
                slot = await slots.take(hub, connection, kind, of, most)
                if not slot.held:
                    raise self._denial(reason)
                self._replaced += slot.replaced is not None
            place = self._enter(connection, wanted)
            try:
                yield
            finally:
                self._give_back(place)
        finally:
            await slots.give_back(hub, connection)

    def _take(self, connection: ServerConnection, wanted: Sequence[_Wanted]) -> _Place:
        for bucket, most, reason in wanted:
            holders = self._holders.get(bucket, ())
            if len(holders) < most:
                continue
            if not self._replaces:
                raise self._denial(reason)
            self._replace(next(iter(holders)))
        return self._enter(connection, wanted)

    def _denial(self, reason: str) -> Deny:
        self._denied += 1
        return Deny(429, reason=reason, headers={"Retry-After": str(self._retry_after)})

    def _enter(self, connection: ServerConnection, wanted: Sequence[_Wanted]) -> _Place:
        place = _Place(connection, [bucket for bucket, _, _ in wanted])
        self._taken += bool(wanted)
        for bucket in place.buckets:
            self._holders.setdefault(bucket, OrderedDict())[place] = None
        return place

    def _wanted(self, connection: ServerConnection) -> Iterator[_Wanted]:
        """Yield where a connection needs a place; the narrowest first: to replace there makes room in the rest."""
        if self._per_user is not None and (user := self._user(connection)) is not None:
            yield ("user", user), self._per_user, "You have too many connections"
        if self._per_ip is not None and (network := self._network(connection)) is not None:
            yield ("ip", network), self._per_ip, "There are too many connections from your address"
        if self._total is not None:
            yield ("total", None), self._total, "There are too many connections"

    def _user(self, connection: ServerConnection) -> str | None:
        user = connection.user_id
        if user is None:
            self._warn_once(
                f"ConnectionLimit(per_user={self._per_user}): a connection has no user, so this does not limit it; list"
                " the limit in guards after an Authenticator that denies who is nobody"
            )
        return user

    def _network(self, connection: ServerConnection) -> Hashable | None:
        client = connection.client
        if client is not None and client.host:
            return _network_of(client.host)
        self._warn_once(
            f"ConnectionLimit(per_ip={self._per_ip}): the server gives no address of a client (a Unix socket?), so this"
            " does not limit it; with uvicorn behind a proxy, give --forwarded-allow-ips"
        )
        return None

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s", text)

    def _replace(self, place: _Place) -> None:
        self._replaced += 1
        self._give_back(place)
        place.connection.turn_away(REPLACED, REPLACED_REASON)

    def _give_back(self, place: _Place) -> None:
        buckets, place.buckets = place.buckets, []
        self._taken -= bool(buckets)
        for bucket in buckets:
            holders = self._holders[bucket]
            del holders[place]
            if not holders:
                del self._holders[bucket]


def _network_of(host: str) -> Hashable:
    """Return what an address counts as: itself for IPv4, the first 64 bits of IPv6, whatever its zone."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return _UNREADABLE
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or int(address) >> 64


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
