"""The page of ``examples/notifications`` in headless Chromium, against the example as its commands start it."""

import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, WebSocketRoute, expect

from tests.examples.browsing import DESK, PHONE, ROOT, Demo, OpenPage, Routes, fits
from tests.redis_server import serve_redis

SOCKETS = re.compile(r"/ws/device")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The example in one process, the worker included."""
    folder = tmp_path_factory.mktemp("notifications")
    demo = Demo("examples.notifications", folder, "--database", str(folder / "notifications.sqlite3"), "--takes", "0.5")
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


def hasten(page: Page) -> None:
    """Make every wait short."""
    page.add_init_script("Math.random = () => 0.1")


def is_online(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Online")


def sign_in(page: Page, name: str) -> Page:
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Your name").press("Enter")
    is_online(page)
    expect(page.locator("#you")).to_have_text(name)
    return page


def send(page: Page, to: str, text: str) -> None:
    page.get_by_label("To", exact=True).fill(to)
    page.get_by_label("Text").fill(text)
    page.get_by_label("Text").press("Enter")
    expect(page.locator("#letter-outcome")).to_have_text(f"Sent to {to}.")


def inbox(page: Page) -> Locator:
    return page.locator("#notifications .text")


def unread(page: Page) -> Locator:
    return page.locator("#notifications .unread .text")


def wait_until_done(database: str, exports: int) -> None:
    """Wait until the worker has made so many exports."""
    deadline = time.monotonic() + 15
    with closing(sqlite3.connect(database)) as connection:
        while connection.execute("SELECT count(*) FROM exports WHERE done").fetchone()[0] < exports:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_is_sent_is_seen_on_every_device_and_read_on_every_device(open_page: OpenPage, address: str) -> None:
    """Two devices of one user have the same inbox at any time; markup is text; the title counts."""
    phone, laptop = sign_in(open_page(address, size=PHONE), "Ada"), sign_in(open_page(address), "Ada")
    bob = sign_in(open_page(address), "Bob")
    send(bob, "Ada", "<b>Tea</b> is ready")
    send(bob, "Ada", "Cake, too")
    for page in (phone, laptop):
        expect(unread(page)).to_have_text(["Cake, too", "<b>Tea</b> is ready"])
        expect(page).to_have_title("(2) Notifications")
        expect(page.locator("#notifications .from").first).to_contain_text("Bob · ")
    expect(inbox(bob)).to_have_count(0)

    phone.get_by_role("button", name="Mark as read").nth(1).click()
    for page in (phone, laptop):
        expect(unread(page)).to_have_text(["Cake, too"])
    expect(phone.get_by_role("button", name="Mark as read")).to_be_focused()
    laptop.get_by_role("button", name="Mark all as read").click()
    for page in (phone, laptop):
        expect(unread(page)).to_have_count(0)
        expect(inbox(page)).to_have_count(2)
        expect(page).to_have_title("Notifications")
    phone.reload()
    is_online(phone)
    expect(inbox(phone)).to_have_count(2)
    expect(unread(phone)).to_have_count(0)


def test_the_worker_tells_when_an_export_is_ready(open_page: OpenPage, address: str) -> None:
    """The page may be closed by then: the next one finds it, once."""
    page = sign_in(open_page(address), "Cleo")
    page.get_by_role("button", name="Export my data").click()
    expect(page.locator("#export-outcome")).to_have_text("Ordered. You may leave.")
    expect(unread(page)).to_have_text(["Your export is ready."])
    page.get_by_role("button", name="Export my data").click()
    expect(page.locator("#export-outcome")).to_have_text("Ordered. You may leave.")
    page.goto("about:blank")
    page.goto(address)
    expect(unread(page)).to_have_text(["Your export is ready."] * 2)


def test_the_page_comes_back_and_shows_nothing_twice(open_page: OpenPage, process: Demo, address: str) -> None:
    """After the server was killed it signs in again by itself; what failed meanwhile is told, and can be sent again."""
    page = sign_in(open_page(address, before=hasten), "Dora")
    send(page, "Dora", "before")
    process.end(signal.SIGKILL)
    expect(page.locator("#state")).to_have_text("Offline")
    page.get_by_role("button", name="Mark as read").click()
    expect(page.locator("#problem")).to_have_text("Not marked as read: There is no connection.")
    page.get_by_label("Text").fill("after")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#letter-outcome")).to_have_text("The server can't be reached. Try again.")
    process.start()
    is_online(page)
    expect(unread(page)).to_have_text(["before"])
    page.get_by_role("button", name="Send").click()
    expect(unread(page)).to_have_text(["after", "before"])
    expect(page.locator("#problem")).to_be_hidden()


def test_a_gap_makes_the_page_load(open_page: OpenPage, address: str) -> None:
    """Told that something may be missing, it asks for all, and shows once what it had."""
    lose = True

    def route(page: Page) -> None:
        page.route_web_socket(SOCKETS, lose_notifications)

    def lose_notifications(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def forward(frame: str | bytes) -> None:
            nonlocal lose
            if lose and '"type":"notification"' in str(frame):
                lose = False
                frame = '{"type":"$gap","data":{"dropped":null}}'
            socket.send(frame)

        server.on_message(forward)

    page = sign_in(open_page(address, before=route), "Emil")
    for text in ("lost on the way", "and not lost"):
        send(page, "Emil", text)
    expect(unread(page)).to_have_text(["and not lost", "lost on the way"])
    assert lose is False


def test_it_asks_for_a_name_and_says_what_is_wrong_with_one(open_page: OpenPage, address: str) -> None:
    """A name can be changed; the other's inbox is then shown, and nothing of the first."""
    page = open_page(address)
    expect(page.get_by_label("Your name")).to_be_focused()
    sign_in(page, "Finn")
    send(page, "Finn", "for Finn")
    page.get_by_role("button", name="Change").click()
    expect(page.get_by_label("Your name")).to_have_value("Finn")
    page.get_by_label("Your name").evaluate("(input) => input.removeAttribute('maxlength')")
    page.get_by_label("Your name").fill("F" * 41)
    page.get_by_label("Your name").press("Enter")
    expect(page.locator("#stopped-reason")).to_contain_text("at most 40 characters (422)")
    page.get_by_role("button", name="Change").click()
    sign_in(page, "Gwen")
    expect(page.locator("#empty")).to_be_visible()
    expect(inbox(page)).to_have_count(0)


def test_who_may_come_back_does_so_by_itself(open_page: OpenPage, address: str) -> None:
    """With a new sign-in where nobody knows it any more, after a wait where the server is in trouble."""
    routes = Routes([4401, 1012, 4503, 4519, 4403])

    def prepare(page: Page) -> None:
        page.add_init_script("Math.random = () => 0; localStorage.setItem('notifications name', 'Hugo')")
        page.route_web_socket(SOCKETS, routes.close)

    page = open_page(address, before=prepare)
    expect(page.locator("#stopped-reason")).to_have_text("because (4403)")
    assert routes.count == 5
    page.get_by_role("button", name="Connect again").click()
    is_online(page)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=lambda size: str(size["width"]))
def test_it_is_done_with_the_keyboard_and_fits(open_page: OpenPage, address: str, size: ViewportSize) -> None:
    """From the name to the last notification; no text makes the page scroll sideways."""
    page = open_page(address, size=size, scheme="dark")
    page.keyboard.type("W" * 40)
    page.keyboard.press("Enter")
    is_online(page)
    for text in ("w" * 500, "short"):
        send(page, "W" * 40, text)
    expect(unread(page).first).to_have_text("short")
    page.get_by_role("button", name="Mark all as read").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(unread(page).first).to_have_text("w" * 500)
    page.keyboard.press("Enter")
    expect(unread(page)).to_have_count(0)
    assert fits(page, ".card, header, .heading, li")


def test_a_notification_of_the_worker_comes_when_the_page_is_back(open_page: OpenPage, tmp_path: Path) -> None:
    """Server and worker are two processes on one Redis. The worker tells while the server is away: once, afterwards."""
    database = str(tmp_path / "notifications.sqlite3")
    with serve_redis() as redis:
        demo = Demo("examples.notifications", tmp_path, "--database", database, "--redis", redis.url)
        worker = [sys.executable, "-m", "examples.notifications.worker", "--takes", "1"]
        worker += ["--database", database, "--redis", redis.url]
        demo.start()
        with subprocess.Popen(worker, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as working:
            try:
                assert working.stdout is not None
                assert "waits" in working.stdout.readline()
                page = sign_in(open_page(f"http://127.0.0.1:{demo.port}/", before=hasten), "Ada")
                order = page.get_by_role("button", name="Export my data")
                order.click()
                expect(unread(page)).to_have_text(["Your export is ready."])
                order.click()
                expect(page.locator("#export-outcome")).to_have_text("Ordered. You may leave.")
                demo.end(signal.SIGKILL)
                expect(page.locator("#state")).to_have_text("Offline")
                wait_until_done(database, 2)
                demo.start()
                is_online(page)
                expect(unread(page)).to_have_text(["Your export is ready."] * 2)
            finally:
                demo.end(signal.SIGTERM)
                working.terminate()
                assert "Traceback" not in demo.log() + working.communicate(timeout=10)[0]
                demo.close()
