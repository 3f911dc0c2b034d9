"""What a user's editor shows: mypy and pyright, both strict, on files that use the package as users do.

`tests/typing` holds them. In `refused.py` every mistake carries the error that it is expected to be, as an ignore;
both checkers report an ignore that nothing needs.
"""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ROOT / "tests" / "typing"

TIMEOUT = 240
"""Seconds for one run of a checker; without a cache it reads FastAPI and pydantic too."""


@pytest.mark.timeout(TIMEOUT + 30)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_checker_infers_what_is_promised(checker: str) -> None:
    """Hooks and methods are overridden without an ignore, decorators return what they got, and mistakes are found."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed; make check does that")
    command = [sys.executable, "-m", checker, str(FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.glob("[!_]*.py") if path.stem != "refused"))
def test_what_checkers_accept_can_be_registered(name: str) -> None:
    """The router takes every handler that the checkers take."""
    importlib.import_module(f"tests.typing.{name}")
