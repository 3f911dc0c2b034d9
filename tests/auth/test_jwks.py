"""Keys of an issuer over real HTTP: one fetch for all, rotation, outages, floods. Good tokens are not refused."""

import asyncio
import gc
import gzip
import itertools
import json
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Depends, FastAPI

from tests.auth.handshakes import request
from tests.auth.issuer import Clock, Issuer, issuing
from tests.auth.tokens import EC_KEY, OTHER_RSA_KEY, RSA_KEY, jwk, token
from tests.support import connect, eventually, serve
from wsrouter import ConfigurationError, Deny, WebSocketHandler, WebSocketRouter
from wsrouter.auth import JWKSet, JWTAuth, Principal
from wsrouter.auth.jwks import MAX_BYTES, MAX_KEYS, UNKNOWN_AT_ONCE

FIRST = jwk(RSA_KEY, "RS256", kid="first")
SECOND = jwk(OTHER_RSA_KEY, "RS256", kid="second")


def first(**changes: Any) -> str:
    return token(RSA_KEY, "RS256", {"kid": "first"}, **changes)


def second() -> str:
    return token(OTHER_RSA_KEY, "RS256", {"kid": "second"})


def unknown(number: int) -> str:
    return token(RSA_KEY, "RS256", {"kid": f"unknown-{number}"})


@asynccontextmanager
async def authenticating(issuer: Issuer, **options: Any) -> AsyncGenerator[tuple[JWTAuth, Clock]]:
    clock = Clock()
    keys = JWKSet(issuer.url, allow_http=True, clock=clock, **options)
    auth = JWTAuth(jwks_url=keys, algorithms=["RS256", "ES256"])
    try:
        yield auth, clock
    finally:
        await auth.aclose()


async def status_of(auth: JWTAuth, text: str) -> int:
    """Return 200 for a token that is accepted, else the status of the denial."""
    try:
        await auth.verify(text)
    except Deny as denied:
        retry_after = (denied.headers or {}).get("Retry-After", "")
        return denied.status if (denied.status == 503) is retry_after.isdigit() else 0
    return 200


async def test_all_wait_for_one_fetch() -> None:
    """A hundred logins at once on a cold cache make one request, and later ones none."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, _):
        assert set(await asyncio.gather(*(status_of(auth, first()) for _ in range(100)))) == {200}
        assert await status_of(auth, first()) == 200
        assert issuer.fetches == 1


async def test_who_stops_waiting_does_not_end_the_fetch() -> None:
    """A cancelled login leaves the fetch to the others."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, _):
        issuer.hold = asyncio.Event()
        impatient = asyncio.create_task(auth.verify(first()))
        patient = asyncio.create_task(auth.verify(first()))
        await asyncio.wait_for(issuer.asked.wait(), 5)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        issuer.hold.set()
        assert (await patient).id == "ada"
        assert issuer.fetches == 1


async def test_a_close_ends_the_fetch() -> None:
    """No task is left, who waited gets 503, and it can be used again."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, _):
        issuer.hold = asyncio.Event()
        waiting = asyncio.create_task(status_of(auth, first()))
        await asyncio.wait_for(issuer.asked.wait(), 5)
        await auth.aclose()
        assert await waiting == 503
        issuer.hold.set()
        assert await status_of(auth, first()) == 200


async def test_an_issuer_that_is_down_is_503() -> None:
    """Without keys nobody can say that a token is bad. It is tried again after 1, 2, 4 ... 30 seconds."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock):
        issuer.status = 500
        tried: list[float] = []
        while len(tried) < 8:
            fetches = issuer.fetches
            assert await status_of(auth, first()) == 503
            if issuer.fetches > fetches:
                tried.append(clock.now)
            clock.now += 0.125
        waits = [after - before for before, after in itertools.pairwise(tried)]
        for wait, expected in zip(waits, (1, 2, 4, 8, 16, 30, 30), strict=True):
            assert expected <= wait <= expected * 1.1 + 0.25
        issuer.status = 200
        clock.now += 33
        assert await status_of(auth, first()) == 200


async def test_an_outage_is_not_noticed() -> None:
    """With a warm cache logins go on for an hour after the last fetch, without waiting; then they are 503."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock):
        assert await status_of(auth, first()) == 200
        await issuer.stop()
        start = clock.now
        while clock.now < start + 3590:
            clock.now += 10
            assert await status_of(auth, first()) == 200
        clock.now = start + 3601
        assert await status_of(auth, first()) == 503
        clock.now += 31
        await issuer.start()
        assert await status_of(auth, first()) == 200


async def test_a_new_key_is_known_after_one_fetch() -> None:
    """The first token of a new key is accepted, also right after a forged one made it fetch; a key that was taken
    away is refused after the lifetime."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock):
        assert await status_of(auth, first()) == 200
        assert await status_of(auth, unknown(1)) == 401
        issuer.keys = [FIRST, SECOND]
        assert set(await asyncio.gather(*(status_of(auth, second()) for _ in range(20)))) == {200}
        assert issuer.fetches == 3
        issuer.keys = [SECOND]
        clock.now += 301
        assert await status_of(auth, first()) == 401
        assert await status_of(auth, second()) == 200


async def test_a_key_published_while_a_fetch_is_under_way_is_found() -> None:
    """A fetch that began before the token came may be too early; then there is one more."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, _):
        assert await status_of(auth, first()) == 200
        issuer.asked.clear()
        issuer.hold, issuer.body = asyncio.Event(), json.dumps({"keys": [FIRST]}).encode()
        forged = asyncio.create_task(status_of(auth, unknown(1)))
        await asyncio.wait_for(issuer.asked.wait(), 5)
        late = asyncio.create_task(status_of(auth, second()))
        await asyncio.sleep(0)
        issuer.hold.set()
        assert await forged == 401
        issuer.body, issuer.keys = None, [FIRST, SECOND]
        assert await late == 200
        assert issuer.fetches == 3


async def test_a_thousand_unknown_keys() -> None:
    """Over real sockets: at most the documented number of fetches, every valid login gets in meanwhile, and the
    event loop is never held for 50 ms."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock):
        app = FastAPI()

        @app.get("/me")
        async def me(user: Annotated[Principal, Depends(auth)]) -> str:
            return user.id

        router = WebSocketRouter(guards=[auth])
        router.add_handler("/ws", WebSocketHandler)
        app.include_router(router)
        flood = [unknown(number) for number in range(1000)]
        good = [first(jti=str(number)) for number in range(100)]
        async with serve(app) as server, aiohttp.ClientSession() as session:

            async def get(text: str) -> int:
                async with session.get(server.http("/me"), headers={"Authorization": f"Bearer {text}"}) as answer:
                    return answer.status

            assert await get(good[0]) == 200
            statuses: list[int] = []
            async with ticking() as held:
                for begin in range(0, 1000, 10):  # few at once: the clients run in the loop that is measured
                    *forged, valid = await asyncio.gather(
                        *(get(text) for text in flood[begin : begin + 10]), get(good[begin // 10])
                    )
                    statuses += forged
                    assert valid == 200
            async with connect(server, "/ws", additional_headers={"Authorization": f"Bearer {good[1]}"}):
                pass
        assert set(statuses) == {401, 503}
        assert issuer.fetches == 1 + UNKNOWN_AT_ONCE
        clock.now += 10
        statuses = [await status_of(auth, text) for text in flood[:10]]
        assert statuses == [401, *[503] * 9]
        assert issuer.fetches == 2 + UNKNOWN_AT_ONCE
        assert held.briefly, held


async def test_a_slow_issuer_holds_nobody_up() -> None:
    """The keys are fetched again before their time is over, and that takes 3 seconds; meanwhile every login gets in
    at once, and the event loop is free. Who comes to a cold cache waits for the 3 seconds."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock), ticking() as held:
        issuer.delay = 3.0
        begin = time.monotonic()
        assert await status_of(auth, first()) == 200
        assert time.monotonic() - begin > 2.9
        clock.now += 250
        issuer.keys = [FIRST, SECOND]
        issuer.asked.clear()
        text = first()
        longest = 0.0
        while time.monotonic() < begin + 20:
            before = time.monotonic()
            assert await status_of(auth, text) == 200
            longest = max(longest, time.monotonic() - before)
            await asyncio.sleep(0.01)
            if issuer.fetches == 2 and not auth_is_fetching():
                break
        assert issuer.fetches == 2
        assert longest < 1
        assert held.briefly, held
        assert await status_of(auth, second()) == 200
        assert issuer.fetches == 2


def auth_is_fetching() -> bool:
    return any(task.get_name() == "wsrouter JWKSet fetch" for task in asyncio.all_tasks())


@dataclass
class Held:
    """How long the event loop was held at most between two looks, in seconds."""

    computing: float = 0.0
    """Of its thread's own CPU: what other processes do meanwhile does not count."""
    waiting: float = 0.0
    """By the clock, which a busy machine stretches; a fetch that blocks would hold it for the issuer's delay."""

    @property
    def briefly(self) -> bool:
        return self.computing < 0.05 and self.waiting < 2


@asynccontextmanager
async def ticking() -> AsyncGenerator[Held]:
    """Measure how long the event loop is held.

    The garbage collector is off meanwhile: it could need as long as what is measured may.
    """
    held = Held()

    async def tick() -> None:
        while True:
            computing, waiting = time.thread_time(), time.monotonic()
            await asyncio.sleep(0.001)
            held.computing = max(held.computing, time.thread_time() - computing)
            held.waiting = max(held.waiting, time.monotonic() - waiting)

    gc.disable()
    task = asyncio.create_task(tick())
    try:
        yield held
    finally:
        task.cancel()
        await asyncio.wait([task])
        gc.enable()


async def test_the_measure_notices_a_loop_that_is_held() -> None:
    """Whether it sleeps or computes."""
    async with ticking() as held:
        await asyncio.sleep(0.02)
        time.sleep(2.1)  # noqa: ASYNC251
        await asyncio.sleep(0.02)
    assert not held.briefly
    async with ticking() as held:
        await asyncio.sleep(0.02)
        begin = time.thread_time()
        while time.thread_time() < begin + 0.2:
            pass
        await asyncio.sleep(0.02)
    assert not held.briefly


GOOD_SET = json.dumps({"keys": [FIRST]}).encode()
NO_SETS: dict[str, dict[str, Any]] = {
    "status 404": {"status": 404},
    "status 204": {"status": 204},
    "status 302": {"status": 302, "headers": {"Location": "/jwks.json"}},
    "compressed": {"headers": {"Content-Encoding": "gzip"}, "body": gzip.compress(GOOD_SET)},
    "larger than": {"body": GOOD_SET + b" " * MAX_BYTES},
    "no JWK set, html": {"body": b"<html><script>steal()</script>"},
    "no JWK set, list": {"body": json.dumps([FIRST]).encode()},
    "no JWK set, null": {"body": b"null"},
    "no JWK set, keys": {"body": b'{"keys": {"first": {}}}'},
    "no JWK set, nested": {"body": b"[" * 100_000},
    "no JWK set, bytes": {"body": b"\xff\xfe\x00"},
    "no JWK set, empty": {"body": b""},
    "no key in it is usable, none": {"keys": []},
    "no key in it is usable, one": {"keys": [{**FIRST, "use": "enc"}]},
}


@pytest.mark.parametrize("why", list(NO_SETS))
async def test_what_is_no_key_set_is_a_failed_fetch(why: str, caplog: pytest.LogCaptureFixture) -> None:
    """The keys that were there stay, the log says why without quoting, and a cold cache is 503."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (warm, clock), authenticating(issuer) as (cold, _):
        assert await status_of(warm, first()) == 200
        vars(issuer).update(NO_SETS[why])
        clock.now += 301
        assert await status_of(warm, first()) == 200
        assert issuer.fetches == 2
        assert await status_of(cold, first()) == 503
        assert issuer.fetches == 3
    texts = [record.getMessage() for record in caplog.records if record.name == "wsrouter"]
    warnings = [text for text in texts if "could not be fetched" in text]
    assert len(warnings) == 2
    assert all(why.partition(",")[0] in text and "script" not in text for text in warnings)


async def test_an_answer_that_drips_is_cut_off() -> None:
    """A fetch has a deadline as a whole, not only between two bytes."""
    async with issuing(FIRST) as issuer, authenticating(issuer, timeout=0.3) as (auth, _):
        issuer.hold = asyncio.Event()
        begin = time.monotonic()
        assert await status_of(auth, first()) == 503
        assert time.monotonic() - begin < 2


def _odd_keys() -> list[Any]:
    weak = rsa.generate_private_key(65537, 1024)
    return [
        None,
        "first",
        7,
        ["kty"],
        {},
        {"kty": "RSA"},
        {"kty": "RSA", "kid": "first", "n": 1, "e": "AQAB"},
        {"kty": "RSA", "kid": "first", "n": "!!", "e": "AQAB"},
        {"kty": 1, "kid": "first"},
        {"kty": ["RSA"], "kid": "first"},
        {"kty": "new", "kid": "first"},
        {**FIRST, "kid": 7},
        {**FIRST, "use": "enc"},
        {**FIRST, "use": 7},
        {**FIRST, "key_ops": ["encrypt"]},
        {**FIRST, "key_ops": "verify"},
        {**FIRST, "alg": "RSA-OAEP"},
        {**FIRST, "alg": "HS256"},
        {**FIRST, "alg": "none"},
        {**FIRST, "alg": 1},
        {"kty": "oct", "kid": "first", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"kty": "EC", "kid": "first", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "first", "crv": "P-999", "x": "AA", "y": "AA"},
        jwk(weak, "RS256", kid="first"),
    ]


async def test_keys_of_no_use_are_ignored() -> None:
    """Encryption keys, secrets, weak and broken ones, and what is no key do not stand in the way of the good one."""
    odd = _odd_keys()
    async with issuing(*odd, FIRST, jwk(EC_KEY, "ES256", kid="ec")) as issuer, authenticating(issuer) as (auth, _):
        assert await status_of(auth, first()) == 200
        assert await status_of(auth, token(EC_KEY, "ES256", {"kid": "ec"})) == 200
        assert await status_of(auth, token("secret" * 5, "HS256", {"kid": "first"})) == 401
        assert issuer.fetches == 1


async def test_keys_beyond_the_bound_are_not_looked_at() -> None:
    """A set of thousands would hold up the others."""
    many = [{**FIRST, "kid": f"k{number}"} for number in range(MAX_KEYS)]
    async with issuing(*many, FIRST) as issuer, authenticating(issuer) as (auth, _):
        assert await status_of(auth, token(RSA_KEY, "RS256", {"kid": f"k{MAX_KEYS - 1}"})) == 200
        assert await status_of(auth, first()) == 401


async def test_a_token_without_a_kid() -> None:
    """It is accepted where only one key can be meant, and never makes it fetch."""
    async with issuing(FIRST, jwk(EC_KEY, "ES256", kid="ec")) as issuer, authenticating(issuer) as (auth, clock):
        assert await status_of(auth, token(RSA_KEY, "RS256")) == 200
        assert await status_of(auth, token(EC_KEY, "ES256")) == 200
        issuer.keys.append(SECOND)
        clock.now += 301
        assert await status_of(auth, token(RSA_KEY, "RS256")) == 401
        assert issuer.fetches == 2


async def test_an_algorithm_that_is_not_listed() -> None:
    """A key of the issuer's is no use with an algorithm that JWTAuth does not accept, or that the key does not name."""
    async with issuing({**FIRST, "alg": "RS256"}, SECOND) as issuer, authenticating(issuer) as (auth, _):
        assert await status_of(auth, token(RSA_KEY, "PS256", {"kid": "first"})) == 401
        assert await status_of(auth, token(OTHER_RSA_KEY, "RS512", {"kid": "second"})) == 401
        assert await status_of(auth, second()) == 200
        assert issuer.fetches == 1


async def test_a_denial_over_a_socket_is_503(caplog: pytest.LogCaptureFixture) -> None:
    """A client reads Retry-After, and nobody is told to sign in again; the log does not have the address's query."""
    caplog.set_level(logging.INFO, "wsrouter")
    keys = JWKSet("http://127.0.0.1:9/jwks?key=hidden", allow_http=True)
    auth = JWTAuth(jwks_url=keys, algorithms=["RS256"])
    app = FastAPI()

    @app.get("/me")
    async def me(user: Annotated[Principal, Depends(auth)]) -> str:
        return user.id

    async with serve(app) as server:
        answer = await request(server, "/me", [("Authorization", f"Bearer {first()}")])
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    await auth.aclose()
    assert "hidden" not in "".join(record.getMessage() for record in caplog.records if record.name == "wsrouter")


def test_it_can_be_used_in_one_loop_after_another() -> None:
    """A module-level authenticator outlives the event loops of tests."""

    async def once(auth: JWTAuth, issuer: Issuer) -> int:
        await issuer.start()
        try:
            return await status_of(auth, first())
        finally:
            await issuer.stop()

    async def start_and_stop(issuer: Issuer) -> None:
        await issuer.start()
        await issuer.stop()

    issuer, clock = Issuer(), Clock()
    issuer.keys = [FIRST]
    asyncio.run(start_and_stop(issuer))
    auth = JWTAuth(jwks_url=JWKSet(issuer.url, allow_http=True, clock=clock), algorithms=["RS256"])
    for _ in range(3):
        assert asyncio.run(once(auth, issuer)) == 200
        clock.now += 301
    assert issuer.fetches == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: JWKSet("http://issuer.example/jwks"), "https"),
        (lambda: JWKSet("issuer.example/jwks"), "expected an address"),
        (lambda: JWKSet("ftp://issuer.example/jwks"), "expected an address"),
        (lambda: JWKSet("https:///jwks"), "expected an address"),
        (lambda: JWKSet("https://issuer.example", lifetime=0), "above zero"),
        (lambda: JWKSet("https://issuer.example", cooldown=-1), "above zero"),
        (lambda: JWKSet("https://issuer.example", timeout=float("nan")), "above zero"),
        (lambda: JWKSet("https://issuer.example", stale=10), "at least lifetime"),
        (lambda: JWTAuth(jwks_url="http://issuer.example", algorithms=["RS256"]), "https"),
        (lambda: JWTAuth(jwks_url="https://issuer.example", algorithms=["HS256"]), "no secret"),
        (lambda: JWTAuth(jwks_url="https://issuer.example", key="x", algorithms=["RS256"]), "either"),
        (lambda: JWTAuth(algorithms=["RS256"]), "either"),
    ],
)
def test_an_address_that_can_not_be_meant_is_refused(make: Callable[[], object], match: str) -> None:
    """When it is configured, with what to write instead."""
    with pytest.raises(ConfigurationError, match=match):
        make()


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lacks the package reads what to install."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigurationError, match=r"pip install wsrouter-fastapi\[jwks\]"):
        JWKSet("https://issuer.example/jwks")


async def test_the_background_fetch_is_waited_for_by_nobody() -> None:
    """A login in the last fifth of the lifetime starts it and goes on; it is done when it is done."""
    async with issuing(FIRST) as issuer, authenticating(issuer) as (auth, clock):
        assert await status_of(auth, first()) == 200
        issuer.hold = asyncio.Event()
        clock.now += 241
        assert await status_of(auth, first()) == 200
        issuer.hold.set()
        await eventually(lambda: issuer.fetches == 2 and not auth_is_fetching())
