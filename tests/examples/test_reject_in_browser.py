"""What a page in Chromium learns of a handshake that is denied, in each mode of ``reject=``."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, Page

from tests.examples.browsing import serve_in_thread
from wsrouter import Deny, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Cookie, JWTAuth, Query, Subprotocol
from wsrouter.chain import Reject
from wsrouter.guards import AllowOrigins

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

SECRET = "a secret of at least thirty-two bytes"

CONNECT = """([url, protocols]) => new Promise((resolve) => {
    const events = [];
    const socket = new WebSocket(url, protocols);
    socket.onopen = () => events.push("open");
    socket.onmessage = () => events.push("message");
    socket.onerror = () => events.push("error");
    socket.onclose = ({ code, reason, wasClean }) => resolve({ events, code, reason, wasClean });
})"""


def jwt_auth(*sources: Any) -> JWTAuth:
    return JWTAuth(key=SECRET, algorithms=["HS256"], sources=[*sources])


async def too_many(connection: HTTPConnection) -> None:
    raise Deny(429, reason="Come back later", headers={"Retry-After": "5"})


class Never(WebSocketHandler):
    """A handler behind guards that let nobody in."""

    def __init__(self) -> None:
        raise AssertionError("a handler was made for a connection that was denied")


class AnyOrigin:
    """Stands in for `AllowOrigins` where another guard is what denies."""

    checks_origin = True

    async def __call__(self) -> None: ...


GUARDS: dict[str, list[Callable[..., Any]]] = {
    "no-credential": [AnyOrigin(), jwt_auth(Cookie("token"))],
    "bad-credential": [jwt_auth(Query("token"))],
    "bad-subprotocol": [jwt_auth(Subprotocol())],
    "another-origin": [AllowOrigins("https://app.example")],
    "too-many": [too_many],
}
CLOSES: dict[str, tuple[int, str]] = {
    "no-credential": (4401, "A token is needed"),
    "bad-credential": (4401, "The token is not valid"),
    "bad-subprotocol": (4401, "The token is not valid"),
    "another-origin": (4403, "This origin is not allowed"),
    "too-many": (4529, "Come back later"),
}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page on the server whose handlers deny everybody."""
    app = FastAPI()
    modes: tuple[Reject, ...] = ("http", "close", "auto")
    for mode in modes:
        for name, guards in GUARDS.items():
            router = WebSocketRouter(prefix=f"/{mode}", guards=guards, reject=mode)
            router.add_handler(f"/{name}", Never)
            app.include_router(router)

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse("<title>Here</title>")

    with serve_in_thread(app) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
        page.close()


def outcome(page: Page, mode: Reject, name: str) -> dict[str, Any]:
    """Connect from the page, and return what it saw."""
    query = "?token=a.b.c" if name == "bad-credential" else ""
    protocols = ["wsrouter.v1", "bearer.a.b.c"] if name == "bad-subprotocol" else []
    url = page.url.replace("http", "ws") + f"{mode}/{name}{query}"
    seen: dict[str, Any] = page.evaluate(CONNECT, [url, protocols])
    return seen


@pytest.mark.parametrize("name", GUARDS)
def test_http_shows_an_error_and_1006(page: Page, name: str) -> None:
    """Status, headers and body are for other clients: the page sees neither why nor whether to try again."""
    assert outcome(page, "http", name) == {"events": ["error"], "code": 1006, "reason": "", "wasClean": False}


@pytest.mark.parametrize("mode", ["close", "auto"])
@pytest.mark.parametrize("name", GUARDS)
def test_close_and_auto_show_code_and_reason(page: Page, mode: Reject, name: str) -> None:
    """The page sees an open connection that is closed at once, without a message; browsers always send an origin."""
    code, reason = CLOSES[name]
    assert outcome(page, mode, name) == {"events": ["open"], "code": code, "reason": reason, "wasClean": True}
