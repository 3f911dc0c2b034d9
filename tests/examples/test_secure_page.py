"""The page of ``examples/secure`` in headless Chromium, against the example as its command starts it."""

import math
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal, Protocol

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, WebSocketRoute, expect

from tests.examples.browsing import DESK, PHONE, Demo, serve_in_thread, stop_clock

SOCKETS = re.compile(r"/ws/board")
PASSWORDS = {"rosa": "rosa reads", "walt": "walt writes", "ada": "ada administers"}

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Demo]]:
    """Yield what starts the example with some arguments; each set of arguments has one process."""
    started: dict[tuple[str, ...], Demo] = {}

    def start(*arguments: str) -> Demo:
        demo = started.get(arguments)
        if demo is None:
            demo = started[arguments] = Demo("examples.secure", tmp_path_factory.mktemp("secure"), *arguments)
        if not demo.runs:
            demo.start()
        return demo

    with ExitStack() as stack:
        yield start
        for demo in started.values():
            stack.callback(demo.close)
            demo.end(signal.SIGTERM)
        assert [demo.log() for demo in started.values()] == [""] * len(started)


@pytest.fixture
def demo(demos: Callable[..., Demo]) -> Demo:
    """The example with tokens of a minute."""
    return demos()


@pytest.fixture
def hasty(demos: Callable[..., Demo]) -> Demo:
    """The example with tokens of four seconds."""
    return demos("--token-seconds", "4", "--grace-seconds", "2")


class Visitor:
    """Somebody at the page."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.state = page.locator("#state")
        self.problem = page.locator("#problem")
        self.entrance_error = page.locator("#entrance-error")
        self.notices = page.locator("#notices .text")
        self.events = page.locator("#events li span")
        self.credential = page.locator("#credential")
        self.id = page.locator("#connection-id")
        self.urls: list[str] = []
        page.on("websocket", lambda socket: self.urls.append(socket.url))

    def open(self) -> None:
        self.page.goto(self.address)

    def sign_in(self, name: str, password: str | None = None) -> None:
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password or PASSWORDS[name])
        self.button("Sign in").click()

    def is_online(self) -> str:
        """Wait until the page is connected, and return the id of the connection."""
        expect(self.state).to_have_text("Online")
        expect(self.id).to_have_text(re.compile("[0-9a-f]{24}"))
        return self.id.inner_text()

    def is_at_the_entrance(self, error: str | re.Pattern[str]) -> None:
        expect(self.entrance_error).to_be_visible()
        expect(self.entrance_error).to_have_text(error)
        expect(self.page.locator("#app")).to_be_hidden()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def another_tab(self) -> "Visitor":
        tab = Visitor(self.page.context.new_page(), self.address)
        tab.open()
        return tab

    def fits(self) -> bool:
        overflowing: list[str] = self.page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll(".card, li, header, main, .banner")]
                .filter((element) => element.scrollWidth > element.clientWidth + 1)
                .map((element) => element.tagName)"""
        )
        return overflowing == []


class Enter(Protocol):
    """Open the page in a browser of its own, and sign in if a name is given."""

    def __call__(
        self,
        name: str = "",
        *,
        at: Demo | None = None,
        size: ViewportSize = ...,
        scheme: Literal["light", "dark"] = ...,
        before: Callable[[Page], object] | None = None,
    ) -> Visitor: ...


@pytest.fixture
def enter(browser: Browser, demo: Demo) -> Iterator[Enter]:
    """Yield a way in, and check at the end that no page had an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(
        name: str = "",
        *,
        at: Demo | None = None,
        size: ViewportSize = DESK,
        scheme: Literal["light", "dark"] = "light",
        before: Callable[[Page], object] | None = None,
    ) -> Visitor:
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if before is not None:
            before(page)
        visitor = Visitor(page, f"http://127.0.0.1:{(at or demo).port}/")
        visitor.open()
        if name:
            visitor.sign_in(name)
            visitor.is_online()
        return visitor

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def test_a_wrong_password_is_told_and_the_right_one_lets_in(enter: Enter) -> None:
    """The error is at the form, which keeps the name; a reload stays signed in."""
    rosa = enter()
    rosa.sign_in("rosa", "guessed")
    rosa.is_at_the_entrance("Name or password is wrong.")
    expect(rosa.page.get_by_label("Name")).to_have_value("rosa")
    expect(rosa.page.get_by_label("Password")).to_be_focused()
    rosa.sign_in("rosa")
    rosa.is_online()
    expect(rosa.page.locator("#who")).to_have_text("Signed in as rosa")
    expect(rosa.notices.first).to_be_visible()
    rosa.page.reload()
    rosa.is_online()


def test_the_accounts_of_the_demonstration_are_offered(enter: Enter) -> None:
    """One click fills in the form, and another signs in."""
    ada = enter()
    ada.button("Use ada").click()
    expect(ada.button("Sign in")).to_be_focused()
    ada.page.keyboard.press("Enter")
    ada.is_online()
    expect(ada.page.locator("#accounts li")).to_have_count(3)


def test_cookie_and_ticket_can_be_switched(enter: Enter) -> None:
    """Each makes a connection of its own; no token is in an address, in storage, or where scripts see cookies."""
    rosa = enter("rosa")
    expect(rosa.credential).to_have_text("cookie")
    with_cookie = rosa.is_online()
    rosa.page.get_by_label("Ticket").check()
    expect(rosa.credential).to_have_text("ticket")
    with_ticket = rosa.is_online()
    rosa.page.get_by_label("Cookie").check()
    expect(rosa.credential).to_have_text("cookie")
    assert len({with_cookie, with_ticket, rosa.is_online()}) == 3
    queries = [url.partition("?")[2] for url in rosa.urls]
    assert [query[:7] for query in queries] == ["", "ticket=", ""]
    assert "." not in queries[1]
    kept = rosa.page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]")
    assert kept == ["", 0, 0]


@pytest.mark.parametrize("flow", ["Cookie", "Ticket"])
def test_the_token_is_renewed_on_the_open_connection(enter: Enter, hasty: Demo, flow: str) -> None:
    """Three times, which is longer than the first token lives, and the connection is still the same."""
    rosa = enter("rosa", at=hasty)
    rosa.page.get_by_label(flow).check()
    expect(rosa.credential).to_have_text(flow.lower())
    before = rosa.is_online()
    renewed = rosa.events.filter(has_text="Token renewed on the open connection")
    expect(renewed).to_have_count(3)
    expect(rosa.page.locator("#seconds")).to_have_text(re.compile("[1-4] s left"))
    assert rosa.is_online() == before
    expect(rosa.events.filter(has_text="Closed")).to_have_count(0)


def test_a_token_that_is_not_renewed_ends_the_connection(enter: Enter, hasty: Demo) -> None:
    """The server closes with 4519; the page fetches a fresh one and is back on another connection."""
    rosa = enter("rosa", at=hasty)
    before = rosa.is_online()
    rosa.page.get_by_label("Renew the token").uncheck()
    expect(rosa.events.filter(has_text="(4519)").first).to_be_visible()
    expect(rosa.id).not_to_have_text(before)
    assert rosa.is_online() != before


def test_a_page_that_can_fetch_no_token_keeps_trying(enter: Enter, hasty: Demo) -> None:
    """It is closed with 4519, offline while there is no way to a fresh one, and back when there is."""
    rosa = enter("rosa", at=hasty)
    rosa.page.route("**/api/token", lambda route: route.abort())
    expect(rosa.events.filter(has_text="(4519)")).to_be_visible()
    expect(rosa.state).to_have_text("Offline")
    expect(rosa.page.locator("#countdown")).to_contain_text("Trying again in")
    rosa.page.unroute("**/api/token")
    rosa.is_online()


def test_signing_out_everywhere_reaches_every_tab_and_device(enter: Enter) -> None:
    """Each shows the sign-in form at once and says why; another user stays."""
    rosa, phone, walt = enter("rosa"), enter("rosa", size=PHONE), enter("walt")
    tab = rosa.another_tab()
    tab.is_online()
    rosa.button("Sign out everywhere").click()
    rosa.is_at_the_entrance("You are signed out.")
    for other in (tab, phone):
        other.is_at_the_entrance("You were signed out everywhere.")
        other.page.reload()
        expect(other.page.get_by_label("Password")).to_be_visible()
    walt.is_online()


def test_signing_out_reaches_the_other_tabs_of_this_browser(enter: Enter) -> None:
    """Within seconds; the same user on another device stays."""
    rosa, phone = enter("rosa"), enter("rosa", size=PHONE)
    tab = rosa.another_tab()
    tab.is_online()
    rosa.button("Sign out").click()
    rosa.is_at_the_entrance("You are signed out.")
    tab.is_at_the_entrance("You were signed out.")
    phone.is_online()


def test_an_administrator_may_and_a_reader_may_not(enter: Enter) -> None:
    """The reader is told `forbidden`, and stays connected; what the administrator does is seen by all."""
    rosa, ada = enter("rosa"), enter("ada")
    rosa.button("Take all down").click()
    expect(rosa.problem).to_contain_text("forbidden: This needs more rights than you have")
    rosa.button("Dismiss").click()
    expect(rosa.problem).to_be_hidden()
    rosa.page.get_by_label("New notice").fill("Hello")
    rosa.button("Put up").click()
    expect(rosa.problem).to_contain_text("forbidden")
    expect(rosa.page.get_by_label("New notice")).to_have_value("Hello")
    rosa.is_online()
    expect(rosa.page.locator("#accounts-card")).to_be_hidden()

    ada.page.get_by_label("New notice").fill("The lift is <b>broken</b>")
    ada.page.keyboard.press("Enter")
    expect(rosa.notices.first).to_have_text("The lift is <b>broken</b>")
    expect(ada.page.get_by_label("New notice")).to_have_value("")
    ada.page.locator("#notices li", has_text="lift").get_by_role("button", name="Pin").click()
    expect(rosa.page.locator("#notices .pinned .text")).to_have_text("The lift is <b>broken</b>")
    ada.button("Take all down").click()
    expect(rosa.notices).to_have_text(["The lift is <b>broken</b>"])
    expect(ada.problem).to_be_hidden()


def test_a_disabled_user_is_out_within_seconds(enter: Enter) -> None:
    """On every tab, with the reason, and can't sign in; until the account is enabled again."""
    walt, ada = enter("walt"), enter("ada")
    tab = walt.another_tab()
    tab.is_online()
    account = ada.page.locator("#accounts li", has_text="walt")
    account.get_by_role("button", name="Disable").click()
    expect(account).to_contain_text("disabled")
    for visitor in (walt, tab):
        visitor.is_at_the_entrance("This account is disabled.")
    walt.sign_in("walt")
    walt.is_at_the_entrance("This account is disabled.")
    account.get_by_role("button", name="Enable").click()
    expect(account).not_to_contain_text("disabled")
    expect(account.get_by_role("button")).to_be_focused()
    walt.sign_in("walt")
    walt.is_online()


CONNECT: str = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    let opened = false;
    let frames = 0;
    socket.onopen = () => { opened = true; };
    socket.onmessage = () => { frames += 1; };
    socket.onclose = ({ code, reason }) => resolve({ opened, frames, code, reason });
})"""


def test_a_page_of_another_origin_gets_nothing(enter: Enter, demo: Demo) -> None:
    """Cookies know no ports and another port is the same site: it is the origin that turns the page away."""
    rosa = enter("rosa")
    other = FastAPI()
    sent: list[str] = []

    @other.get("/")
    async def elsewhere(request: Request) -> HTMLResponse:
        sent.extend(request.cookies)
        return HTMLResponse("<title>Elsewhere</title>")

    with serve_in_thread(other) as port:
        page = rosa.page.context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        assert sorted(sent) == ["board_access", "board_session"]
        outcome = page.evaluate(CONNECT, f"ws://127.0.0.1:{demo.port}/ws/board")
        assert outcome == {"opened": True, "frames": 0, "code": 4403, "reason": "This origin is not allowed"}

        with page.expect_response("**/api/sign-out?everywhere=true") as refused:
            page.evaluate(
                "(url) => fetch(url, { method: 'POST', mode: 'no-cors', credentials: 'include' }).then(() => null)",
                f"http://127.0.0.1:{demo.port}/api/sign-out?everywhere=true",
            )
        assert refused.value.status == 403
    rosa.page.reload()
    rosa.is_online()


def test_the_sixth_tab_replaces_the_first_which_stays_away(enter: Enter) -> None:
    """It says so and waits for a click, which brings it back in place of the next."""
    rosa = enter("rosa")
    tabs = [rosa.another_tab() for _ in range(4)]
    for tab in tabs:
        tab.is_online()
    last = rosa.another_tab()
    last.is_online()
    expect(rosa.page.get_by_role("alert").filter(has_text="4409")).to_have_text("replaced by another connection (4409)")
    assert len(rosa.urls) == 1
    rosa.button("Connect here").click()
    rosa.is_online()


class Closing:
    """Closes one WebSocket after the other, each with the next of some codes, then lets them through."""

    def __init__(self, codes: list[int]) -> None:
        self.count = 0
        self._codes = iter(codes)

    def __call__(self, route: WebSocketRoute) -> None:
        self.count += 1
        code = next(self._codes, None)
        if code is None:
            route.connect_to_server()
        else:
            route.close(code=code, reason="because")


def test_45xx_come_back_by_themselves(enter: Enter) -> None:
    """So do the codes of a server in trouble, until the page is let in."""
    codes = [1001, 1011, 1012, 1013, 4503, 4508, 4519, 4529]
    closing = Closing(codes)

    def prepare(page: Page) -> None:
        page.add_init_script("Math.random = () => 0")
        page.route_web_socket(SOCKETS, closing)

    enter("rosa", before=prepare)
    assert closing.count == len(codes) + 1


def test_44xx_wait_for_the_person(enter: Enter) -> None:
    """So do the codes for a client's own mistakes; nothing is tried until somebody asks for it."""
    codes = [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4404, 4409, 4422, 4499]
    closing = Closing(codes)
    rosa = enter(before=lambda page: page.route_web_socket(SOCKETS, closing))
    rosa.sign_in("rosa")
    for attempt, code in enumerate(codes, start=1):
        expect(rosa.state).to_have_text("Disconnected")
        expect(rosa.page.locator("#stopped-reason")).to_have_text(f"because ({code})")
        assert closing.count == attempt
        rosa.button("Connect here").click()
    rosa.is_online()


@pytest.mark.parametrize("code", [4401, 4403])
def test_who_is_not_let_in_is_asked_to_sign_in(enter: Enter, code: int) -> None:
    """The form shows the reason, and nothing more is tried."""
    closing = Closing([code])
    rosa = enter(before=lambda page: page.route_web_socket(SOCKETS, closing))
    rosa.sign_in("rosa")
    rosa.is_at_the_entrance("because.")
    assert closing.count == 1


def test_waits_grow_with_full_jitter(enter: Enter) -> None:
    """The n-th wait lies between 0 and min(20 s, 0.5 s · 2^n); the browser's `online` event cuts it short."""
    closing = Closing([1013] * 100)

    def prepare(page: Page) -> None:
        stop_clock(page)
        page.add_init_script("Math.random = () => 0.9999")
        page.route_web_socket(SOCKETS, closing)

    rosa = enter(before=prepare)
    rosa.sign_in("rosa")
    expect(rosa.state).to_have_text("Offline")
    longest = 0
    while longest < 20:
        tried = closing.count
        rosa.page.evaluate("dispatchEvent(new Event('online'))")
        expect(rosa.state).to_have_text("Offline")
        assert closing.count == tried + 1
        longest = math.ceil(min(20, 0.5 * 2**tried))
        expect(rosa.page.locator("#countdown")).to_have_text(f"Trying again in {longest} s")


def test_a_server_that_was_started_again_asks_to_sign_in(enter: Enter, demos: Callable[..., Demo]) -> None:
    """Its key is another one and its sessions are gone: the page comes back by itself, and is told so."""
    demo = demos("--token-seconds", "61")
    rosa = enter("rosa", at=demo)
    demo.end(signal.SIGKILL)
    expect(rosa.state).to_have_text("Offline")
    demo.start()
    rosa.is_at_the_entrance("You are signed out.")
    rosa.sign_in("rosa")
    rosa.is_online()


def test_everything_can_be_done_with_the_keyboard(enter: Enter) -> None:
    """Signing in, writing, switching, signing out; focus is visible."""
    walt = enter()
    page = walt.page
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("walt")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORDS["walt"])
    page.keyboard.press("Enter")
    walt.is_online()
    expect(page.get_by_label("New notice")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect(walt.notices.filter(has_text="By keyboard").first).to_be_visible()
    page.get_by_label("Cookie").focus()
    page.keyboard.press("ArrowRight")
    expect(walt.credential).to_have_text("ticket")
    walt.button("Sign out").focus()
    page.keyboard.press("Enter")
    walt.is_at_the_entrance("You are signed out.")
    expect(page.get_by_label("Name")).to_be_focused()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=lambda size: str(size["width"]))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_makes_the_page_scroll_sideways(
    enter: Enter, size: ViewportSize, scheme: Literal["light", "dark"]
) -> None:
    """At the entrance, online, with an error and offline, with a word of 280 letters."""
    ada = enter(size=size, scheme=scheme)
    assert ada.fits()
    ada.sign_in("ada")
    ada.is_online()
    ada.page.get_by_label("New notice").fill("u" * 280)
    ada.button("Put up").click()
    expect(ada.notices.filter(has_text="u" * 280).first).to_be_visible()
    expect(ada.page.locator("#accounts li")).to_have_count(3)
    assert ada.fits()
    rosa = enter("rosa", size=size, scheme=scheme)
    rosa.button("Take all down").click()
    expect(rosa.problem).to_be_visible()
    assert rosa.fits()
    rosa.page.route("**/api/token", lambda route: route.abort())
    rosa.page.get_by_label("Ticket").check()
    expect(rosa.state).to_have_text("Offline")
    assert rosa.fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(enter: Enter, scheme: Literal["light", "dark"]) -> None:
    """Its contrast is at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    ada = enter("ada", scheme=scheme)
    expect(ada.page.locator("#accounts li")).to_have_count(3)
    contrasts: dict[str, Any] = ada.page.evaluate(
        """() => {
            const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            const luminance = (color) => {
                canvas.fillStyle = color;
                canvas.fillRect(0, 0, 1, 1);
                const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
                    .map((part) => part / 255)
                    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
                return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
            };
            const behind = (element) => {
                const color = getComputedStyle(element).backgroundColor;
                return color === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : color;
            };
            const found = {};
            for (const element of document.querySelectorAll("#app *")) {
                const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
                if (!text || !element.checkVisibility()) continue;
                const [dark, light] = [getComputedStyle(element).color, behind(element)].map(luminance)
                    .sort((a, b) => a - b);
                found[element.textContent.trim()] = (light + 0.05) / (dark + 0.05);
            }
            return found;
        }"""
    )
    assert len(contrasts) > 15
    assert {text: contrast for text, contrast in contrasts.items() if contrast < 4.5} == {}
