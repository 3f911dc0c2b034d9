"""What becomes of a version of uvicorn that has not what the protocol class uses."""

import logging

import pytest
import uvicorn
from uvicorn.config import Config

from wsrouter import ConfigurationError
from wsrouter.uvicorn.requirements import TESTED, absent, check


def test_this_version_is_tested(caplog: pytest.LogCaptureFixture) -> None:
    """With the versions that are installed nothing is missing, and nobody is warned."""
    check()
    assert caplog.records == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what is missing, and says what to do."""
    monkeypatch.delattr(Config, "load")
    with pytest.raises(ConfigurationError, match=r"uses uvicorn\.config:Config\.load, which .* or run uvicorn without"):
        check()


def test_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A version that has all, but was not tested, gets one warning."""
    monkeypatch.setattr(uvicorn, "__version__", "0.99.1")
    with caplog.at_level(logging.WARNING, "wsrouter"):
        check()
    [record] = caplog.records
    assert (
        record.getMessage()
        == f"wsrouter.uvicorn was not tested with uvicorn 0.99.1, only with {', '.join(sorted(TESTED))}"
    )


def test_absent_names_are_found() -> None:
    """A module, an attribute and an attribute of an attribute may be missing."""
    names = ["uvicorn:Config", "uvicorn:Config.load", "uvicorn:No", "uvicorn:Config.no", "uvicorn.no:Config"]
    assert [*absent(names)] == names[2:]
