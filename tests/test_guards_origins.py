"""`AllowOrigins` against what clients may write, over real servers."""

import logging
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import Cookie, Depends, FastAPI
from starlette.requests import HTTPConnection

from tests.origin_cases import ALLOWED, CASES, Case, Outcome
from tests.support import Server, serve
from tests.wire import RawClient, status_of
from wsrouter import ConfigurationError, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Authenticator
from wsrouter.guards import AllowOrigins
from wsrouter.identity import AMBIENT

SERVERS: list[tuple[Literal["uvicorn", "hypercorn"], dict[str, Any]]] = [
    ("uvicorn", {"ws": "websockets-sansio", "http": "httptools"}),
    ("uvicorn", {"ws": "wsproto", "http": "h11"}),
    ("hypercorn", {}),
]
each_server = pytest.mark.parametrize(("server_name", "options"), SERVERS, ids=["sansio", "wsproto", "hypercorn"])


def application(*guards: Any, reject: Literal["http", "close"] = "http") -> FastAPI:
    """One handler behind guards."""
    router = WebSocketRouter(guards=guards, reject=reject)
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    return app


async def cookies_sign_in(connection: HTTPConnection) -> None:
    """Say, as the session does for an ambient authenticator, that browsers attach the credential by themselves."""
    connection.scope[AMBIENT] = True


async def answer_to(server: Server, case: Case) -> Outcome:
    headers = [("Origin", value) for value in case.values]
    async with RawClient(server) as client:
        match await client.handshake(headers=headers):
            case 101:
                return "in"
            case 403:
                return "out"
            case _:
                return "refused"


@each_server
async def test_the_table_of_origins(
    server_name: Literal["uvicorn", "hypercorn"], options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of everything that a client may write only the listed origins get in, however a server hands it over."""
    caplog.set_level(logging.DEBUG, "wsrouter")
    app = application(AllowOrigins(*ALLOWED))
    async with serve(app, server=server_name, **options) as server:
        answers = {case.what: await answer_to(server, case) for case in CASES}
        # No server that denied others let this one go, so what was denied was denied for its origin.
        assert await status_of(server, headers=[("Origin", "https://app.example")]) == 101
    wrong = {
        case.what: answers[case.what]
        for case in CASES
        if answers[case.what] != case.outcome
        and not (case.outcome == "refused" and answers[case.what] == "out")
        and not (case.outcome == "out" and answers[case.what] == "refused" and server_name != "uvicorn")
    }
    assert wrong == {}
    assert "in" in answers.values()
    assert "evil" not in caplog.text


def test_the_table_is_long_enough() -> None:
    """At least forty hostile origins are in it, each once."""
    assert sum(case.outcome != "in" for case in CASES) >= 40
    assert len({case.what for case in CASES}) == len({case.values for case in CASES}) == len(CASES)


async def test_the_client_s_text_is_not_repeated() -> None:
    """The denial says that the origin is not allowed, not which one it was."""
    async with serve(application(AllowOrigins("https://app.example"))) as server, RawClient(server) as client:
        assert await client.handshake(headers=[("Origin", "https://hunter2.example")]) == 403
        body = await client.end()
    assert b"hunter2" not in client.head + body
    assert b"This origin is not allowed" in body


async def test_null_only_where_it_is_listed() -> None:
    """A page without an origin is admitted by the word null, in lower case, and by nothing else."""
    async with serve(application(AllowOrigins("null", "https://app.example"))) as server:
        assert await status_of(server, headers=[("Origin", "null")]) == 101
        assert await status_of(server, headers=[("Origin", "https://app.example")]) == 101
        assert await status_of(server, headers=[("Origin", "Null")]) == 403
        assert await status_of(server, headers=[("Origin", "https://null")]) == 403


@pytest.mark.parametrize(
    ("missing", "ambient", "status"),
    [
        (None, False, 101),
        (None, True, 403),
        (True, False, 101),
        (True, True, 101),
        (False, False, 403),
        (False, True, 403),
    ],
)
async def test_a_missing_origin(missing: bool | None, ambient: bool, status: int) -> None:
    """Without missing= a request without Origin is admitted where no cookie signs in, and denied where one does."""
    guards: list[Any] = [AllowOrigins("https://app.example", missing=missing)]
    if ambient:
        guards.insert(0, cookies_sign_in)
    async with serve(application(*guards)) as server:
        assert await status_of(server) == status
        assert await status_of(server, headers=[("Origin", "https://app.example")]) == 101
        assert await status_of(server, headers=[("Origin", "")]) == 403


class SessionCookie(Authenticator):
    ambient = True

    async def __call__(self, session: Annotated[str, Cookie()] = "") -> str:
        return session


async def test_where_a_cookie_signs_in_the_origin_has_to_be_there() -> None:
    """With an authenticator that is ambient, the default denies a request without Origin, wherever the guard stands."""
    for guards in ([AllowOrigins("https://app.example"), SessionCookie()], [SessionCookie(), AllowOrigins("null")]):
        async with serve(application(*guards)) as server:
            assert await status_of(server, headers=[("Cookie", "session=ada")]) == 403
            allowed = "https://app.example" if isinstance(guards[0], AllowOrigins) else "null"
            headers = [("Cookie", "session=ada"), ("Origin", allowed)]
            assert await status_of(server, headers=headers) == 101


async def test_a_denied_page_gets_a_close_code_where_it_is_asked_for() -> None:
    """With reject="close" a foreign page is accepted and closed with 4403."""
    app = application(AllowOrigins("https://app.example"), reject="close")
    async with serve(app) as server, RawClient(server) as client:
        assert await client.handshake(headers=[("Origin", "https://evil.example")]) == 101
        assert await client.close_code() == 4403


async def test_it_guards_http_routes_too() -> None:
    """The same object is a dependency of an HTTP route, with the same outcome."""
    guard = AllowOrigins("https://app.example")
    app = application(guard)

    @app.post("/")
    async def change(allowed: Annotated[None, Depends(guard)]) -> str:
        return "changed"

    async with serve(app) as server, httpx.AsyncClient(trust_env=False, verify=server.trust or True) as client:
        good = await client.post(server.http(), headers={"Origin": "https://app.example"})
        bad = await client.post(server.http(), headers={"Origin": "https://evil.example"})
    assert (good.status_code, good.json()) == (200, "changed")
    assert (bad.status_code, bad.json()) == (403, {"detail": "This origin is not allowed"})


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example",
        "https://",
        "https://app.example/",
        "https://app.example/chat",
        "https://app.example.",
        "https://app.example:",
        "https://app.example:99999",
        "https://user@app.example",
        "https://app.*.example",
        "https://a*.app.example",
        "https://*",
        "https://*.*.app.example",
        "https://*.192.0.2.7",
        "https://192.0.2",
        "https://bü cher.example",
        "https://-bücher.example",
        "https://user@bücher.example",
        "Null",
    ],
)
def test_what_is_no_origin_is_refused_at_configuration(origin: str) -> None:
    """A mistake in a list of origins is reported when the guard is made, with an example of what is right."""
    with pytest.raises(ConfigurationError, match=r"https://app\.example"):
        AllowOrigins(origin)


@pytest.mark.parametrize(
    ("origins", "cure"),
    [
        ((), "name at least one origin"),
        (("*",), "leave the guard out"),
        (("wss://app.example",), "write 'https://app.example'"),
        (("ws://*.app.example",), r"write 'http://\*.app.example'"),
    ],
)
def test_common_mistakes_name_their_cure(origins: tuple[str, ...], cure: str) -> None:
    """No origin, a wildcard for all and the address of the socket are refused with what to write instead."""
    with pytest.raises(ConfigurationError, match=cure):
        AllowOrigins(*origins)


def test_it_is_recognised_by_a_trait() -> None:
    """The start-up check goes by an attribute, so that a guard of the application's own can have it."""
    assert AllowOrigins.checks_origin
    assert AllowOrigins("https://app.example").checks_origin
