"""A page that is reloaded in Chromium, as the others in a room with presence see it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, Page, expect
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_sync

from tests.examples.browsing import serve_in_thread
from wsrouter import CloseInfo, Connection, Hub, RoomOptions, WebSocketHandler, WebSocketRouter

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

PAGE = """<!doctype html><title>Desk</title><output></output><script>
    const socket = new WebSocket(`ws://${location.host}/desk?name=bob`);
    socket.onmessage = ({ data }) => { document.querySelector("output").textContent = JSON.parse(data).type; };
</script>"""


@dataclass
class User:
    id: str


async def named(connection: Connection, name: str) -> None:
    connection.scope["user"] = User(name)


@dataclass
class Place:
    port: int
    closes: list[CloseInfo] = field(default_factory=list[CloseInfo])


@pytest.fixture
def place() -> Iterator[Place]:
    """Yield a server with a page whose visitor is in a room with presence."""
    closes: list[CloseInfo] = []

    class Desk(WebSocketHandler):
        async def on_connect(self) -> None:
            await self.join("desk")

        async def on_disconnect(self, close: CloseInfo) -> None:
            if self.user.id == "bob":
                closes.append(close)

    router = WebSocketRouter(guards=[named], hub=Hub(rooms={"desk": RoomOptions(presence=True)}))
    router.add_handler("/desk", Desk)
    app = FastAPI()
    app.include_router(router)

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(PAGE)

    with serve_in_thread(app) as port:
        yield Place(port, closes)


def diffs(watcher: ClientConnection, *, some: bool) -> list[Any]:
    """Return what is told of others until nothing has come for half a second.

    Args:
        watcher: who is told.
        some: whether something is waited for.
    """
    told: list[Any] = []
    try:
        while True:
            data = json.loads(watcher.recv(timeout=15 if some and not told else 0.5))["data"]
            told += [(change, user) for change in ("join", "leave") for user in data.get(change, ()) if user == "bob"]
    except TimeoutError:
        return told


def settled(page: Page) -> None:
    """Wait until the page was told of itself, a tenth of a second after it joined."""
    expect(page.locator("output")).to_have_text("$presence_diff")


def test_a_reload_is_no_leave_and_join(browser: Browser, place: Place) -> None:
    """Chromium says 1001 when a page is reloaded, so its visitor stays; 1000 of a page that says goodbye is told."""
    page = browser.new_page()
    with connect_sync(f"ws://127.0.0.1:{place.port}/desk?name=watcher", proxy=None) as watcher:
        page.goto(f"http://127.0.0.1:{place.port}/")
        settled(page)
        assert diffs(watcher, some=True) == [("join", "bob")]
        for _ in range(2):
            page.reload()
            expect(page.locator("output")).to_have_text("$presence")  # it is on the list that it gets
        assert diffs(watcher, some=False) == []
        assert [(close.code, close.by) for close in place.closes] == [(1001, "client")] * 2
        page.evaluate("socket.close(1000)")
        assert diffs(watcher, some=True) == [("leave", "bob")]
    page.close()
