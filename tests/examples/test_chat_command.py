"""``python -m examples.chat``, as a person types it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def chat(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.chat", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path) -> None:
    """No traceback, exit code 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = chat("--port", str(port), "--database", str(tmp_path / "chat.sqlite3"))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"Port {port} on 127.0.0.1 is taken by another program; choose another with --port.\n"


def test_a_database_in_no_folder_is_told_in_one_sentence(tmp_path: Path) -> None:
    """The folder is named, and not made."""
    ended = chat("--port", "0", "--database", str(tmp_path / "none" / "chat.sqlite3"))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"There is no folder {tmp_path / 'none'} for the database;")
    assert list(tmp_path.iterdir()) == []
