"""What users may import: listed in `__all__`, documented, and nothing else."""

import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from wsrouter import Connection

PUBLIC_MODULES = [
    "wsrouter",
    "wsrouter.auth",
    "wsrouter.brokers",
    "wsrouter.brokers.redis",
    "wsrouter.guards",
    "wsrouter.rates",
    "wsrouter.stores",
    "wsrouter.testing",
    "wsrouter.testing.brokers",
    "wsrouter.uvicorn",
]
"""The modules that the reference documents."""

CONNECTION = {
    "client",
    "close",
    "closed",
    "cookies",
    "headers",
    "http",
    "id",
    "path_params",
    "pending_bytes",
    "query_params",
    "rooms",
    "scope",
    "send",
    "state",
    "subprotocol",
    "user",
    "user_id",
}
"""What `wsrouter.Connection` shows."""

each_module = pytest.mark.parametrize(
    "module", [name for name in PUBLIC_MODULES if importlib.util.find_spec(name) is not None]
)


def load(module: str) -> ModuleType:
    """Import a public module; the test is skipped where the optional package that it needs is missing."""
    if module == "wsrouter.brokers.redis":
        pytest.importorskip("redis")
    return importlib.import_module(module)


def exported(module: ModuleType) -> list[str]:
    """Return the module's `__all__`."""
    names: list[str] = getattr(module, "__all__", [])
    return names


def offered(module: ModuleType) -> set[str]:
    """Return the classes and functions that a module offers by a name without an underscore.

    A package offers what it takes over from its modules; a plain module only what it defines, not what it uses.
    """
    owner = "wsrouter" if hasattr(module, "__path__") else module.__name__
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isroutine(value))
        and f"{getattr(value, '__module__', '')}.".startswith(f"{owner}.")
    }


def undocumented(name: str, value: object) -> Iterator[str]:
    """Yield the dotted name of a class or function without a docstring, and of a class's public members.

    An override may leave the sentence to the method that it overrides. What a dataclass makes up is none.
    """
    if inspect.isroutine(value) and not inspect.getdoc(value):
        yield name
    if inspect.isclass(value):
        own = vars(value).get("__doc__")
        if not own or own.startswith(f"{value.__name__}("):
            yield name
        for member, _ in inspect.getmembers_static(value):
            if member.startswith("_") or member not in vars(value):
                continue
            attribute = getattr(value, member)
            is_code = inspect.isroutine(attribute) or isinstance(attribute, property)
            if is_code and not inspect.getdoc(attribute):
                yield f"{name}.{member}"


@each_module
def test_every_exported_name_exists(module: str) -> None:
    """`from wsrouter import *` gives all that is promised."""
    loaded = load(module)
    assert [name for name in exported(loaded) if not hasattr(loaded, name)] == []


@each_module
def test_exports_are_sorted(module: str) -> None:
    """A name is found at its place, and stands there once."""
    names = exported(load(module))
    assert names == sorted(set(names))


@each_module
def test_exports_are_complete(module: str) -> None:
    """What a public module offers without an underscore is in its `__all__`."""
    loaded = load(module)
    assert sorted(offered(loaded) - set(exported(loaded))) == []


@each_module
def test_every_public_name_has_a_docstring(module: str) -> None:
    """The module has one, each class and function that it exports, and the class's methods and properties."""
    loaded = load(module)
    missing = [entry for name in exported(loaded) for entry in undocumented(name, getattr(loaded, name))]
    if not loaded.__doc__:
        missing.insert(0, module)
    assert missing == []


def test_a_connection_shows_what_users_need() -> None:
    """What an editor completes after `self.connection.` works when it is called; the rest is for those who serve it."""
    names = {*dir(Connection), *inspect.get_annotations(Connection)}
    assert {name for name in names if not name.startswith("_")} == CONNECTION


def test_the_reference_lists_all_of_a_connection() -> None:
    """Whatever a connection shows is explained."""
    reference = (Path(__file__).parent.parent / "docs" / "reference" / "index.md").read_text("utf-8")
    options = reference.partition("::: wsrouter.Connection\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"- (\w+)", options)) == sorted(CONNECTION)


def test_who_needs_no_auth_pays_for_none() -> None:
    """To import the package brings in nothing of what only a module of its own needs."""
    needless = {"cryptography", "httpx", "idna", "jwt", "redis", "uvicorn", "websockets"}
    program = f"import sys, wsrouter; sys.exit(', '.join({needless!r} & sys.modules.keys()) or 0)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
