"""What tests of pages share: an example in a process of its own, an application in a thread, a browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Literal, Protocol

import pytest
import uvicorn
from playwright.sync_api import Page, ViewportSize, WebSocketRoute
from starlette.types import ASGIApp

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PHONE: ViewportSize = {"width": 360, "height": 740}
DESK: ViewportSize = {"width": 1280, "height": 800}


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first is Chromium without a window, and needs a third of the others' time for a page."""


def chromium() -> str:
    """Return where Chromium is. Where there is none the test is skipped, or fails if one is required."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        notice = "There is no chromium on PATH: pages were not tested."
        if os.environ.get("WSROUTER_REQUIRE_CHROMIUM") == "1":
            pytest.fail(notice)
        pytest.skip(notice)
    return found


class Demo:
    """An example in a process of its own, which keeps its port when it is started again.

    Args:
        module: such as ``examples.chat``.
        folder: where its log is kept.
        arguments: of its command line, besides the port.
    """

    def __init__(self, module: str, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", module, *arguments]
        self._log: IO[str] = (folder / "log").open("w+")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        process = subprocess.Popen(
            [*self._command, "--port", str(self.port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._process = process
        assert process.stdout is not None
        assert f"http://127.0.0.1:{self.port}/" in process.stdout.readline(), self.log()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.communicate(timeout=15)
            self._process = None

    def log(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        self._log.close()


class OpenPage(Protocol):
    """Open a page in a browser of its own; that it had no error is checked when the test ends."""

    def __call__(
        self,
        address: str,
        *,
        size: ViewportSize = ...,
        scheme: Literal["light", "dark"] = ...,
        before: Callable[[Page], object] | None = None,
    ) -> Page: ...


def stop_clock(page: Page) -> None:
    """From the first moment of a page on, no time passes on it: no wait and no deadline ends by itself."""
    now = datetime.now(UTC)
    page.clock.install(time=now)
    page.clock.pause_at(now + timedelta(seconds=1))


class Routes:
    """Close one WebSocket after the other, each with the next of some codes, then let them through."""

    def __init__(self, codes: list[int]) -> None:
        self.count = 0
        self._codes = iter(codes)

    def close(self, route: WebSocketRoute) -> None:
        self.count += 1
        code = next(self._codes, None)
        if code is None:
            route.connect_to_server()
        else:
            route.close(code=code, reason="because")


def fits(page: Page, parts: str) -> bool:
    """Whether neither the page nor any of its parts scrolls sideways; ``parts`` is a CSS selector."""
    overflowing: list[str] = page.evaluate(
        """(parts) => [document.documentElement, ...document.querySelectorAll(parts)]
            .filter((element) => element.scrollWidth > element.clientWidth + 1)
            .map((element) => element.tagName)""",
        parts,
    )
    return overflowing == []


@contextmanager
def serve_in_thread(app: ASGIApp) -> Generator[int]:
    """Serve an application beside a test that drives a browser, and yield its port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]  # connections wait in its backlog until it is ready
        finally:
            server.should_exit = True
            thread.join(timeout=15)
            assert not thread.is_alive()
