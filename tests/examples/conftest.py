"""Fixtures of the tests of examples: the browser that drives their pages, and no measuring of coverage."""

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.examples.browsing import DESK, OpenPage, chromium

CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=15_000)


@pytest.fixture(autouse=True)
def examples_are_not_measured(unmeasured: None) -> None:
    """Apply `unmeasured` to every test of an example."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Yield what opens a page, and check at the end that none had an error."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(
        address: str,
        *,
        size: ViewportSize = DESK,
        scheme: Literal["light", "dark"] = "light",
        before: Callable[[Page], object] | None = None,
    ) -> Page:
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if before is not None:
            before(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
