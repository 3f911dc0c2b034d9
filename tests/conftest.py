"""Fixtures of every test: nothing is left running, and nothing is logged as an error unless it is meant."""

import asyncio
import gc
import inspect
import logging
from collections.abc import AsyncIterator, Iterator

import coverage
import pytest
from hypothesis import settings

from tests.support import no_task_left

# A machine that is busy is not a bug, and what fails is printed in full.
settings.register_profile("wsrouter", deadline=None, database=None, print_blob=True)
settings.load_profile("wsrouter")

WATCHED_LOGGERS = ("wsrouter", "uvicorn.error", "hypercorn.error", "asyncio")

EXPECTED_ERRORS = frozenset(
    {
        # uvicorn's websockets-sansio says so for every handshake that is denied.
        "ASGI callable returned without completing handshake.",
    }
)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what is there for good: to look at it would stop every server for a second."""
    gc.collect()
    gc.freeze()


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in EXPECTED_ERRORS:
            self.texts.append(f"{record.name}: {self.format(record)}")


@pytest.fixture(autouse=True)
def no_logged_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which wsrouter, a server or asyncio logs an error, unless it is marked `logs_errors`."""
    records = _Records()
    watched = [logging.getLogger(name) for name in WATCHED_LOGGERS]
    levels = [logger.level for logger in watched]
    for logger in watched:
        logger.addHandler(records)
    yield
    for logger, level in zip(watched, levels, strict=True):
        logger.removeHandler(records)
        logger.setLevel(level)  # a server that is told its log level sets it for the whole process
    if records.texts and request.node.get_closest_marker("logs_errors") is None:
        pytest.fail("logged as errors:\n" + "\n".join(records.texts), pytrace=False)


@pytest.fixture
async def all_tasks_end(no_logged_errors: None) -> AsyncIterator[None]:
    """Fail if a task that the test started is pending when the test and its fixtures are through."""
    before = asyncio.all_tasks()
    yield
    try:
        await no_task_left(but=before)
    except AssertionError as failure:
        pytest.fail(str(failure), pytrace=False)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Apply `all_tasks_end` to every asynchronous test."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("all_tasks_end")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure no coverage in a test, nor in processes that it starts.

    SQLAlchemy's asyncio session runs its driver in greenlets. To follow them measuring would take half as long again
    for every other test, and without that it takes the lines of one file for those of another.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.stop()
    yield
    if measuring is not None:
        measuring.start()
