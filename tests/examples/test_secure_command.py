"""``python -m examples.secure``, as a person types it."""

import os
import socket
import subprocess
import sys

import pytest

from tests.examples.browsing import ROOT

pytestmark = pytest.mark.timeout(120)


def secure(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.secure", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    """No traceback, exit code 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = secure("--port", str(port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"Port {port} on 127.0.0.1 is taken by another program; choose another with --port.\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (("--origin", "board.example"), {}, "board.example"),
        ((), {"BOARD_KEY": "short"}, "32 bytes"),
    ],
    ids=["an origin that is none", "a weak key"],
)
def test_what_makes_no_sense_is_told_in_one_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    """It says what was expected, without a traceback, and never quotes the key."""
    ended = secure("--port", "0", *arguments, **environment)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert named in ended.stderr
    assert "short" not in ended.stderr.replace("too short", "")
