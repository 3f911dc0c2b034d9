"""The page of ``examples/stream`` in headless Chromium, against the example as its command starts it."""

import math
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

import examples.stream
from examples.stream.composer import Composer
from tests.examples.browsing import DESK, PHONE, Demo, OpenPage, Routes, fits, stop_clock

SOCKETS = re.compile(r"/ws/write")
PASSAGES = Path(examples.stream.__file__).with_name("passages.txt").read_text(encoding="utf-8")
SEED = 7
PLAIN = "delete globalThis.WebSocketStream"
"""Makes the page use a WebSocket, as it does in other browsers; only such can be routed."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo("examples.stream", tmp_path_factory.mktemp("stream"))
    yield demo
    demo.end(signal.SIGTERM)
    log = demo.log()
    demo.close()
    assert log == ""


@pytest.fixture
def address(process: Demo) -> str:
    if not process.runs:
        process.start()
    return f"http://127.0.0.1:{process.port}/"


def prepare(page: Page) -> None:
    """Make every text have one seed, and every wait short."""
    page.add_init_script(f"crypto.getRandomValues = (values) => values.fill({SEED}); Math.random = () => 0.1")


def expected(prompt: str, words: int = 150) -> str:
    """Return the text as it comes to be, without the gaps between paragraphs."""
    return "".join(Composer(PASSAGES).compose(prompt, seed=SEED, words=words)).replace("\n\n", "")


def choose(page: Page, prompt: str, *, length: str = "a page", pace: str = "in a hurry") -> Locator:
    """Ask for a text of those that are offered, and return its card."""
    page.get_by_label("Length").select_option(label=length)
    page.get_by_label("Pace").select_option(label=pace)
    page.get_by_role("button", name=prompt, exact=True).click()
    return card(page, prompt)


def card(page: Page, prompt: str) -> Locator:
    return page.locator(".text").filter(has=page.get_by_role("heading", name=prompt, exact=True))


def number(page: Page, id: str) -> int:
    return int(page.locator(f"#{id}").inner_text().replace(",", ""))


def is_online(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Online")
    expect(page.locator("#running")).to_have_text(re.compile(r"\d"))


def test_a_text_is_stopped_and_goes_on(open_page: OpenPage, address: str) -> None:
    """Stop ends its generator on the server; what comes after that begins with the word after the last one."""
    page = open_page(address, before=prepare)
    is_online(page)
    cut_short = number(page, "cut-short")
    text = choose(page, "the sea", pace="as one reads")
    expect(text.locator(".state")).to_have_text(re.compile(r"Writing · \d+ words"))
    expect(page.locator("#running")).to_have_text("1")
    text.get_by_role("button", name="Stop").click()
    expect(text.locator(".state")).to_have_text(re.compile(r"Stopped · \d+ words"))
    expect(page.locator("#running")).to_have_text("0")
    expect(page.locator("#cut-short")).to_have_text(str(cut_short + 1))
    page.get_by_label("Pace").select_option(label="in a hurry")
    text.get_by_role("button", name="Go on").click()
    expect(text.locator(".state")).to_have_text(re.compile(r"Done · 1\d\d words"))
    assert text.locator(".body").text_content() == expected("the sea")
    text.get_by_role("button", name="Remove").click()
    expect(page.locator(".text")).to_have_count(0)
    expect(page.get_by_label("Write about")).to_be_focused()


def test_texts_go_on_after_a_loss(open_page: OpenPage, process: Demo, address: str) -> None:
    """Without a hole and without a word twice, after a disconnect and after the server was killed."""
    page = open_page(address, before=prepare)
    is_online(page)
    texts = [choose(page, prompt, pace="as one reads") for prompt in ("the sea", "letters")]
    expect(page.locator("#running")).to_have_text("2")
    page.get_by_role("button", name="Disconnect").click()
    for text in texts:
        expect(text.locator(".state")).to_have_text(re.compile(r"Waits for the connection · \d+ words"))
    expect(page.locator("#running")).to_have_text("0")
    page.get_by_role("button", name="Connect").click()
    expect(page.locator("#running")).to_have_text("2")

    process.end(signal.SIGKILL)
    expect(page.locator("#state")).to_have_text("Offline")
    expect(page.locator("#countdown")).to_contain_text("trying again in")
    offline = choose(page, "a garden", pace="in a hurry")
    expect(offline.locator(".state")).to_have_text("Waits for the connection")
    process.start()
    is_online(page)
    for text, prompt in zip([*texts, offline], ("the sea", "letters", "a garden"), strict=True):
        expect(text.locator(".state")).to_have_text(re.compile(r"Done · 1\d\d words"))
        expect(text.locator(".body")).to_have_text(expected(prompt))


def test_four_are_written_at_once(open_page: OpenPage, address: str) -> None:
    """The fifth waits for its turn, and can be stopped before it has it."""
    page = open_page(address)
    is_online(page)
    for prompt in ("the sea", "bread in winter", "an honest clock", "the night train"):
        choose(page, prompt, length="a library", pace="as one reads")
    waits, also = choose(page, "a garden"), choose(page, "letters", length="a few lines")
    expect(page.locator("#running")).to_have_text("4")
    for text in (waits, also):
        expect(text.locator(".state")).to_have_text("Waits for its turn")
    waits.get_by_role("button", name="Stop").click()
    expect(waits.locator(".state")).to_have_text("Stopped")
    card(page, "the sea").get_by_role("button", name="Stop").click()
    expect(also.locator(".state")).to_have_text(re.compile("Done"))


def test_a_page_that_does_not_read_holds_the_generator_back(open_page: OpenPage, address: str) -> None:
    """It waits where it stands, as another connection tells; a `$cancel` reaches it there all the same."""
    page = open_page(address, before=prepare)
    is_online(page)
    cut_short, yielded = number(page, "cut-short"), number(page, "yielded")
    page.get_by_role("button", name="Stop reading").click()
    expect(page.locator("#state")).to_have_text("Online, not reading")
    text = choose(page, "bread in winter", length="a library", pace="as fast as it is taken")
    page.wait_for_function(
        """() => {
            const [yielded, now] = [document.querySelector("#yielded").textContent, performance.now()];
            if (globalThis.yieldedBefore !== yielded) [globalThis.yieldedBefore, globalThis.since] = [yielded, now];
            return now - globalThis.since > 700;
        }"""
    )
    expect(page.locator("#running")).to_have_text("1")
    expect(page.locator("#shown")).to_have_text("0")
    assert 1000 < number(page, "yielded") - yielded < 900_000
    text.get_by_role("button", name="Stop").click()
    expect(text.locator(".state")).to_have_text("Stopping…")
    expect(page.locator("#running")).to_have_text("0")
    expect(page.locator("#cut-short")).to_have_text(str(cut_short + 1))
    page.get_by_role("button", name="Read on").click()
    expect(text.locator(".state")).to_have_text(re.compile("Stopp.* · [0-9,]+ words"))


def test_an_error_is_shown_at_its_text(open_page: OpenPage, address: str) -> None:
    """A prompt that the server refuses keeps its card, with the reason in plain words; markup is text."""
    page = open_page(address)
    is_online(page)
    prompt = page.get_by_label("Write about")
    prompt.fill("x" * 201)
    prompt.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="too long")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert").filter(has_text="too long")).to_be_visible()
    page.get_by_label("Length").select_option(label="a few lines")
    prompt.fill("<img src=x onerror=alert(1)>")
    prompt.press("Enter")
    expect(page.locator(".text").first.locator(".state")).to_have_text(re.compile("Writing|Done"))
    expect(page.locator(".text").first.get_by_role("heading")).to_have_text("<img src=x onerror=alert(1)>")
    expect(page.locator("main img")).to_have_count(0)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=lambda size: str(size["width"]))
def test_it_is_done_with_the_keyboard_and_fits(open_page: OpenPage, address: str, size: ViewportSize) -> None:
    """Enter writes, Escape stops the newest, and no prompt makes the page scroll sideways."""
    page = open_page(address, size=size, scheme="dark")
    is_online(page)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Write about")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("w" * 200)
    page.keyboard.press("Enter")
    expect(page.locator("#running")).to_have_text("1")
    page.keyboard.type("a clock")
    page.keyboard.press("Enter")
    expect(page.locator("#running")).to_have_text("2")
    page.keyboard.press("Escape")
    expect(card(page, "a clock").locator(".state")).to_have_text(re.compile("Stopped"))
    expect(page.locator("#running")).to_have_text("1")
    page.keyboard.press("Escape")
    expect(page.locator("#running")).to_have_text("0")
    assert fits(page, ".card, header, .text .head, .text .body, .text .foot, dl")


COMES_BACK = [1001, 1011, 1012, 1013, 4503, 4508, 4529]
STAYS_AWAY = [1000, 1008, 1009, 4400, 4403]


def test_who_may_come_back_does_so_by_itself(open_page: OpenPage, address: str) -> None:
    """After 45xx and the codes of a server in trouble; after 44xx and one's own mistakes a person has to ask for it."""
    routes = Routes([*COMES_BACK, *STAYS_AWAY])

    def prepare(page: Page) -> None:
        page.add_init_script(f"{PLAIN}; Math.random = () => 0")
        page.route_web_socket(SOCKETS, routes.close)

    page = open_page(address, before=prepare)
    for attempt, code in enumerate(STAYS_AWAY, start=len(COMES_BACK) + 1):
        expect(page.locator("#stopped-reason")).to_have_text(f"because ({code})")
        assert routes.count == attempt
        page.get_by_role("button", name="Connect again").click()
    is_online(page)
    expect(page.get_by_role("button", name="Stop reading")).to_be_hidden()
    text = choose(page, "letters", length="a few lines")
    expect(text.locator(".state")).to_have_text(re.compile("Done"))


def test_waits_grow_with_full_jitter(open_page: OpenPage, address: str) -> None:
    """The n-th wait lies between 0 and min(20 s, 0.5 s · 2^n); the browser's `online` event cuts it short."""
    routes = Routes([1013] * 100)

    def prepare(page: Page) -> None:
        stop_clock(page)
        page.add_init_script(f"{PLAIN}; Math.random = () => 0.9999")
        page.route_web_socket(SOCKETS, routes.close)

    page = open_page(address, before=prepare)
    expect(page.locator("#state")).to_have_text("Offline")
    longest = 0
    while longest < 20:
        tried = routes.count
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(page.locator("#state")).to_have_text("Offline")
        assert routes.count == tried + 1
        longest = math.ceil(min(20, 0.5 * 2**tried))
        expect(page.locator("#countdown")).to_have_text(f"trying again in {longest} s")
