"""`?key=x` never reaches a parameter that is marked Provide: in no place, at no depth, for no type."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import connect, eventually, serve

MODULE = '''
from dataclasses import dataclass
from typing import Annotated, Any, NewType

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import Depends, FastAPI, Query
from typing_extensions import TypeAliasType

from wsrouter import CloseInfo, Connection, ConnectionScoped, WebSocketHandler, WebSocketRouter, on


class Key:
    """A class that pydantic knows nothing of."""


class Container(containers.DeclarativeContainer):
    text = providers.Object("of the container")
    number = providers.Object(7)
    instance = providers.Singleton(Key)


KeyText = NewType("KeyText", str)
NamedKey = TypeAliasType("NamedKey", Annotated[str, Provide[Container.text]])
got: list[tuple[str, Any]] = []


async def one(KEY) -> Any:
    return key


def one_in_thread(KEY) -> Any:
    return key


class One:
    def __init__(self, KEY) -> None:
        self.key = key


async def two(
    key_one: Annotated[Any, Depends(one)],
    key_thread: Annotated[Any, Depends(one_in_thread)],
    key_class: Annotated[One, Depends()],
) -> Any:
    assert key_one is key_thread is key_class.key
    return key_one


async def lasting(key_two: Annotated[Any, Depends(two)]) -> Any:
    return key_two


async def guard(one: Annotated[Any, Depends(one)], two: Annotated[Any, Depends(two)], KEY) -> None:
    got.extend([("guard", key), ("guard", one), ("guard", two)])


async def passing(
    message: Any,
    connection: Connection,
    call_next: Any,
    one: Annotated[Any, Depends(one)],
    two: Annotated[Any, Depends(two)],
    KEY,
) -> None:
    got.extend([("middleware", key), ("middleware", one), ("middleware", two)])
    await call_next(message)


class Handler(WebSocketHandler):
    guards = [guard]
    middleware = [passing]

    def __init__(self, one: Annotated[Any, Depends(one)], two: Annotated[Any, Depends(two)], KEY) -> None:
        got.extend([("constructor", key), ("constructor", one), ("constructor", two)])

    async def on_connect(self, one: Annotated[Any, Depends(one)], two: Annotated[Any, Depends(two)], KEY) -> None:
        got.extend([("on_connect", key), ("on_connect", one), ("on_connect", two)])

    @on("use")
    async def use(
        self,
        message: None,
        lasting: Annotated[Any, ConnectionScoped(lasting)],
        one: Annotated[Any, Depends(one)],
        two: Annotated[Any, Depends(two)],
        KEY,
    ) -> None:
        got.extend([("method", key), ("method", one), ("method", two), ("method", lasting)])
        raise LookupError

    async def on_disconnect(
        self, close: CloseInfo, one: Annotated[Any, Depends(one)], two: Annotated[Any, Depends(two)], KEY
    ) -> None:
        got.extend([("on_disconnect", key), ("on_disconnect", one), ("on_disconnect", two)])


@dataclass
class Fields(WebSocketHandler):
    one: Annotated[Any, Depends(one)]
    two: Annotated[Any, Depends(two)]
    FIELD

    def __post_init__(self) -> None:
        got.extend([("fields", self.key), ("fields", self.one), ("fields", self.two)])


app = FastAPI()
router = WebSocketRouter(container=Container(), guards=[guard], middleware=[passing])
router.add_handler("/ws", Handler)
router.add_handler("/fields", Fields)


@router.exception_handler(LookupError)
async def answer(exc: LookupError, one: Annotated[Any, Depends(one)], two: Annotated[Any, Depends(two)], KEY) -> str:
    got.extend([("exception handler", key), ("exception handler", one), ("exception handler", two)])
    return "answered"


app.include_router(router)
'''

KEYS = [
    ("key: Annotated[str, Provide[Container.text]]", "text"),
    ("key: str = Provide[Container.text]", "text"),
    ("key: Annotated[str, Provide['text']]", "text"),
    ("key: str = Provide['text']", "text"),
    ("key = Provide[Container.text]", "text"),
    ("key: Annotated[str | None, Provide[Container.text]] = None", "text"),
    ("key: Annotated[KeyText, Provide[Container.text]]", "text"),
    ("key: Annotated[Any, Provide[Container.text]]", "text"),
    ("key: NamedKey", "text"),
    ("key: Annotated[str, Depends(Provide[Container.text])]", "text"),
    ("key: str = Depends(Provide[Container.text])", "text"),
    ("key: Annotated[int, Provide[Container.number]]", "number"),
    ("key: int = Provide[Container.number]", "number"),
    ("key: Annotated[Key, Provide[Container.instance]]", "instance"),
    ("key: Key = Provide[Container.instance]", "instance"),
]
FUTURE = "from __future__ import annotations\n"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Load:
    def load(source: str) -> ModuleType:
        path = tmp_path / "with_key.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("with_key", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["with_key"] = importlib.util.module_from_spec(spec)
        request.addfinalizer(lambda: sys.modules.pop("with_key", None))
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("future", ["", FUTURE], ids=["plain", "future-annotations"])
@pytest.mark.parametrize(("key", "provider"), KEYS)
async def test_a_query_parameter_never_replaces_what_a_container_gives(
    load: Load, key: str, provider: str, future: str
) -> None:
    """With ?key=x and with ?key=5, every place gets the container's value at depth 0, 1 and 2, and nobody is denied."""
    field = key if ":" in key else key.replace("key", "key: Any")
    module = load(future + MODULE.replace("FIELD", field).replace("KEY", key))
    container = module.Container()
    expected: Any = getattr(container, provider)()
    async with serve(module.app) as server:
        for value in ("x", "5"):
            module.got.clear()
            async with connect(server, f"/ws?key={value}") as ws:
                await ws.send('{"type":"use","id":1}')
                assert json.loads(await ws.recv())["data"] == "answered"
            await eventually(lambda: "on_disconnect" in dict(module.got))
            async with connect(server, f"/fields?key={value}"):
                pass
            places = [place for place, _ in module.got]
            assert places == [
                *["guard"] * 3,
                *["constructor"] * 3,
                *["on_connect"] * 3,
                *["middleware"] * 6,
                *["method"] * 4,
                *["exception handler"] * 3,
                *["on_disconnect"] * 3,
                *["guard"] * 3,
                *["fields"] * 3,
            ]
            for _, got in module.got:
                assert got == expected if provider != "instance" else type(got) is module.Key
