"""The page of ``examples/chat`` in headless Chromium, against the demo as ``make demo`` starts it."""

import itertools
import json
import math
import re
import signal
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize, WebSocketRoute, expect

from tests.examples.browsing import DESK, PHONE, Demo, Routes, serve_in_thread, stop_clock

SOCKETS = re.compile(r"/ws/chat/")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("chat")
    demo = Demo("examples.chat", folder, "--database", str(folder / "chat.sqlite3"))
    yield demo
    demo.end(signal.SIGTERM)
    log = demo.log()
    demo.close()
    assert log == ""


@pytest.fixture
def demo(process: Demo) -> Demo:
    """The demo, running. Each test has rooms of its own in it."""
    if not process.runs:
        process.start()
    return process


class Person:
    """Somebody at the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.state = page.locator("#state")
        self.composer = page.get_by_label("Message", exact=True)
        self.messages = page.locator("#lines .text")
        self.outbox = page.locator("#outbox .text")
        self.notes = page.locator("#lines .note p")
        self.people = page.locator("#names .name")
        self.typing = page.locator("#typing")
        self.failure = page.locator("#outbox .failure")

    def say(self, text: str) -> None:
        self.composer.fill(text)
        self.composer.press("Enter")

    def sees(self, *texts: str) -> None:
        expect(self.messages).to_have_text(list(texts))

    def is_online(self) -> None:
        expect(self.state).to_have_text("Online")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def fits(self) -> bool:
        overflowing: list[str] = self.page.evaluate(
            """() => [document.documentElement, ...document.querySelectorAll("#log, #people, footer, header")]
                .filter((element) => element.scrollWidth > element.clientWidth + 1)
                .map((element) => element.tagName)"""
        )
        return overflowing == []


class Enter(Protocol):
    """Open the page for one more person, who joins a room of this test if a name is given."""

    def __call__(
        self,
        name: str = "",
        *,
        room: str = ...,
        size: ViewportSize = ...,
        scheme: Literal["light", "dark"] = ...,
        before: Callable[[Page], object] | None = None,
    ) -> Person: ...


rooms = itertools.count(1)


@pytest.fixture
def enter(browser: Browser, demo: Demo) -> Iterator[Enter]:
    """Yield a way in, and check at the end that no page had an error."""
    contexts: list[BrowserContext] = []
    garden = f"garden-{next(rooms)}"
    errors: list[str] = []

    def open_page(
        name: str = "",
        *,
        room: str = garden,
        size: ViewportSize = DESK,
        scheme: Literal["light", "dark"] = "light",
        before: Callable[[Page], object] | None = None,
    ) -> Person:
        context = browser.new_context(
            viewport=size,
            color_scheme=scheme,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if before is not None:
            before(page)
        page.goto(f"http://127.0.0.1:{demo.port}/#{room}")
        person = Person(page)
        if name:
            page.get_by_label("Your name").fill(name)
            page.get_by_role("button", name="Join").click()
            if before is None:
                person.is_online()
        return person

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def test_two_people_chat_and_own_messages_are_marked(enter: Enter) -> None:
    """What either says is seen by both, once, in one order; a person's own lines are told apart."""
    ada, bob = enter("Ada"), enter("Bob")
    expect(ada.people).to_have_text(["Ada", "Bob"])
    expect(ada.notes).to_have_text(["Bob joined"])
    ada.say("Hello, Bob.")
    bob.sees("Hello, Bob.")
    bob.say("Hello!\nHow are you?")
    for person in (ada, bob):
        person.sees("Hello, Bob.", "Hello!\nHow are you?")
        expect(person.outbox).to_have_count(0)
    expect(ada.page.locator("#lines .own .text")).to_have_text(["Hello, Bob."])
    expect(bob.page.locator("#lines .own .text")).to_have_text(["Hello!\nHow are you?"])
    expect(bob.page.locator("#lines .name")).to_have_text(["Ada", "You"])


def test_rooms_are_apart(enter: Enter) -> None:
    """A line is seen in its own room only, and the address of the page is the link to the room."""
    ada, bob = enter("Ada"), enter("Bob", room="caf%C3%A9")
    expect(bob.page.locator("#room-title")).to_have_text("#café")
    ada.is_online()
    bob.say("Is this the café?")
    bob.sees("Is this the café?")
    ada.page.goto(bob.page.url)
    ada.sees("Is this the café?")
    expect(ada.people).to_have_text(["Bob", "Ada"])


def test_markup_is_text(enter: Enter) -> None:
    """Nothing that a person writes becomes part of the page."""
    ada, bob = enter("<b>Ada</b>"), enter("Bob")
    ada.say("<img src=x onerror=alert(1)>")
    bob.sees("<img src=x onerror=alert(1)>")
    expect(bob.page.locator("#lines .name")).to_have_text(["<b>Ada</b>"])
    expect(bob.page.locator("#lines img, #lines b")).to_have_count(0)


def test_typing_is_shown_to_others_until_they_stop(enter: Enter) -> None:
    """Two who write are named to the third, not to themselves; a line, or silence, ends it."""
    ada, bob, cleo = enter("Ada"), enter("Bob"), enter("Cleo")
    cleo.is_online()
    ada.composer.press_sequentially("Well")
    expect(cleo.typing).to_have_text("Ada is typing…")
    bob.composer.press_sequentially("Oh")
    expect(cleo.typing).to_have_text("Ada and Bob are typing…")
    expect(ada.typing).to_have_text("Bob is typing…")
    ada.composer.press("Enter")
    expect(cleo.typing).to_have_text("Bob is typing…")
    expect(cleo.typing).to_have_text("")


def test_an_error_is_shown_at_the_message_that_failed(enter: Enter) -> None:
    """A text that the server refuses stays, with the reason; it can be tried again, edited and removed."""
    ada, bob = enter("Ada"), enter("Bob")
    ada.say("x" * 4001)
    expect(ada.failure.get_by_role("alert")).to_contain_text("too long")
    ada.button("Try again").click()
    expect(ada.failure.get_by_role("alert")).to_contain_text("too long")
    expect(ada.outbox).to_have_count(1)
    ada.say("Something else")
    bob.sees("Something else")
    ada.button("Edit").click()
    expect(ada.composer).to_have_value("x" * 4001)
    expect(ada.composer).to_be_focused()
    ada.composer.press("End")
    ada.composer.press("Backspace")
    ada.composer.press("Enter")
    bob.sees("Something else", "x" * 4000)
    expect(ada.outbox).to_have_count(0)

    ada.say("y" * 100_000)
    expect(ada.failure.get_by_role("alert")).to_contain_text("too long")
    ada.is_online()
    ada.button("Remove").click()
    expect(ada.outbox).to_have_count(0)


def test_a_name_that_the_server_refuses_brings_back_the_question(enter: Enter) -> None:
    """A close code of 44xx before anything was said leads back to the form, with the reason."""
    ada = enter(before=lambda page: page.add_init_script(f"localStorage.setItem('name', '{'x' * 41}')"))
    expect(ada.page.get_by_role("alert")).to_contain_text("does not take this name")
    expect(ada.page.get_by_label("Your name")).to_be_focused()


def test_a_reload_comes_back_and_is_no_leave_and_join(enter: Enter) -> None:
    """After a reload the room, the name and the lines are there again; the others are not bothered."""
    ada, bob = enter("Ada"), enter("Bob")
    ada.say("one")
    bob.say("two")
    bob.sees("one", "two")
    bob.page.reload()
    bob.is_online()
    bob.sees("one", "two")
    bob.say("three")
    ada.sees("one", "two", "three")
    expect(ada.notes).to_have_text(["Bob joined"])


def test_leaving_is_told_once_the_last_device_is_gone(enter: Enter) -> None:
    """The first of two devices that leaves takes a device away, not the person."""
    ada, phone, laptop = enter("Ada"), enter("Bob"), enter("Bob")
    expect(ada.page.locator("#names")).to_contain_text("2 devices")
    phone.page.close()
    expect(ada.page.locator("#names")).not_to_contain_text("2 devices")
    expect(ada.people).to_have_text(["Ada", "Bob"])
    laptop.page.close()
    expect(ada.people).to_have_text(["Ada"])
    expect(ada.notes).to_have_text(["Bob joined", "Bob left"])


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_the_server_restarts_and_all_come_back(enter: Enter, demo: Demo, sign: signal.Signals) -> None:
    """What was said before, during and after the outage is there once, in one order, on both pages."""
    ada, bob = enter("Ada"), enter("Bob")
    ada.say("before")
    bob.sees("before")
    demo.end(sign)
    for person in (ada, bob):
        expect(person.page.locator("#countdown")).to_contain_text("trying again in")
    for text in ("one", "two", "three"):
        ada.say(text)
    expect(ada.outbox).to_have_text(["one", "two", "three"])
    ada.composer.fill("not sent yet")
    demo.start()
    for person in (ada, bob):
        person.is_online()
        person.sees("before", "one", "two", "three")
    expect(ada.outbox).to_have_count(0)
    expect(ada.composer).to_have_value("not sent yet")
    expect(ada.people).to_have_count(2)
    bob.say("after")
    ada.sees("before", "one", "two", "three", "after")
    expect(ada.notes).to_have_text(["Bob joined"])


@pytest.mark.parametrize("later", [1, 60])
def test_a_line_whose_answer_was_lost_is_not_doubled(enter: Enter, later: int) -> None:
    """The server stored it, the connection broke before the answer: it is there once, however much came after it."""
    routes: list[WebSocketRoute] = []
    absent = False

    def route_ada(route: WebSocketRoute) -> None:
        routes.append(route)
        if absent:
            route.close(code=1012)
            return
        server = route.connect_to_server()
        if len(routes) == 1:
            server.on_message(lambda frame: None if is_answer(frame) else route.send(frame))

    def is_answer(frame: str | bytes) -> bool:
        return json.loads(frame)["type"] in ("chat.said", "$ok")

    ada, bob = enter("Ada", before=lambda page: page.route_web_socket(SOCKETS, route_ada)), enter("Bob")
    ada.is_online()
    ada.say("once")
    bob.sees("once")
    expect(ada.outbox).to_have_text(["once"])
    absent = True
    routes[0].close(code=1012)
    for number in range(later):
        bob.say(f"line {number}")
    expect(bob.messages).to_have_count(later + 1)
    absent = False
    ada.page.evaluate("dispatchEvent(new Event('online'))")
    ada.is_online()
    expect(ada.outbox).to_have_count(0)
    everything = ["once", *(f"line {number}" for number in range(later))]
    ada.sees(*everything[-50:])
    if later > 50:
        ada.button("Load earlier messages").click()
    ada.sees(*everything)
    bob.sees(*everything)


def test_what_was_missed_is_filled_in_and_more_than_fifty_leave_no_hole(enter: Enter) -> None:
    """After an outage the last fifty join the lines that are there; if there is a gap, older ones can be loaded."""
    absent = False
    routes: list[WebSocketRoute] = []

    def route_bob(route: WebSocketRoute) -> None:
        if absent:
            route.close(code=1012)
        else:
            routes.append(route)
            route.connect_to_server()

    ada, bob = enter("Ada"), enter("Bob", before=lambda page: page.route_web_socket(SOCKETS, route_bob))
    bob.is_online()
    ada.say("line 0")
    bob.sees("line 0")
    for missed in (range(1, 4), range(4, 64)):
        absent = True
        routes[-1].close(code=1012)
        expect(bob.people).to_have_count(2)
        for number in missed:
            ada.say(f"line {number}")
        expect(ada.messages).to_have_count(missed.stop)
        absent = False
        bob.page.evaluate("dispatchEvent(new Event('online'))")
        bob.is_online()
        if missed.stop == 4:
            bob.sees(*(f"line {number}" for number in range(4)))
    bob.sees(*(f"line {number}" for number in range(14, 64)))
    bob.button("Load earlier messages").click()
    bob.sees(*(f"line {number}" for number in range(64)))
    expect(bob.button("Load earlier messages")).to_be_hidden()


def test_a_reader_of_old_lines_stays_there(enter: Enter) -> None:
    """New lines scroll only who is at the end; the others get a button, and keep their place as they load more."""
    ada, bob = enter("Ada"), enter("Bob")
    for number in range(60):
        ada.say(f"line {number}")
    expect(bob.messages).to_have_count(60)
    expect(bob.page.get_by_text("line 59")).to_be_in_viewport()
    bob.page.get_by_text("line 20").scroll_into_view_if_needed()
    expect(bob.page.get_by_text("line 59")).not_to_be_in_viewport()
    ada.say("news")
    bob.button("1 new message").click()
    expect(bob.page.get_by_text("news")).to_be_in_viewport()
    expect(bob.button("new message")).to_be_hidden()
    ada.say("more news")
    expect(bob.page.get_by_text("more news")).to_be_in_viewport()

    bob.page.reload()
    expect(bob.messages).to_have_count(50)
    bob.button("Load earlier messages").scroll_into_view_if_needed()
    top = bob.page.get_by_text("line 12")
    expect(top).to_be_in_viewport()
    bob.button("Load earlier messages").click()
    expect(bob.messages).to_have_count(62)
    expect(top).to_be_in_viewport()


COMES_BACK = [1001, 1011, 1012, 1013, 4503, 4508, 4529]
STAYS_AWAY = [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4403, 4499]


def test_a_connection_that_may_come_back_does_so_by_itself(enter: Enter) -> None:
    """After 45xx and the codes of a server in trouble the page tries again until it is let in."""
    routes = Routes(COMES_BACK)

    def prepare(page: Page) -> None:
        page.add_init_script("Math.random = () => 0")
        page.route_web_socket(SOCKETS, routes.close)

    enter("Ada", before=prepare).is_online()
    assert routes.count == len(COMES_BACK) + 1


def test_a_connection_that_may_not_come_back_waits_for_the_person(enter: Enter) -> None:
    """After 44xx and the codes for a client's own mistakes nothing is tried until a person asks for it."""
    routes = Routes(STAYS_AWAY)
    ada = enter("Ada", before=lambda page: page.route_web_socket(SOCKETS, routes.close))
    for attempt, code in enumerate(STAYS_AWAY, start=1):
        expect(ada.state).to_have_text("Disconnected")
        expect(ada.page.get_by_role("alert")).to_have_text(f"because ({code})")
        assert routes.count == attempt
        ada.button("Connect again").click()
    ada.is_online()


def test_a_page_that_is_not_known_signs_in_again_once(enter: Enter) -> None:
    """After 4401 and 4519 it does so with the name that it knows; refused again at once, it waits for the person."""
    closed = Routes([4401, 4519, 4401, 4401])
    ada = enter("Ada", before=lambda page: page.route_web_socket(SOCKETS, closed.close))
    expect(ada.page.get_by_role("alert")).to_have_text("because (4401)")
    assert closed.count == 1
    ada.button("Connect again").click()
    expect(ada.page.get_by_role("alert")).to_have_text("because (4401)")
    assert closed.count == 3
    ada.button("Connect again").click()
    ada.is_online()
    assert closed.count == 5


def test_a_cookie_that_is_gone_is_no_trouble(enter: Enter) -> None:
    """The page that is loaded again signs in with the name that it remembers."""
    ada = enter("Ada")
    ada.say("before")
    ada.sees("before")
    ada.page.context.clear_cookies()
    ada.page.reload()
    ada.say("after")
    ada.sees("before", "after")
    expect(ada.people).to_have_text(["Ada"])


def test_the_name_is_the_one_that_was_signed_in_with(enter: Enter) -> None:
    """What a script puts into the page's storage changes nothing; to choose another name is to sign in again."""
    eve, bob = enter("Eve"), enter("Bob")
    eve.is_online()
    eve.page.evaluate("localStorage.setItem('name', 'Ada')")
    eve.page.reload()
    eve.say("I am Ada")
    expect(bob.page.locator("#lines .name")).to_have_text(["Eve"])
    expect(bob.people).to_have_count(2)
    expect(bob.people.filter(has_text="Eve")).to_have_count(1)
    expect(eve.page.locator("#lines .name")).to_have_text(["You"])
    assert eve.page.evaluate("document.cookie") == ""

    eve.button("Change name or room").click()
    eve.page.get_by_label("Your name").fill("Cleo")
    eve.button("Join").click()
    eve.say("I am Cleo")
    expect(bob.page.locator("#lines .name")).to_have_text(["Eve", "Cleo"])
    expect(bob.people).to_have_text(["Bob", "Cleo"])


def test_both_names_of_this_machine_work_and_other_origins_do_not(enter: Enter, demo: Demo) -> None:
    """The page at localhost chats as the one at 127.0.0.1 does; another origin can neither sign in nor connect."""
    ada, bob = enter("Ada"), enter()
    ada.is_online()
    bob.page.goto(ada.page.url.replace("127.0.0.1", "localhost"))
    bob.page.get_by_label("Your name").fill("Bob")
    bob.button("Join").click()
    bob.say("Hello from localhost")
    ada.sees("Hello from localhost")

    with serve_in_thread(FastAPI(docs_url="/")) as port:
        page = ada.page.context.new_page()
        page.goto(f"http://127.0.0.1:{port}/openapi.json")
        close = page.evaluate(
            """(url) => new Promise((resolve) => {
                new WebSocket(url).onclose = ({ code }) => resolve(code);
            })""",
            f"ws://127.0.0.1:{demo.port}/ws/chat/garden",
        )
        assert close == 4403
        with page.expect_response("**/sign-in") as refused:
            page.evaluate(
                """(url) => fetch(url, { method: "POST", mode: "no-cors", body: '{"name":"Eve"}' }).then(() => null)""",
                f"http://127.0.0.1:{demo.port}/sign-in",
            )
        assert refused.value.status == 403


def test_waits_grow_with_full_jitter_and_end_when_the_network_is_back(enter: Enter) -> None:
    """The n-th wait lies between 0 and min(20 s, 0.5 s · 2^n); the browser's `online` event cuts it short."""
    routes = Routes([1013] * 100)

    def prepare(page: Page) -> None:
        stop_clock(page)
        page.add_init_script("Math.random = () => 0.9999")
        page.route_web_socket(SOCKETS, routes.close)

    ada = enter("Ada", before=prepare)
    expect(ada.state).to_have_text("Offline")
    longest = 0
    while longest < 20:
        tried = routes.count
        ada.page.evaluate("dispatchEvent(new Event('online'))")
        expect(ada.state).to_have_text("Offline")
        assert routes.count == tried + 1
        longest = math.ceil(min(20, 0.5 * 2**tried))
        expect(ada.page.locator("#countdown")).to_have_text(f"trying again in {longest} s")


def test_everything_can_be_done_with_the_keyboard(enter: Enter) -> None:
    """Joining, writing, new lines, the list of people and the way back: no mouse needed, and focus is visible."""
    ada = enter(size=PHONE)
    page = ada.page
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    ada.is_online()
    expect(ada.composer).to_be_focused()
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    ada.sees("first\nsecond")
    expect(ada.composer).to_have_value("")
    page.keyboard.press("Enter")
    expect(ada.outbox).to_have_count(0)

    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("log")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    drawer_button = page.get_by_role("button", name="Who is here")
    expect(drawer_button).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Who is here")).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary", name="Who is here")).to_be_hidden()
    expect(drawer_button).to_be_focused()


@pytest.mark.parametrize("size", [PHONE, DESK, {"width": 1400, "height": 900}], ids=lambda size: str(size["width"]))
def test_long_messages_names_and_words_fit(enter: Enter, size: ViewportSize) -> None:
    """4,000 characters, a name of forty and a word without an end never make the page scroll sideways."""
    reader = enter("Reader", size=size, scheme="dark")
    writer = enter("W" * 40, size=size)
    long = ("All work and no play makes Jack a dull boy. " * 100)[:4000].strip()
    writer.say(long)
    writer.say("u" * 4000)
    for person in (reader, writer):
        person.sees(long, "u" * 4000)
        assert person.fits()
        person.button("Show all").first.click()
        expect(person.button("Show less")).to_have_count(1)
        assert person.fits()
    if size is PHONE:
        reader.button("Who is here").click()
        expect(reader.page.get_by_role("complementary", name="Who is here")).to_be_visible()
        assert reader.fits()
    writer.say("v" * 4001)
    expect(writer.failure).to_be_visible()
    assert writer.fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_a_name_can_be_read(enter: Enter, scheme: Literal["light", "dark"]) -> None:
    """Names and initials have a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), whatever the name."""
    ada = enter("Ada", scheme=scheme)
    ada.say("Hello")
    expect(ada.page.locator("#lines .name")).to_be_visible()
    worst = ada.page.evaluate(
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
            const contrast = (one, two) => {
                const [dark, light] = [luminance(one), luminance(two)].sort((a, b) => a - b);
                return (light + 0.05) / (dark + 0.05);
            };
            const name = document.querySelector("#lines .name");
            const face = document.querySelector("#names .face");
            const contrasts = [];
            for (let hue = 0; hue < 360; hue += 15) {
                name.style.setProperty("--hue", hue);
                face.style.setProperty("--hue", hue);
                const { color, backgroundColor } = getComputedStyle(face);
                contrasts.push(contrast(color, backgroundColor));
                contrasts.push(contrast(getComputedStyle(name).color, getComputedStyle(document.body).backgroundColor));
            }
            return Math.min(...contrasts);
        }"""
    )
    assert worst >= 4.5
