"""A certificate for 127.0.0.1, and each event loop that a server may run on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from tests.certificate import Certificate, make_certificate

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on asyncio's event loop, and on uvloop's."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Certificate | None:
    """The certificate, and none."""
    if request.param == "plain":
        return None
    made: Certificate = request.getfixturevalue("certificate")
    return made
