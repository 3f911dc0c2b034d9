"""``python -m examples.ticker``, as a person types it."""

import socket
import subprocess
import sys

import pytest

from tests.examples.browsing import ROOT

pytestmark = pytest.mark.timeout(60)


def ticker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.ticker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    """No traceback, exit code 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = ticker("--port", str(port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"Port {port} on 127.0.0.1 is taken by another program; choose another with --port.\n"


def test_an_origin_that_is_none_is_told_in_one_sentence() -> None:
    """It says what was expected, without a traceback."""
    ended = ticker("--port", "0", "--origin", "ticker.example")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "ticker.example" in ended.stderr
