"""Mistakes in a row: each a function that makes one, and what the text of its `ConfigurationError` has to say."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fastapi import APIRouter, FastAPI

from wsrouter import ConfigurationError, WebSocketRouter
from wsrouter.testing import WebSocketTestClient


class Mistake(NamedTuple):
    """A function that makes a mistake, or an application with one."""

    make: Callable[[], object]
    texts: tuple[str, ...]


class Mistakes(list[Mistake]):
    """The mistakes of one test."""

    def refused(self, *texts: str) -> Callable[[Callable[[], object]], None]:
        """Add a mistake; use it as a decorator.

        Args:
            texts: what the error's text has to contain: class, parameter and cure.
        """

        def add(make: Callable[[], object]) -> None:
            self.append(Mistake(make, texts))

        return add

    def each(self) -> pytest.MarkDecorator:
        """Return what runs a test for each mistake."""
        names = [mistake.make.__name__.strip("_").replace("_", " ") for mistake in self]
        return pytest.mark.parametrize("mistake", list(self), ids=names)


def register(handler: Any, path: str = "/ws", **options: Any) -> None:
    """Register a handler on a router of its own."""
    WebSocketRouter(**options).add_handler(path, handler)


def check_refused(mistake: Mistake) -> None:
    """Check that a mistake raises at once, and says what it has to."""
    with pytest.raises(ConfigurationError) as wrong:
        mistake.make()
    for text in mistake.texts:
        assert text in str(wrong.value)


async def check_refused_at_start(mistake: Mistake) -> None:
    """Check that an application is made without complaint and does not start, and that the text says why."""
    app = mistake.make()
    assert isinstance(app, FastAPI)
    with pytest.raises(ConfigurationError) as wrong:
        async with WebSocketTestClient(app):
            pass
    for text in mistake.texts:
        assert text in str(wrong.value)


def app_of(*routers: APIRouter, **options: Any) -> FastAPI:
    """Return an application that includes routers."""
    app = FastAPI()
    for router in routers:
        app.include_router(router, **options)
    return app
