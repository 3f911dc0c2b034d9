"""The keys of an issuer, fetched over HTTPS and kept: rotation and outages go unnoticed by those who sign in."""

import asyncio
import logging
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from wsrouter.auth.keys import ASYMMETRIC, Key, NotUsable, UnknownKey, WeakKey, usable
from wsrouter.errors import ConfigurationError
from wsrouter.tasks import wait_for_end

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("wsrouter")

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 128
UNKNOWN_AT_ONCE: Final = 3
EARLY: Final = 0.8
MAX_BACKOFF: Final = 30.0


class Unavailable(Exception):
    """Nobody can say at the moment whether a token is good: the issuer's keys can't be had.

    Args:
        retry_after: seconds after which it may be different.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = math.ceil(max(1.0, retry_after))


class JWKSet:
    """The public keys that an issuer offers at an address (RFC 7517, section 5), fetched when they are needed and kept.

    - There is one fetch at a time; all who need it wait for it. Who stops waiting does not end it.
    - Keys are used for ``lifetime`` seconds. In the last fifth of it the next login starts a fetch without
      waiting. Later ones wait for it, unless the last fetch failed.
    - A token that names an unknown key makes it fetch: three times at once, and then once per ``cooldown`` seconds.
      In between such a token is answered 503, because it may be good.
    - After a failed fetch the keys that were there are used, for up to ``stale`` seconds after they were fetched.
      The next fetch is tried 1 second later, then after twice as long each time, up to 30 seconds. Without
      keys, connections are denied with 503.
    - Redirects are not followed. An answer has at most 256 KiB, uncompressed; the first 128 keys are looked at.
      Symmetric keys, encryption keys, weak ones, and those that can't be read are ignored. Where no key is left,
      the fetch has failed.

    It needs the package httpx (``pip install wsrouter-fastapi[jwks]``), whose environment variables for proxies and
    certificates hold.

    Args:
        url: address of the JWK set.
        lifetime: seconds.
        cooldown: seconds.
        stale: seconds; at least ``lifetime``.
        timeout: seconds for one fetch, from the connection to the last byte.
        allow_http: whether the address may be one without TLS, for tests and inside of one machine.
        clock: tells seconds that only grow; a test may give one that it moves by itself.

    Raises:
        ConfigurationError: the address is no ``https://`` one, a number is not above zero, or httpx is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        lifetime: float = 300.0,
        cooldown: float = 10.0,
        stale: float = 3600.0,
        timeout: float = 5.0,
        allow_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ConfigurationError(f"JWKSet({url!r}): expected an address such as 'https://issuer.example/jwks.json'")
        if parts.scheme == "http" and not allow_http:
            raise ConfigurationError(
                f"JWKSet({url!r}): whoever is on the way could put in keys of their own; use https, or allow_http=True"
            )
        for name, value in (("lifetime", lifetime), ("cooldown", cooldown), ("stale", stale), ("timeout", timeout)):
            if not value > 0:
                raise ConfigurationError(f"JWKSet({name}={value!r}): expected seconds above zero")
        if stale < lifetime:
            raise ConfigurationError(f"JWKSet(stale={stale!r}): expected at least lifetime, {lifetime!r}")
        try:
            import httpx  # noqa: F401  # pyright: ignore[reportUnusedImport]
        except ImportError as exc:
            raise ConfigurationError("JWKSet needs the package httpx: pip install wsrouter-fastapi[jwks]") from exc
        self._url = url
        self._clock = clock
        self._place = f"{parts.scheme}://{parts.hostname}{parts.path}"
        self._lifetime = lifetime
        self._stale = stale
        self._timeout = timeout
        self._secure = parts.scheme == "https"
        self._certificates: ssl.SSLContext | None = None
        self._keys: Mapping[str | None, Sequence[Key]] = {}
        self._fetched_at = -float("inf")
        self._begun = 0
        self._answered = 0
        """The last fetch that gave keys, by when it began."""
        self._failures = 0
        """How many fetches have failed since then."""
        self._retry_at = -float("inf")
        self._unknown = _Allowance(UNKNOWN_AT_ONCE, cooldown)
        self._task: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: object) -> Key:
        """Return the key of a token by what its header says.

        Raises:
            UnknownKey: the issuer has no such key.
            Unavailable: whether it has one is not known.
        """
        wanted = self._begun + 1
        age = self._clock() - self._fetched_at
        if age > self._lifetime * EARLY and self._may_fetch():
            fetch = self._running()
            if age > self._stale or (age > self._lifetime and not self._failures):
                await asyncio.wait([fetch])  # being cancelled does not end it
        if self._clock() - self._fetched_at > self._stale:
            raise Unavailable(self._retry_at - self._clock())
        if kid is not None and kid not in self._keys:
            await self._look_again(kid, wanted)
        named = self._keys.values() if kid is None else [self._keys.get(kid, ())]
        fitting = [key for keys in named for key in keys if algorithm in key.algorithms]
        if len(fitting) != 1:
            raise UnknownKey
        return fitting[0]

    async def aclose(self) -> None:
        """End a fetch that is under way. The keys stay, and it can be used again."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            cancelled = await wait_for_end(task)
            if cancelled is not None:
                raise cancelled

    async def _look_again(self, kid: str, wanted: int) -> None:
        """Fetch because of a key that is not known, until it is, or until that was done since the token came.

        Raises:
            Unavailable: it may not fetch now, or the fetch failed.
        """
        while kid not in self._keys and self._answered < wanted:
            if not self._is_running():
                now = self._clock()
                wait = self._retry_at - now if now < self._retry_at else self._unknown.take(now)
                if wait > 0:
                    raise Unavailable(wait)
            fetch = self._running()
            await asyncio.wait([fetch])
            if self._failures or fetch.cancelled():
                raise Unavailable(self._retry_at - self._clock())

    def _may_fetch(self) -> bool:
        return self._is_running() or self._clock() >= self._retry_at

    def _is_running(self) -> bool:
        task = self._task
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    def _running(self) -> "asyncio.Task[None]":
        if self._task is None or not self._is_running():
            self._begun += 1
            self._task = asyncio.get_running_loop().create_task(self._fetch(self._begun), name="wsrouter JWKSet fetch")
        return self._task

    async def _fetch(self, number: int) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._get()
                keys = await asyncio.to_thread(_read, body)
        except Exception as exc:
            self._failures += 1
            backoff = min(MAX_BACKOFF, 2.0 ** (self._failures - 1)) * random.uniform(1.0, 1.1)
            self._retry_at = self._clock() + backoff
            reason = str(exc) if isinstance(exc, _Refused) else type(exc).__name__
            logger.warning("The keys at %s could not be fetched: %s; next try in %.0f s", self._place, reason, backoff)
        else:
            self._keys = keys
            self._answered = number
            self._failures = 0
            self._fetched_at = self._clock()

    async def _get(self) -> bytes:
        import httpx

        if self._secure and self._certificates is None:
            # Reading the certificates takes tens of milliseconds.
            self._certificates = await asyncio.to_thread(httpx.create_ssl_context)
        client = await asyncio.to_thread(self._client) if self._certificates is None else self._client()
        async with client, client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise _Refused(f"status {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise _Refused("the answer is compressed")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise _Refused(f"the answer is larger than {MAX_BYTES} bytes")
        return bytes(body)

    def _client(self) -> "httpx.AsyncClient":
        import httpx

        return httpx.AsyncClient(
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            timeout=self._timeout,
            verify=False if self._certificates is None else self._certificates,
        )


class _Refused(Exception):
    """An answer that is no JWK set. The text does not quote it."""


class _Allowance:
    """How often something may be done: some times at once, then once in a while."""

    def __init__(self, at_once: int, interval: float) -> None:
        self._at_once = at_once
        self._interval = interval
        self._left = float(at_once)
        self._at = 0.0

    def take(self, now: float) -> float:
        """Return 0 and count one, or return the seconds until there is one."""
        self._left = min(float(self._at_once), self._left + (now - self._at) / self._interval)
        self._at = now
        if self._left < 1:
            return (1 - self._left) * self._interval
        self._left -= 1
        return 0.0


class _Answer(TypedDict):
    keys: list[Any]


_jwk_set: Final = TypeAdapter(_Answer)
_jwk: Final = TypeAdapter(dict[str, Any])
_ALL: Final = sorted(ASYMMETRIC)


def _read(body: bytes) -> Mapping[str | None, Sequence[Key]]:
    """Return the usable keys of a JWK set, by ``kid``.

    Raises:
        _Refused: it is no JWK set, or has no usable key.
    """
    try:
        given = _jwk_set.validate_json(body)["keys"]
    except ValidationError:
        raise _Refused("the answer is no JWK set") from None
    found: dict[str | None, list[Key]] = {}
    for each in given[:MAX_KEYS]:
        try:
            jwk = _jwk.validate_python(each, strict=True)
            kid = jwk.get("kid")
            if isinstance(kid, str | None):
                key = usable(jwk, _ALL)
                found.setdefault(kid, []).append(key)
        except (ValidationError, NotUsable, WeakKey):
            continue
    if not found:
        raise _Refused("no key in it is usable")
    return found
