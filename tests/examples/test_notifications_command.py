"""``python -m examples.notifications``, as a person types it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.browsing import ROOT

pytestmark = pytest.mark.timeout(60)


def notifications(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.notifications", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path) -> None:
    """No traceback, exit code 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = notifications("--port", str(port), "--database", str(tmp_path / "notifications.sqlite3"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Port {port} on 127.0.0.1 is taken by another program; choose another with --port.\n"


def test_a_redis_that_is_none_is_told_in_one_sentence(tmp_path: Path) -> None:
    """It says what was expected, without a traceback."""
    database = str(tmp_path / "notifications.sqlite3")
    ended = notifications("--port", "0", "--database", database, "--redis", "redis.example")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("The address of Redis: expected one such as 'redis://")
    assert ended.stderr.count("\n") == 1
