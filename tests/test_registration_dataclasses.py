"""A handler may be a dataclass: plain, frozen, inherited from another module, under postponed evaluation too."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import FastAPI, Query

from wsrouter import Connection, Hub, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import WebSocketTestClient


class Container(containers.DeclarativeContainer):
    name = providers.Object("of the container")


def app_of(*handlers: type[WebSocketHandler]) -> FastAPI:
    """Return an application that serves the handlers at `/0/{room}`, `/1/{room}` and so on."""
    app = FastAPI()
    router = WebSocketRouter(container=Container())
    for number, handler in enumerate(handlers):
        router.add_handler(f"/{number}/{{room}}", handler)
    app.include_router(router)
    return app


async def ask(app: FastAPI, type: str, data: Any = None, path: str = "/0/lobby?tag=a") -> Any:
    """Connect, send one message, and return the data of its reply."""
    async with WebSocketTestClient(app) as client, client.connect(path) as ws:
        await ws.send_json({"type": type, "id": 1, "data": data} if data is not None else {"type": type, "id": 1})
        return (await ws.receive())["data"]


@dataclass
class Fields(WebSocketHandler):
    room: str
    name: Annotated[str, Provide[Container.name]]
    own: Connection
    hub: Hub
    tag: Annotated[list[str], Query()]
    limit: int = 10
    prefix: InitVar[str] = "in"
    seen: list[str] = field(default_factory=list[str], init=False)
    names: Annotated[list[str], Query()] = field(default_factory=lambda: ["default"])

    def __post_init__(self, prefix: str) -> None:
        self.seen.append(f"{prefix} {self.room}")
        assert self.own is self.connection

    @on("fields")
    async def fields(self, message: None) -> list[Any]:
        self.names.append("more")
        return [self.room, self.name, self.tag, self.limit, self.seen, self.names]


async def test_a_dataclass_is_a_handler() -> None:
    """Its fields are injected: from path, query, container and by type, with defaults, factories and InitVar."""
    app = app_of(Fields)
    for _ in range(2):
        answer = await ask(app, "fields")
        assert answer == ["lobby", "of the container", ["a"], 10, ["in lobby"], ["default", "more"]]
    answer = await ask(app, "fields", path="/0/x?tag=a&tag=b&limit=5&prefix=at&names=Ada&seen=evil")
    assert answer == ["x", "of the container", ["a", "b"], 5, ["at x"], ["Ada", "more"]]


@dataclass(frozen=True)
class Frozen(WebSocketHandler):
    room: str

    @on("use")
    async def use(self, message: None) -> list[str]:
        await self.join(self.room)
        return [self.room, *self.connection.rooms]


@dataclass(kw_only=True)
class KeywordOnly(WebSocketHandler):
    limit: int = 3
    room: str

    @on("use")
    async def use(self, message: None) -> list[Any]:
        return [self.room, self.limit]


@dataclass(eq=False)
class ByIdentity(WebSocketHandler):
    room: str

    @on("use")
    async def use(self, message: None) -> str:
        return self.room


@pytest.mark.parametrize(
    ("handler", "expected"), [(Frozen, ["lobby", "lobby"]), (KeywordOnly, ["lobby", 3]), (ByIdentity, "lobby")]
)
async def test_dataclasses_of_every_sort_are_handlers(handler: type[WebSocketHandler], expected: Any) -> None:
    """Frozen, keyword-only and compared by identity: connection and shortcuts work all the same."""
    assert await ask(app_of(handler), "use") == expected


BASE = """
from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide

from tests.test_registration_dataclasses import Container as Box
from wsrouter import Message, WebSocketHandler, on
from wsrouter import Hub as Exchange


class Greet(Message):
    whom: str


@dataclassSLOT
class Base(WebSocketHandler):
    room: str
    name: Annotated[str, Provide[Box.name]]
    exchange: Exchange

    @on
    async def greet(self, message: Greet, again: Annotated[str, Provide[Box.name]]) -> list[str]:
        return [self.room, self.name, again, message.whom]
"""

CHILD = """
from dataclasses import dataclass

from wsrouter import Connection as Wire
from base_module import Base


@dataclassSLOT
class Child(Base):
    wire: Wire
    limit: int = 4


class Undecorated(Child):
    pass


class Handwritten(Base):
    def __init__(self, room: str, wire: Wire) -> None:
        self.room, self.name = room, wire.query_params["tag"]
"""

Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Load:
    def load(name: str, source: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        request.addfinalizer(lambda: sys.modules.pop(name))
        spec.loader.exec_module(module)
        return module

    return load


FUTURE = "from __future__ import annotations\n"


@pytest.mark.parametrize("frozen", ["", "(frozen=True)"], ids=["plain", "frozen"])
@pytest.mark.parametrize("of_child", ["", FUTURE], ids=["child-plain", "child-future"])
@pytest.mark.parametrize("of_base", ["", FUTURE], ids=["base-plain", "base-future"])
async def test_dataclasses_inherit_across_modules(load: Load, of_base: str, of_child: str, frozen: str) -> None:
    """Each field is resolved in the module that declares it, under postponed evaluation too."""
    load("base_module", of_base + BASE.replace("SLOT", frozen))
    module = load("child_module", of_child + CHILD.replace("SLOT", frozen))
    if frozen:
        module.Handwritten.__init__ = module.Base.__init__
    app = app_of(module.Base, module.Child, module.Undecorated, module.Handwritten)
    name = "of the container" if frozen else "a"
    for number, expected in enumerate(["of the container", "of the container", "of the container", name]):
        answer = await ask(app, "greet", {"whom": "Ada"}, path=f"/{number}/lobby?tag=a")
        assert answer == ["lobby", expected, "of the container", "Ada"]
