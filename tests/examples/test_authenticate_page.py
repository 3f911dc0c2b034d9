"""The JavaScript of the page on authentication does in a browser what the page says."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.responses import HTMLResponse
from playwright.async_api import Page, WebSocket, async_playwright
from starlette.types import Receive, Scope, Send

from tests.examples.browsing import chromium
from tests.support import serve
from tests.test_docs import blocks_of

pytestmark = pytest.mark.browser

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "authenticate.md"

HELLO = """
const hello = ws => new Promise((resolve, reject) => {
  ws.onopen = () => ws.send('{"type": "hello", "id": 1}')
  ws.onmessage = event => resolve(JSON.parse(event.data).data)
  ws.onclose = event => reject(new Error(`closed with ${event.code}`))
})
const events = ws => new Promise(resolve => {
  const seen = []
  ws.onopen = () => seen.push("open")
  ws.onerror = () => seen.push("error")
  ws.onclose = event => resolve([...seen, event.code, event.reason])
})
"""


def scripts(text: str) -> dict[str, str]:
    """Return the JavaScript of the page: mapping of the section's heading to its blocks, joined."""
    python = text.replace("```python", "```other").replace("```js", "```python").replace(" file=socket.js", "")
    headings = [(number, line.lstrip("# ")) for number, line in enumerate(text.splitlines(), 1) if line.startswith("#")]
    found: dict[str, str] = {}
    for block in blocks_of(PAGE, python):
        heading = max((number, name) for number, name in headings if number < block.line)[1]
        found[heading] = found.get(heading, "") + block.source
    return found


class Application:
    """The application of the page, whose origin is known only when its server runs."""

    def __init__(self) -> None:
        self.page = ModuleType("app")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.page.app(scope, receive, send)

    def begin(self, origin: str) -> None:
        source = "".join(block.source for block in blocks_of(PAGE, PAGE.read_text("utf-8")) if block.file == "app.py")
        exec(source.replace("https://app.example", origin), vars(self.page))

        async def page() -> HTMLResponse:
            return HTMLResponse("<!doctype html><title>a page</title>")

        self.page.app.add_api_route("/", page)
        self.page.app.add_api_route("/issue", self.page.issue, methods=["POST"])


class Browsing:
    """A page of the application, open in a browser."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self._server = origin.replace("http", "ws", 1)
        self.scripts = {
            heading: source.replace("wss://app.example", self._server)
            for heading, source in scripts(PAGE.read_text("utf-8")).items()
        }

    async def run(self, source: str) -> Any:
        """Return what a body of JavaScript returns."""
        body = (HELLO + source).replace("SERVER", self._server)
        async with asyncio.timeout(20):
            return await self.page.evaluate(f"async () => {{ {body} }}")


@asynccontextmanager
async def browsing() -> AsyncGenerator[Browsing]:
    executable = chromium()
    application = Application()
    async with serve(application, lifespan="off") as server, async_playwright() as playwright:
        origin = server.http("")
        application.begin(origin)
        browser = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(origin + "/")
        yield Browsing(page, origin)
        await browser.close()


async def test_each_source_lets_a_page_in() -> None:
    """Cookie, subprotocol, ticket and query, as the page prints them."""
    async with browsing() as browser:
        token = browser.scripts["Subprotocol"].splitlines()[0] + "\n"
        for source, before in {"Cookie": "", "Subprotocol": "", "Ticket": token, "Query": token}.items():
            said = await browser.run(f"{before}{browser.scripts[source]}\nreturn hello(ws)")
            assert said == "hello ada", source


async def test_what_a_page_learns_of_a_denial() -> None:
    """With ``http`` nothing but 1006 and no ``open``; with ``auto`` it is opened, and told code and reason."""
    async with browsing() as browser:
        seen = await browser.run('return events(new WebSocket("SERVER/services"))')
        assert seen == ["error", 1006, ""]
        seen = await browser.run('return events(new WebSocket("SERVER/pages", ["wsrouter.v1"]))')
        assert seen == ["open", 4401, "A token is needed"]


async def test_a_client_that_stays_signed_in() -> None:
    """An expired token is replaced at once, a fresh one is sent before its end, and no token at all is the end."""
    async with browsing() as browser:
        frames: list[tuple[str, Any]] = []
        renewed = asyncio.Event()

        def received(frame: str | bytes) -> None:
            frames.append(("<", json.loads(frame)))
            renewed.set()

        def opened(ws: WebSocket) -> None:
            ws.on("framesent", lambda frame: frames.append((">", json.loads(frame))))
            ws.on("framereceived", received)

        browser.page.on("websocket", opened)
        await browser.page.clock.install()
        client = browser.scripts["Stay signed in"].split("const stop =")[0]
        await browser.run(
            client
            + """
            const lasts = [-60, 300, 300]
            window.letIn = new Promise(resolve => { window.opened = resolve })
            window.over = new Promise(resolve => {
              const stop = stayConnected("SERVER/pages", {
                getToken: async () => {
                  if (!lasts.length) return null
                  return (await fetch(`/issue?user=ada&lasts=${lasts.shift()}`, {method: "POST"})).json()
                },
                onopen: ws => { window.ws = ws; if (lasts.length === 1) window.opened() },
                onmessage: message => {},
                onend: (code, reason) => resolve(code),
              })
            })
            """
        )
        await browser.run("await window.letIn")
        await browser.page.clock.fast_forward(239_000)
        assert frames == []
        await browser.page.clock.fast_forward(2_000)
        await asyncio.wait_for(renewed.wait(), 10)
        (_, sent), answer = frames
        assert (sent["type"], sent["id"]) == ("$auth", "auth")
        assert answer == ("<", {"type": "$ok", "id": "auth"})
        await browser.page.evaluate("ws.close()")
        assert await browser.page.evaluate("window.over") == 4401
