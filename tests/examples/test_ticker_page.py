"""The page of ``examples/ticker`` in headless Chromium, against the example as its command starts it."""

import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from examples.ticker.market import COMPANIES
from tests.examples.browsing import DESK, PHONE, Demo, OpenPage, fits

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo("examples.ticker", tmp_path_factory.mktemp("ticker"), "--patience", "1")
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


def is_online(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Online")
    expect(page.locator("#my-rate")).to_have_text(re.compile(r"[1-9]"))


def drawn(page: Page, id: str) -> int:
    """Return how many pixels of a chart are not empty."""
    pixels: int = page.evaluate(
        """(id) => {
            const canvas = document.getElementById(id);
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.reduce((count, value, index) => count + (index % 4 === 3 && value > 0), 0);
        }""",
        id,
    )
    return pixels


def test_prices_move_and_a_share_is_chosen(open_page: OpenPage, address: str) -> None:
    """By mouse and by arrow keys; its chart is drawn, and its price changes."""
    page = open_page(address)
    is_online(page)
    expect(page.locator("#shares tr")).to_have_count(len(COMPANIES))
    expect(page.locator("#share-name")).to_have_text("Acorn Works (ACO)")
    page.get_by_role("button", name="CIN").click()
    expect(page.locator("#share-name")).to_have_text("Cinder Steel (CIN)")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#share-name")).to_have_text("Delta Canals (DEL)")
    expect(page.get_by_role("button", name="DEL")).to_be_focused()
    expect(page.get_by_role("button", name="DEL", pressed=True)).to_have_count(1)
    before = page.locator("#share-price").inner_text()
    expect(page.locator("#share-price")).not_to_have_text(before)
    expect(page.locator("#share-change")).to_have_text(re.compile(r"[▲▼] [+-]?\d+\.\d\d%"))
    assert drawn(page, "price-chart") > 1000


def test_one_client_is_slow_and_the_page_is_not(open_page: OpenPage, address: str) -> None:
    """The slow one lags and is given up when it takes nothing; the page sees every price, and comes to no harm."""
    page = open_page(address)
    is_online(page)
    page.get_by_text("reads slowly", exact=True).click()
    expect(page.locator("#slow-lag")).to_have_text(re.compile(r"\d\.\d s"))
    expect(page.locator("#slow-pending")).to_have_text(re.compile(r"\d\d KiB"))
    page.get_by_role("radio", name="reads slowly").press("ArrowRight")
    expect(page.locator("#superseded")).to_have_text(re.compile("[1-9]"))
    expect(page.locator("#slow-rate")).to_have_text("0")
    expect(page.locator("#verdict")).to_contain_text("given it up (4508)")
    expect(page.get_by_role("radio", name="away")).to_be_checked()
    expect(page.locator("#given-up")).to_have_text("1")
    expect(page.locator("#connections")).to_have_text("1")
    expect(page.locator("#dropped")).to_have_text("0")
    is_online(page)
    expect(page.locator("#my-missed")).to_have_text("0")
    assert drawn(page, "lag-chart") > 500


def test_the_page_comes_back(open_page: OpenPage, process: Demo, address: str) -> None:
    """When the server is there again, with the same share chosen."""
    page = open_page(address, before=lambda page: page.add_init_script("Math.random = () => 0.1"))
    is_online(page)
    page.get_by_role("button", name="RIV").click()
    process.end(signal.SIGKILL)
    expect(page.locator("#state")).to_have_text("Offline")
    expect(page.get_by_role("radio", name="away")).to_be_disabled()
    process.start()
    is_online(page)
    expect(page.locator("#share-name")).to_have_text("Riverbed (RIV)")
    expect(page.locator("#shares tr")).to_have_count(len(COMPANIES))
    expect(page.get_by_role("radio", name="away")).to_be_enabled()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=lambda size: str(size["width"]))
def test_it_fits(open_page: OpenPage, address: str, size: ViewportSize) -> None:
    """Nothing scrolls sideways, on a phone either."""
    page = open_page(address, size=size, scheme="dark")
    is_online(page)
    assert fits(page, ".card, header, table, .heading, #pace, dl")
