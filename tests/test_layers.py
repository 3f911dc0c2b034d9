"""The package reads from top to bottom: a module imports only from layers above its own.

Also: what touches a framework's private parts, the raw socket or an optional package stands in one module
only, and no module grows beyond what one reads at a sitting.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wsrouter"

LAYERS = [
    "wsrouter.errors",
    "wsrouter.limits",
    "wsrouter.messages",
    "wsrouter.schemas",
    "wsrouter.validation",
    "wsrouter.codecs",
    "wsrouter.outbox",
    "wsrouter.deadlines",
    "wsrouter.history",
    "wsrouter.brokers.base",
    "wsrouter.tasks",
    "wsrouter.members",
    "wsrouter.listing",
    "wsrouter.holders",
    "wsrouter.ledger",
    "wsrouter.gathering",
    "wsrouter.roster",
    "wsrouter.frames",
    "wsrouter.presence",
    "wsrouter.transports",
    "wsrouter.runs",
    "wsrouter.rooms",
    "wsrouter.rules",
    "wsrouter.writer",
    "wsrouter.connection",
    "wsrouter.portable",
    "wsrouter.direct",
    "wsrouter.identity",
    "wsrouter.departures",
    "wsrouter.metering",
    "wsrouter.rates",
    "wsrouter.uvicorn.requirements",
    "wsrouter.uvicorn.reader",
    "wsrouter.uvicorn.upgrade",
    "wsrouter.uvicorn.keepalive",
    "wsrouter.uvicorn.arrivals",
    "wsrouter.uvicorn.sending",
    "wsrouter.uvicorn.link",
    "wsrouter.uvicorn.protocol",
    "wsrouter.uvicorn",
    "wsrouter.stores",
    "wsrouter.brokers.memory",
    "wsrouter.brokers.redis.commands",
    "wsrouter.brokers.redis.store",
    "wsrouter.brokers.redis.connections",
    "wsrouter.brokers.redis.scripts",
    "wsrouter.brokers.redis.names",
    "wsrouter.brokers.redis.payloads",
    "wsrouter.brokers.redis.subscriptions",
    "wsrouter.brokers.redis.alarms",
    "wsrouter.brokers.redis.lines",
    "wsrouter.brokers.redis.publisher",
    "wsrouter.brokers.redis.reader",
    "wsrouter.brokers.redis.link",
    "wsrouter.brokers.redis.servers",
    "wsrouter.brokers.redis.cluster",
    "wsrouter.brokers.redis.nodes",
    "wsrouter.brokers.redis.heart",
    "wsrouter.brokers.redis.upkeep",
    "wsrouter.brokers.redis.holes",
    "wsrouter.brokers.redis.orders",
    "wsrouter.brokers.redis.streams",
    "wsrouter.brokers.redis.presence",
    "wsrouter.brokers.redis.slots",
    "wsrouter.brokers.redis.node",
    "wsrouter.brokers.redis.broker",
    "wsrouter.brokers.redis",
    "wsrouter.brokers",
    "wsrouter.fanout",
    "wsrouter.announcing",
    "wsrouter.attendance",
    "wsrouter.following",
    "wsrouter.joining",
    "wsrouter.subscriptions",
    "wsrouter.replay",
    "wsrouter.recovering",
    "wsrouter.delivery",
    "wsrouter.node",
    "wsrouter.stats",
    "wsrouter.hub",
    "wsrouter.health",
    "wsrouter.annotations",
    "wsrouter._fastapi",
    "wsrouter.containers",
    "wsrouter.decisions",
    "wsrouter.kinds",
    "wsrouter.positions",
    "wsrouter.signatures",
    "wsrouter.options",
    "wsrouter.plans",
    "wsrouter.injection",
    "wsrouter.handler",
    "wsrouter.names",
    "wsrouter.client_rooms",
    "wsrouter.payloads",
    "wsrouter.table",
    "wsrouter.guards.origins",
    "wsrouter.guards.slots",
    "wsrouter.guards.places",
    "wsrouter.guards.requirements",
    "wsrouter.guards",
    "wsrouter.redaction",
    "wsrouter.auth.sources",
    "wsrouter.auth.tickets",
    "wsrouter.auth.options",
    "wsrouter.auth.keys",
    "wsrouter.auth.jwks",
    "wsrouter.auth.jwt",
    "wsrouter.auth",
    "wsrouter.checks",
    "wsrouter.chain",
    "wsrouter.calls",
    "wsrouter.intake",
    "wsrouter.outcome",
    "wsrouter.credentials",
    "wsrouter.dispatch",
    "wsrouter.denial",
    "wsrouter.inbox",
    "wsrouter.handshake",
    "wsrouter.work",
    "wsrouter.session",
    "wsrouter.routes",
    "wsrouter.router",
    "wsrouter.in_process",
    "wsrouter.testing.client",
    "wsrouter.testing.brokers.peer",
    "wsrouter.testing.brokers.setting",
    "wsrouter.testing.brokers.delivery",
    "wsrouter.testing.brokers.names",
    "wsrouter.testing.brokers.disconnects",
    "wsrouter.testing.brokers.streams",
    "wsrouter.testing.brokers.attendance",
    "wsrouter.testing.brokers.slots",
    "wsrouter.testing.brokers.life",
    "wsrouter.testing.brokers.holes",
    "wsrouter.testing.brokers.failures",
    "wsrouter.testing.brokers.contract",
    "wsrouter.testing.brokers",
    "wsrouter.testing",
    "wsrouter",
]
"""Every module, those that import nothing of ours first. A new one gets its place here."""

MAX_LINES = 320

RAW_SOCKET = {
    "wsrouter.frames",  # the event that sends a frame
    "wsrouter.writer",  # accepts
    "wsrouter.portable",  # sends all that goes out once a connection is accepted, on servers without another way
    "wsrouter.uvicorn.arrivals",  # are what the server gives to the application
    "wsrouter.uvicorn.protocol",  # takes what the application gives to the server
    "wsrouter.denial",  # answers a handshake that is not let in
    "wsrouter.handshake",  # hangs up on a client that has left before accept
    "wsrouter.routes",  # takes note that a connection begins
    "wsrouter.intake",  # reads all that comes in
    "wsrouter.in_process",  # plays the server in tests
    "wsrouter.testing.client",  # plays the client in tests
}
"""The modules that name ASGI events of a WebSocket."""

SOCKET_EVENTS = {
    "websocket.connect",
    "websocket.accept",
    "websocket.receive",
    "websocket.send",
    "websocket.close",
    "websocket.disconnect",
    "websocket.http.response",
    "websocket.http.response.start",
    "websocket.http.response.body",
}
SOCKET_CALLS = {
    "iter_bytes",
    "iter_json",
    "iter_text",
    "receive_bytes",
    "receive_json",
    "receive_text",
    "send_bytes",
    "send_denial_response",
    "send_json",
    "send_text",
}


@dataclass(frozen=True)
class Import:
    """One imported name: `from module import name`, or `import module` with an empty name."""

    line: int
    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


class Module:
    """A parsed module of the package."""

    def __init__(self, path: Path, source: str) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.path = path
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.source = source
        self.tree = ast.parse(source, str(path))

    def imports(self) -> Iterator[Import]:
        """Yield what is imported anywhere in the module, also for type checking only, with absolute names."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, "")
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield Import(node.lineno, self.absolute(node.module or "", node.level), alias.name)

    def absolute(self, module: str, level: int) -> str:
        """Return the absolute name of a relative import's module."""
        if level == 0:
            return module
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        return ".".join([*package[: len(package) - level + 1], *([module] if module else [])])

    def place(self, line: int) -> str:
        """Return `file:line`."""
        return f"{self.path.relative_to(ROOT)}:{line}"


MODULES = [Module(path, path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=[module.name for module in MODULES])


def is_in(module: str, *packages: str) -> bool:
    """Tell whether a module is one of the packages, or inside of one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def layer_of(module: str) -> int:
    """Return the place of a module in LAYERS; one without a place stands below all others."""
    return LAYERS.index(module) if module in LAYERS else len(LAYERS)


def upward_imports(module: Module) -> list[str]:
    """Return the imports of modules that don't lie above the one that imports them."""
    found: list[str] = []
    for imported in module.imports():
        if not is_in(imported.module, "wsrouter"):
            continue
        target = imported.path if imported.path in LAYERS else imported.module
        if layer_of(target) >= layer_of(module.name):
            found.append(f"{module.place(imported.line)} imports {target}")
    return found


def private_imports(module: Module, *frameworks: str) -> list[str]:
    """Return the imports of a framework's private modules and names."""
    return [
        f"{module.place(imported.line)} imports {imported.path}"
        for imported in module.imports()
        if is_in(imported.module, *frameworks) and is_private(imported.path)
    ]


def is_private(path: str) -> bool:
    """Tell whether a dotted name is private: by an underscore, or because nobody promises it."""
    return is_in(path, "fastapi.dependencies") or any(part.startswith("_") for part in path.split("."))


def raw_socket_uses(module: Module) -> list[str]:
    """Return the places that name an ASGI event of a WebSocket, or call a method that sends or receives."""
    found: list[str] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and node.value in SOCKET_EVENTS:
            found.append(f"{module.place(node.lineno)} names {node.value!r}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SOCKET_CALLS:
            found.append(f"{module.place(node.lineno)} calls {node.func.attr}()")
    return found


@each_module
def test_every_module_has_a_layer(module: Module) -> None:
    """A new module is entered in LAYERS, at the place that design and reader expect."""
    assert module.name in LAYERS


@each_module
def test_a_module_imports_only_from_layers_above(module: Module) -> None:
    """A reader who goes through LAYERS from the top meets nothing that comes later."""
    assert upward_imports(module) == []


@each_module
def test_private_parts_of_fastapi_are_used_in_one_module(module: Module) -> None:
    """What may change with any release of FastAPI or Starlette is to be looked for in `_fastapi.py` only."""
    if module.name != "wsrouter._fastapi":
        assert private_imports(module, "fastapi", "starlette") == []


@each_module
def test_private_parts_of_dependency_injector_are_not_used(module: Module) -> None:
    """Its markers are looked at in `containers.py` only, and by their public names."""
    assert private_imports(module, "dependency_injector") == []
    if module.name != "wsrouter.containers":
        assert [each for each in module.imports() if is_in(each.path, "dependency_injector.wiring")] == []


@each_module
def test_the_raw_socket_is_used_in_few_modules(module: Module) -> None:
    """ASGI events are made and read at the edge; everywhere else there are messages and frames."""
    assert bool(raw_socket_uses(module)) is (module.name in RAW_SOCKET)


@each_module
def test_servers_and_drivers_are_imported_in_one_module(module: Module) -> None:
    """The package imports neither httpx, redis nor uvicorn unless somebody asks for the module that is about it."""
    owners = {
        "httpx": "wsrouter.auth.jwks",
        "redis": "wsrouter.brokers.redis",
        "uvicorn": "wsrouter.uvicorn",
        "websockets": "wsrouter.uvicorn",
    }
    for imported in module.imports():
        owner = owners.get(imported.module.split(".")[0], module.name)
        assert is_in(module.name, owner), f"{module.place(imported.line)} imports {imported.path}"


@each_module
def test_a_module_stays_short(module: Module) -> None:
    """A module that outgrows the limit has a second idea in it, which wants a module of its own."""
    lines = len(module.source.splitlines())
    assert lines <= MAX_LINES


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("codecs.py", "from wsrouter.errors import Deny", []),
        ("codecs.py", "from wsrouter.hub import Hub", ["wsrouter.hub"]),
        ("codecs.py", "import wsrouter.hub", ["wsrouter.hub"]),
        ("codecs.py", "from wsrouter import hub", ["wsrouter.hub"]),
        ("codecs.py", "from wsrouter import Hub", ["wsrouter"]),
        ("codecs.py", "from . import hub", ["wsrouter.hub"]),
        ("codecs.py", "def late():\n    from .brokers.base import Broker", ["wsrouter.brokers.base"]),
        ("brokers/base.py", "from ..history import History", []),
        ("brokers/base.py", "from .memory import MemoryBroker", ["wsrouter.brokers.memory"]),
        ("brokers/__init__.py", "from .memory import MemoryBroker", []),
        ("__init__.py", "from wsrouter.router import WebSocketRouter", []),
    ],
)
def test_upward_imports_are_found(module: str, source: str, found: list[str]) -> None:
    """Each way to write an import is understood, absolute or relative, at the top or in a function."""
    imports = upward_imports(Module(PACKAGE / module, source))
    assert [text.rpartition(" ")[2] for text in imports] == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from fastapi import Depends, params", 0),
        ("from fastapi.routing import iter_route_contexts", 0),
        ("from fastapi.routing import _merge_lifespan_context", 1),
        ("from fastapi.dependencies.utils import get_dependant", 1),
        ("import fastapi._compat", 1),
        ("from fastapi import dependencies", 1),
        ("from starlette._utils import is_async_callable", 1),
    ],
)
def test_private_imports_are_found(source: str, found: int) -> None:
    """A leading underscore anywhere is private, and so is `fastapi.dependencies`."""
    assert len(private_imports(Module(PACKAGE / "hub.py", source), "fastapi", "starlette")) == found


def test_raw_socket_uses_are_found() -> None:
    """Sending an event and calling Starlette's methods count; the definition of such a method does not."""
    source = """
async def send_text(self, text): ...
async def reply(send, websocket):
    await send({"type": "websocket.send", "text": ""})
    await websocket.receive_json()
"""
    assert len(raw_socket_uses(Module(PACKAGE / "hub.py", source))) == 2
