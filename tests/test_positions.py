"""Parameters of type `Position | None`: where the handshake says how far a client has read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query

from tests.envelopes import app_of, receive, send
from tests.support import connect, serve
from wsrouter import ConfigurationError, Message, Position, WebSocketHandler, WebSocketRouter, on
from wsrouter.history import NOWHERE


class Stands(Message):
    at: str | None


class Telling(WebSocketHandler):
    """Tells its client where it stands."""

    since: Position | None

    async def on_connect(self) -> Stands:
        return Stands(at=None if self.since is None else str(self.since))


class Constructor(Telling):
    def __init__(self, since: Position | None = None) -> None:
        self.since = since


class NoDefault(Telling):
    def __init__(self, since: Position | None, other: int) -> None:
        self.since = since


class OldSpelling(Telling):
    def __init__(self, since: Optional[Position] = None) -> None:  # noqa: UP045 # that is what it is about
        self.since = since


@dataclass
class Fields(Telling):
    other: int
    since: Position | None = None


class Hook(WebSocketHandler):
    async def on_connect(self, since: Position | None = None) -> Stands:
        return Stands(at=None if since is None else str(since))


def from_query(since: Position | None = None) -> Position | None:
    return since


class Dependent(Telling):
    def __init__(self, where: Annotated[Position | None, Depends(from_query)]) -> None:
        self.since = where


class Keyword(Telling):
    def __init__(self, *, since: Position | None = None) -> None:
        self.since = since


class Several(Telling):
    def __init__(self, other: Position | None = None, since: Position | None = None) -> None:
        self.since = since


HANDLERS = [Constructor, NoDefault, OldSpelling, Fields, Hook, Dependent, Keyword, Several]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("", None),
        ("&since=a-_9:3", "a-_9:3"),
        ("&since=nonsense", str(NOWHERE)),
        ("&since=", str(NOWHERE)),
        ("&since=a:1&since=b:2", "b:2"),
        ("&Since=a:1", None),
    ],
)
async def test_it_comes_from_the_query(handler: type[WebSocketHandler], query: str, at: str | None) -> None:
    """The query parameter of its name: `None` without one, and for any text that is none a position of no stream."""
    async with serve(app_of(handler)) as server, connect(server, f"/?other=1{query}") as ws:
        assert (await receive(ws))["data"] == {"at": at}


class Alias(Telling):
    def __init__(self, since: Annotated[Position | None, Query(alias="from")] = None) -> None:
        self.since = since


class InHeader(Telling):
    def __init__(self, x_since: Annotated[Position | None, Header()] = None) -> None:
        self.since = x_since


class InCookie(Telling):
    def __init__(self, since: Annotated[Position | None, Cookie()] = None) -> None:
        self.since = since


@pytest.mark.parametrize(
    ("handler", "path", "headers"),
    [
        (Alias, "/?from={}&since=x:1", {}),
        (InHeader, "/?x_since=x:1", {"X-Since": "{}"}),
        (InCookie, "/?since=x:1", {"Cookie": "since={}"}),
    ],
)
async def test_it_may_come_from_elsewhere(handler: type[Telling], path: str, headers: dict[str, str]) -> None:
    """`Query(alias=...)`, `Header()` and `Cookie()` say where, as of any other parameter."""
    async with serve(app_of(handler)) as server:
        for text, at in ("e:7", "e:7"), ("nonsense", str(NOWHERE)):
            given = {name: value.format(text) for name, value in headers.items()}
            async with connect(server, path.format(text), additional_headers=given) as ws:
                assert (await receive(ws))["data"] == {"at": at}


async def stored() -> Position:
    return Position("stored", 5)


class FromStore(Telling):
    def __init__(self, since: Position | None = Depends(stored)) -> None:
        self.since = since


class CertainlyFromStore(Telling):
    def __init__(self, since: Annotated[Position, Depends(stored)]) -> None:
        self.since = since


@pytest.mark.parametrize("handler", [FromStore, CertainlyFromStore])
async def test_a_dependency_gives_it_and_no_client_does(handler: type[Telling]) -> None:
    """A parameter that is injected is not read from the query, whatever its type."""
    async with serve(app_of(handler)) as server, connect(server, "/?since=x:1") as ws:
        assert (await receive(ws))["data"] == {"at": "stored:5"}


class Reading(WebSocketHandler):
    @on("where")
    async def where(self, payload: None, since: Position | None = None) -> str:
        return str(since)


async def test_a_method_reads_that_of_the_handshake() -> None:
    """In a message method it is the position of the handshake too."""
    async with serve(app_of(Reading)) as server, connect(server, "/?since=e:2") as ws:
        await send(ws, "where", id=1)
        assert (await receive(ws))["data"] == "e:2"


class Required(WebSocketHandler):
    def __init__(self, since: Position) -> None: ...


class RequiredInHook(WebSocketHandler):
    async def on_connect(self, since: Position) -> None: ...


class RequiredInMethod(WebSocketHandler):
    @on("where")
    async def where(self, payload: None, since: Annotated[Position, Query()]) -> None: ...


def demanding(since: Position) -> None: ...


class RequiredInDependency(WebSocketHandler):
    def __init__(self, nothing: Annotated[None, Depends(demanding)]) -> None: ...


@pytest.mark.parametrize("handler", [Required, RequiredInHook, RequiredInMethod, RequiredInDependency])
def test_a_position_that_everybody_must_have_is_a_mistake(handler: type[WebSocketHandler]) -> None:
    """Who comes for the first time has none; registration says so."""
    with pytest.raises(ConfigurationError, match=r"since.*Position \| None") as failure:
        WebSocketRouter().add_handler("/", handler)
    assert handler.__name__ in str(failure.value)


class ByDefault(WebSocketHandler):
    def __init__(self, since: Position | None = Query(None, alias="from")) -> None: ...  # noqa: B008


def test_its_default_does_not_say_where_it_comes_from() -> None:
    """`Query(...)` stands in the annotation, where what reads a position can stand beside it."""
    with pytest.raises(ConfigurationError, match=r"write Annotated\[Position \| None, Query\(\.\.\.\)\] = None"):
        WebSocketRouter().add_handler("/", ByDefault)


async def test_a_guard_reads_it_too() -> None:
    """Guards are dependencies as any other."""
    seen: list[Any] = []

    async def guard(since: Position | None = None) -> None:
        seen.append(since)

    router = WebSocketRouter(guards=[guard])
    router.add_handler("/", Constructor)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server, "/?since=e:2") as ws:
        await receive(ws)
    assert seen == [Position("e", 2)]
