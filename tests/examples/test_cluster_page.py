"""The page of ``examples/cluster`` in headless Chromium: what a person sees when nodes and the Redis go and come."""

import re
import signal
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, WebSocketRoute, expect

from tests.examples.browsing import DESK, PHONE, Demo, OpenPage, fits

CLIENTS = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn"]
NODES = ["node-1", "node-2", "node-3"]
SOON = 30_000
"""Milliseconds for what takes several deadlines, on a machine that is busy."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo("examples.cluster", tmp_path_factory.mktemp("cluster"))
    demo.start()
    yield demo
    demo.end(signal.SIGTERM)
    log = demo.log()
    demo.close()
    assert "Traceback" not in log, log


@pytest.fixture
def page(open_page: OpenPage, process: Demo) -> Iterator[Page]:
    """The page, with two clients on every node; at the end nothing was lost in silence."""
    page = enter(open_page, process)
    yield page
    grows(page, "acknowledged", 30)  # for two seconds, in which what was lost would be missed
    assert number(page, "silent") == 0


def enter(
    open_page: OpenPage,
    process: Demo,
    size: ViewportSize = DESK,
    before: Callable[[Page], object] | None = None,
) -> Page:
    page = open_page(f"http://127.0.0.1:{process.port}/", size=size, before=before)
    for node in NODES:
        has_state(page, node, "ready")
        has_clients(page, node, 2)
    all_is_well(page)
    return page


def has_state(page: Page, name: str, state: str | re.Pattern[str]) -> None:
    expect(page.locator(f"#{name} .state")).to_have_text(state, timeout=SOON)


def has_clients(page: Page, node: str, number: int) -> None:
    """Wait until so many clients are connected to a node."""
    expect(page.locator(f"#{node} .clients [data-state=online]")).to_have_count(number, timeout=SOON)


def do(page: Page, name: str, action: str) -> None:
    page.locator(f"#{name}").get_by_role("button", name=action).click()


def number(page: Page, id: str) -> int:
    return int(page.locator(f"#{id}").inner_text().replace(",", ""))


def grows(page: Page, id: str, by: int = 1) -> None:
    """Wait until a number has grown."""
    page.wait_for_function(
        "([id, to]) => Number(document.getElementById(id).textContent.replaceAll(',', '')) >= to",
        arg=[id, number(page, id) + by],
        timeout=SOON,
    )


def all_is_well(page: Page) -> None:
    """Wait until all six clients are there, on whatever node, see each other, and orders arrive again."""
    expect(page.locator(".clients [data-state=online]")).to_have_count(6, timeout=SOON)
    expect(page.locator(".clients .note")).to_have_text(["sees 6"] * 6, timeout=SOON)
    newest = page.locator("#orders li").first
    expect(newest).not_to_have_text(newest.inner_text())


def lines(page: Page, text: str) -> Locator:
    return page.locator("#events li", has_text=text)


def test_all_nodes_are_one(page: Page) -> None:
    """A message that is written at one node arrives at clients of all, and each client sees who is there."""
    names = page.locator("#present li span:first-child")
    expect(names).to_have_text(CLIENTS)
    for node in NODES:
        expect(page.locator(f"#{node} .facts")).to_contain_text("link up")
    for room in ("orders", "ticks"):
        for name in CLIENTS:
            expect(page.locator(f"#{room} li", has_text=name).first).to_be_visible()
    page.get_by_role("button", name="Cleo").click()
    expect(page.locator("#orders-title + p .watched")).to_have_text("Cleo")
    expect(names).to_have_text(CLIENTS)


@pytest.mark.parametrize(("action", "state"), [("Stop", "stopped"), ("Kill", "killed")])
def test_clients_of_a_node_that_ends_move_to_the_others(page: Page, action: str, state: str) -> None:
    """They get what they missed, nobody sees them leave, and when the node is back it can have them again."""
    do(page, "node-2", action)
    has_state(page, "node-2", state)
    for node, clients in (("node-1", 3), ("node-2", 0), ("node-3", 3)):
        has_clients(page, node, clients)
    all_is_well(page)
    for name in ("Bob", "Eve"):
        expect(lines(page, f"{name} on Node").filter(has_text="recovered")).to_have_count(1)
    do(page, "node-2", "Start")
    has_state(page, "node-2", "ready")
    page.get_by_role("button", name="Spread the clients").click()
    for node in NODES:
        has_clients(page, node, 2)
    all_is_well(page)
    expect(page.locator("#unrecovered")).to_have_text("0")
    expect(page.locator("#left")).to_have_text("0")


def test_a_node_that_is_frozen_loses_its_clients(page: Page) -> None:
    """They notice that it says nothing. When it goes on it hands on what it was sent before: that is late, not lost."""
    do(page, "node-3", "Freeze")
    has_state(page, "node-3", "frozen")
    for node, clients in (("node-1", 3), ("node-2", 3)):
        has_clients(page, node, clients)
    all_is_well(page)
    grows(page, "acknowledged", 40)
    do(page, "node-3", "Thaw")
    has_state(page, "node-3", "ready")
    page.get_by_role("button", name="Spread the clients").click()
    for node in NODES:
        has_clients(page, node, 2)
    all_is_well(page)


def test_a_redis_that_is_stopped_is_told_and_all_is_well_when_it_is_back(page: Page) -> None:
    """Orders are refused and ticks go on within a node; then ticks have a gap, and what was kept is not recovered."""
    do(page, "redis", "Stop")
    has_state(page, "redis", "stopped")
    for node in NODES:
        has_state(page, node, "not ready: no link to Redis")
        expect(page.locator(f"#{node} .facts")).to_contain_text("link down")
    expect(page.locator(".clients .note")).to_have_text(["unavailable"] * 6, timeout=SOON)
    grows(page, "refused")
    grows(page, "delivered")

    do(page, "redis", "Start")
    has_state(page, "redis", "ready")
    for node in NODES:
        has_state(page, node, "ready")
    all_is_well(page)
    expect(page.locator("#unrecovered")).to_have_text("6")
    expect(page.locator("#gaps")).not_to_have_text("0")
    expect(page.locator("#ticks .told").first).to_have_text("!gap: some may be missing")
    grows(page, "acknowledged")


def test_a_redis_that_is_frozen_is_told_and_orders_are_recovered(page: Page) -> None:
    """Nothing was lost with it: clients are not even told."""
    do(page, "redis", "Freeze")
    has_state(page, "redis", "frozen")
    for node in NODES:
        has_state(page, node, "not ready: no link to Redis")
    expect(page.locator(".clients .note")).to_have_text(["unavailable"] * 6, timeout=SOON)
    do(page, "redis", "Thaw")
    for node in NODES:
        has_state(page, node, "ready")
    all_is_well(page)
    expect(page.locator("#unrecovered")).to_have_text("0")


def test_nobody_leaves_while_all_nodes_are_restarted(page: Page) -> None:
    """One after the other: clients move twice or thrice, recover, and for the others they were always there."""
    page.get_by_role("button", name="Restart all nodes").click()
    expect(lines(page, "node-3 was restarted")).to_have_count(1, timeout=60_000)
    all_is_well(page)
    expect(page.locator("#unrecovered")).to_have_text("0")
    expect(page.locator("#left")).to_have_text("0")


def test_what_makes_no_sense_is_told(open_page: OpenPage, process: Demo) -> None:
    """A page that has not heard yet of what became of a node is told, in a banner that can be dismissed."""
    deaf = False

    def route(page: Page) -> None:
        page.route_web_socket(re.compile("/ws/control"), forward)

    def forward(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda frame: None if deaf and '"status"' in str(frame) else socket.send(frame))

    page = enter(open_page, process, before=route)
    deaf = True
    do(page, "node-1", "Kill")
    has_clients(page, "node-1", 0)
    do(page, "node-1", "Kill")
    expect(page.get_by_role("alert")).to_have_text("Can't kill node-1: it is stopped")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    deaf = False
    do(page, "node-1", "Start")
    has_state(page, "node-1", "ready")


@pytest.mark.parametrize("size", [PHONE, DESK], ids=lambda size: str(size["width"]))
def test_it_is_done_with_the_keyboard_and_fits(open_page: OpenPage, process: Demo, size: ViewportSize) -> None:
    """Buttons keep the focus while they change their meaning; nothing scrolls sideways."""
    page = enter(open_page, process, size)
    page.get_by_role("button", name="Freeze Node 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Thaw Node 1")).to_be_focused()
    has_state(page, "node-1", "frozen")
    assert fits(page, ".card, header, .title, .buttons, .clients, ol, dl")
    page.keyboard.press("Enter")
    has_state(page, "node-1", "ready")
    page.get_by_role("button", name="Bob").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#ticks-title + p .watched")).to_have_text("Bob")
    all_is_well(page)
