"""Hostile credentials over real sockets: none gets in, each has one outcome, and nobody quotes it."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI

from tests.auth.handshakes import Answer, handshake
from tests.auth.hostile_cases import CASES, MARK, Case, Outcome
from tests.auth.tokens import EC_KEY, ISSUER, RSA_KEY, SECRET, jwk, pem, token
from tests.support import serve
from wsrouter import WebSocketHandler, WebSocketRouter
from wsrouter.auth import Cookie, Header, JWTAuth, Query, Subprotocol, Ticket
from wsrouter.guards import AllowOrigins

CHALLENGES: dict[Outcome, str] = {
    "none": "Bearer",
    "bad": 'Bearer error="invalid_token"',
    "expired": 'Bearer error="invalid_token", error_description="The token has expired"',
}


class Built:
    """How many handlers were made."""

    def __init__(self) -> None:
        self.count = 0


def application(built: Built) -> FastAPI:
    """One handler behind authenticators of several sorts."""

    class Quiet(WebSocketHandler):
        def __init__(self) -> None:
            built.count += 1

    keys = {"rsa": jwk(RSA_KEY, "RS256", alg="RS256"), "ec": pem(EC_KEY)}
    every = [Header(), Cookie("session"), Subprotocol(), Query("token"), Ticket()]
    authenticators: dict[str, JWTAuth] = {
        "/secret": JWTAuth(key=SECRET, algorithms=["HS256"], sources=every),
        "/rsa": JWTAuth(key=pem(RSA_KEY), algorithms=["RS256"]),
        "/ec": JWTAuth(key=pem(EC_KEY), algorithms=["ES256"]),
        "/kids": JWTAuth(key=keys, algorithms=["RS256", "ES256"]),
        "/strict": JWTAuth(
            key=SECRET,
            algorithms=["HS256"],
            audience="chat",
            issuer=ISSUER,
            types=["JWT"],
            require=["exp", "iat", "sub"],
            max_lifetime=3600,
        ),
    }
    app = FastAPI()
    for prefix, auth in authenticators.items():
        router = WebSocketRouter(prefix=prefix, guards=[AllowOrigins("https://app.example", missing=True), auth])
        router.add_handler("", Quiet)
        app.include_router(router)
    return app


def pieces(credential: str) -> list[str]:
    """Return what is not to be found again of a credential: itself, and each long part of it."""
    return [piece for piece in (credential, *credential.split(".")) if len(piece) > 12]


OURS = "wsrouter.uvicorn:WebSocketProtocol"
SERVERS = [case for case in CASES if case.outcome == "server"]


@pytest.mark.logs_errors
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_hostile_credential_does_not_get_in(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """Each is denied before accept with its one outcome; no answer and no log line has it, even at DEBUG."""
    await denied(case, caplog)


@pytest.mark.logs_errors
@pytest.mark.parametrize("case", SERVERS, ids=[case.name for case in SERVERS])
async def test_what_the_server_answers_itself_quotes_nothing_on_our_class(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    """A handshake that never reaches the application is answered without what was in it.

    uvicorn's own class answers a malformed ``Sec-WebSocket-Protocol`` with the header, to whoever sent it.
    """
    answer, secrets = await denied(case, caplog, OURS)
    assert_not_in(answer.raw.decode("latin-1"), secrets)


async def denied(case: Case, caplog: pytest.LogCaptureFixture, ws: str | None = None) -> tuple[Answer, list[str]]:
    """Check that a case is denied, and return the answer with what is not to be found again."""
    built = Built()
    good, bad = token(mark=MARK), token(SECRET[::-1], mark=MARK)
    filled = {"{good}": good, "{bad}": bad}
    headers: list[tuple[str, str | bytes]] = [(name, fill(value, filled)) for name, value in case.headers]
    secrets = pieces(good) + pieces(bad)
    if case.credential is not None:
        credential = case.credential()
        headers.append(("Authorization", f"Bearer {credential}"))
        secrets += pieces(credential)
    query = str(fill(case.query, filled))
    caplog.set_level(logging.DEBUG)
    async with serve(application(built), ws=ws) as server:
        try:
            answer = await handshake(server, case.path + (f"?{query}" if query else ""), headers)
        except ConnectionError:
            answer = Answer(400, {}, b"", b"")
    assert built.count == 0
    if case.outcome == "server":
        assert answer.status in (400, 401)
    else:
        assert (answer.status, answer.headers.get("www-authenticate")) == (401, CHALLENGES[case.outcome])
        assert_not_in(answer.raw.decode("latin-1"), secrets)
    assert "sec-websocket-protocol" not in answer.headers
    lines = [logging.Formatter().format(record) for record in caplog.records]
    assert lines
    for line in lines:
        assert_not_in(line, secrets)
    return answer, secrets


def fill(value: Any, filled: dict[str, str]) -> Any:
    """Put tokens into a header or a query."""
    if isinstance(value, str):
        for name, text in filled.items():
            value = value.replace(name, text)
    return value


def assert_not_in(text: str, secrets: list[str]) -> None:
    assert [secret for secret in secrets if secret in text] == []
    assert "\x1b" not in text
    assert "<script>" not in text


GOOD = [
    Case("a header", "/secret", "none", token),
    Case("an RSA key", "/rsa", "none", lambda: token(RSA_KEY, "RS256")),
    Case("an EC key", "/ec", "none", lambda: token(EC_KEY, "ES256")),
    Case("an RSA key by kid", "/kids", "none", lambda: token(RSA_KEY, "RS256", {"kid": "rsa"})),
    Case("an EC key by kid", "/kids", "none", lambda: token(EC_KEY, "ES256", {"kid": "ec"})),
    Case("all claims", "/strict", "none", lambda: token(aud=["chat", "x"], iss=ISSUER, nbf=0, jti="1")),
    Case("a header in lower case", "/secret", "none", None, [("authorization", "bearer  {good}")]),
    Case("a cookie", "/secret", "none", None, [("Cookie", "a=1; session={good}; b=2")]),
    Case("a scheme not ours", "/secret", "none", None, [("Authorization", "Basic YTpi"), ("Cookie", "session={good}")]),
    Case("a subprotocol", "/secret", "none", None, [("Sec-WebSocket-Protocol", "wsrouter.v1, bearer.{good}")]),
    Case("a subprotocol alone", "/secret", "none", None, [("Sec-WebSocket-Protocol", "BEARER.{good}")]),
    Case("empty elements", "/secret", "none", None, [("Sec-WebSocket-Protocol", "wsrouter.v1,,bearer.{good},")]),
    Case("a parameter", "/secret", "none", None, query="x=1&%74oken={good}"),
]  # fmt: skip


@pytest.mark.parametrize("case", GOOD, ids=[case.name for case in GOOD])
async def test_the_same_applications_let_good_credentials_in(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """What the hostile ones are held against; here too no log line has the token, and none is echoed."""
    built = Built()
    good = token() if case.credential is None else case.credential()
    headers: list[tuple[str, str | bytes]] = [(name, fill(value, {"{good}": good})) for name, value in case.headers]
    if case.credential is not None:
        headers.append(("Authorization", f"Bearer {good}"))
    query = str(fill(case.query, {"{good}": good}))
    caplog.set_level(logging.DEBUG)
    async with serve(application(built)) as server:
        answer = await handshake(server, case.path + (f"?{query}" if query else ""), headers)
    assert (answer.status, built.count) == (101, 1)
    assert answer.headers.get("sec-websocket-protocol") in (None, "wsrouter.v1")
    for record in caplog.records:
        assert_not_in(logging.Formatter().format(record), pieces(good))


def test_there_are_enough_of_them() -> None:
    """The table has no case twice, and more than a hundred and fifty."""
    assert len({case.name for case in CASES}) == len(CASES) >= 150
