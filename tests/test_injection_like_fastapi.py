"""A tree of dependencies gives a message method the values and calls that it gives an HTTP route of FastAPI."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query, Security
from fastapi.security import SecurityScopes
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from tests.injecting import app_of, call
from wsrouter import WebSocketHandler, on
from wsrouter.testing import WebSocketTestClient

calls: list[str] = []


async def leaf() -> str:
    calls.append("leaf")
    return f"leaf {len(calls)}"


def sync_leaf() -> str:
    calls.append("sync leaf")
    return f"sync leaf {len(calls)}"


async def left(leaf: Annotated[str, Depends(leaf)]) -> str:
    calls.append("left")
    return f"left of {leaf}"


def right(leaf: Annotated[str, Depends(leaf)], sync: str = Depends(sync_leaf)) -> str:
    calls.append("right")
    return f"right of {leaf} and {sync}"


async def diamond(
    left: Annotated[str, Depends(left)], right: Annotated[str, Depends(right)], leaf: Annotated[str, Depends(leaf)]
) -> list[str]:
    calls.append("diamond")
    return [left, right, leaf]


async def uncached(
    one: Annotated[str, Depends(leaf, use_cache=False)],
    two: Annotated[str, Depends(leaf, use_cache=False)],
    left: Annotated[str, Depends(left)],
) -> list[str]:
    return [one, two, left]


async def uncached_last(
    left: Annotated[str, Depends(left)],
    one: Annotated[str, Depends(leaf, use_cache=False)],
    again: Annotated[str, Depends(leaf)],
) -> list[str]:
    return [left, one, again]


async def uncached_between(
    one: Annotated[str, Depends(left, use_cache=False)],
    two: Annotated[str, Depends(left, use_cache=False)],
    three: Annotated[str, Depends(left)],
) -> list[str]:
    return [one, two, three]


async def opened(leaf: Annotated[str, Depends(leaf)]) -> AsyncIterator[str]:
    calls.append("open")
    yield f"opened with {leaf}"
    calls.append("close")


def opened_in_thread(opened: Annotated[str, Depends(opened)]) -> Iterator[str]:
    calls.append("open in a thread")
    yield f"in a thread {opened}"
    calls.append("close in a thread")


async def generators(
    one: Annotated[str, Depends(opened)],
    two: Annotated[str, Depends(opened_in_thread)],
    three: Annotated[str, Depends(opened, use_cache=False)],
) -> list[str]:
    calls.append("generators")
    return [one, two, three]


class Filter:
    def __init__(
        self,
        q: str,
        leaf: Annotated[str, Depends(leaf)],
        limit: int = 10,
        x_name: Annotated[str, Header()] = "nobody",
        theme: Annotated[str | None, Cookie()] = None,
    ) -> None:
        calls.append("Filter")
        self.values = [q, leaf, limit, x_name, theme]


async def classes(one: Annotated[Filter, Depends()], two: Filter = Depends(Filter)) -> list[Any]:
    return [one.values, one is two]


class Paging(BaseModel):
    limit: int = 5
    tags: list[str] = []


async def paged(paging: Annotated[Paging, Query()]) -> dict[str, Any]:
    return paging.model_dump()


async def models(
    paging: Annotated[dict[str, Any], Depends(paged)], many: Annotated[list[int], Query(alias="n")], flag: bool = False
) -> list[Any]:
    return [paging, many, flag]


@dataclass(frozen=True)
class Named:
    name: str

    async def __call__(self, leaf: Annotated[str, Depends(leaf)]) -> str:
        calls.append(self.name)
        return f"{self.name} of {leaf}"


async def equal_instances(
    one: Annotated[str, Depends(Named("a"))],
    two: Annotated[str, Depends(Named("a"))],
    other: Annotated[str, Depends(Named("b"))],
) -> list[str]:
    return [one, two, other]


async def prefixed(prefix: str, leaf: Annotated[str, Depends(leaf)]) -> str:
    calls.append(prefix)
    return f"{prefix} {leaf}"


shared_partial = functools.partial(prefixed, "shared")


async def partials(
    one: Annotated[str, Depends(shared_partial)],
    two: Annotated[str, Depends(shared_partial)],
    other: Annotated[str, Depends(functools.partial(prefixed, "other"))],
) -> list[str]:
    return [one, two, other]


async def scoped(scopes: SecurityScopes, leaf: Annotated[str, Depends(leaf)]) -> str:
    calls.append(f"scoped {scopes.scope_str}")
    return f"{scopes.scopes} {leaf}"


async def under(scoped: Annotated[str, Security(scoped, scopes=["inner", "shared"])]) -> str:
    calls.append("under")
    return scoped


async def blind(leaf: Annotated[str, Depends(leaf)]) -> str:
    calls.append("blind")
    return leaf


async def security(
    one: Annotated[str, Security(under, scopes=["outer", "shared"])],
    two: Annotated[str, Security(scoped, scopes=["shared", "inner", "outer"])],
    three: Annotated[str, Depends(scoped)],
    four: Annotated[str, Security(scoped, scopes=["inner", "outer", "shared"])],
    five: Annotated[str, Security(blind, scopes=["a"])],
    six: Annotated[str, Depends(blind)],
    seven: Annotated[str, Security(blind, scopes=["a"])],
) -> list[str]:
    return [one, two, three, four, five, six, seven]


async def connection(connection: HTTPConnection, left: Annotated[str, Depends(left)]) -> list[Any]:
    return [connection.headers["x-name"], connection.query_params["q"], connection.cookies["theme"], left]


async def replacement(q: str, right: Annotated[str, Depends(right)]) -> str:
    calls.append("replacement")
    return f"replacement {q} {right}"


async def substitute() -> AsyncIterator[str]:
    calls.append("open the substitute")
    yield f"substitute {len(calls)}"
    calls.append("close the substitute")


TREES: list[Callable[..., Any]] = [
    diamond,
    uncached,
    uncached_last,
    uncached_between,
    generators,
    classes,
    models,
    equal_instances,
    partials,
    security,
    connection,
]
QUERY = {"q": "hello", "limit": "7", "tags": ["a", "b"], "n": ["1", "2"], "flag": "on"}
PATH = "?q=hello&limit=7&tags=a&tags=b&n=1&n=2&flag=on"
HEADERS = {"x-name": "Ada"}


async def by_fastapi(tree: Callable[..., Any], overrides: dict[Any, Any]) -> tuple[Any, list[str]]:
    app = FastAPI()
    app.dependency_overrides.update(overrides)

    async def route(value: Annotated[Any, Depends(tree)]) -> Any:
        calls.append("called")
        return value

    app.add_api_route("/tree", route)
    calls.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/tree" + PATH, headers={**HEADERS, "cookie": "theme=dark"})
    assert answer.status_code == 200, answer.text
    return answer.json(), calls.copy()


async def by_wsrouter(tree: Callable[..., Any], overrides: dict[Any, Any]) -> list[tuple[Any, list[str]]]:
    """Return values and calls of two messages on one connection."""

    class Handler(WebSocketHandler):
        @on("tree")
        async def answer(self, message: None, value: Annotated[Any, Depends(tree)]) -> Any:
            calls.append("called")
            return value

    app = app_of(Handler, "/tree")
    app.dependency_overrides.update(overrides)
    answers: list[tuple[Any, list[str]]] = []
    async with (
        WebSocketTestClient(app) as client,
        client.connect("/tree" + PATH, headers=HEADERS, cookies={"theme": "dark"}) as ws,
    ):
        for _ in range(2):
            calls.clear()
            answer = await call(ws, "tree")
            answers.append((answer, calls.copy()))
    return answers


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {leaf: sync_leaf},
        {left: replacement},
        {leaf: substitute, sync_leaf: substitute},
        {blind: scoped, under: replacement},
    ],
    ids=["as declared", "a leaf overridden", "a branch overridden", "two by one override", "under scopes"],
)
@pytest.mark.parametrize("tree", TREES)
async def test_values_and_calls_are_those_of_fastapi(tree: Callable[..., Any], overrides: dict[Any, Any]) -> None:
    """Values, number of calls, their order, and the order of clean-ups are the same, for every message."""
    expected = await by_fastapi(tree, overrides)
    assert await by_wsrouter(tree, overrides) == [expected, expected]
