"""Run the suite with the lowest and the newest versions that pyproject.toml admits, on each protocol class.

    python -m tests.matrix [--versions lowest newest] [--ws websockets-sansio wsproto OURS] [pytest's arguments]

OURS is `wsrouter.uvicorn:WebSocketProtocol`.

The lowest versions are those of the package's own dependencies and of its extras `jwks` and `redis`; tools, and what
only the examples need, stay at their newest. Each set of versions has an environment of its own under `.matrix`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"
ENVIRONMENTS = ROOT / ".matrix"
VERSIONS = ["lowest", "newest"]
PROTOCOLS = ["websockets-sansio", "wsproto", "wsrouter.uvicorn:WebSocketProtocol"]


def requirements() -> list[Requirement]:
    """Return what an installed wsrouter needs, with what is optional."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(text) for text in (*project["dependencies"], *extras["jwks"], *extras["redis"])]


def lowest(requirement: Requirement) -> str:
    """Return the requirement's lower bound as a pinned version: `fastapi==0.137.2`."""
    bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
    if len(bounds) != 1:
        raise SystemExit(f"pyproject.toml: {requirement} has no lowest version (>=)")
    return f"{requirement.name}=={bounds[0]}"


def set_up(versions: str) -> Path:
    """Make or update the environment of a set of versions, and return its Python."""
    environment = ENVIRONMENTS / versions
    python = environment / "bin" / "python"
    stamp = environment / "installed"
    wanted = PYPROJECT.read_text("utf-8")
    if versions == "lowest" and stamp.exists() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"Setting up {environment.relative_to(ROOT)} (about a minute) ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    how = ["--upgrade", "--upgrade-strategy", "eager"]
    if versions == "lowest":
        constraints = environment / "lowest.txt"
        constraints.write_text("".join(f"{lowest(requirement)}\n" for requirement in requirements()), "utf-8")
        how = ["--constraint", str(constraints)]
    subprocess.run([*pip, "install", "-qq", "--no-compile", *how, "--editable", f"{ROOT}[test]"], check=True)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)
    stamp.write_text(wanted, "utf-8")
    return python


def installed(python: Path) -> str:
    """Return the names and versions that an environment has of what wsrouter needs."""
    names = [canonicalize_name(requirement.name) for requirement in requirements()]
    code = "import sys, importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    return subprocess.run([str(python), "-c", code, *names], check=True, text=True, capture_output=True).stdout.strip()


def run(python: Path, protocol: str, arguments: list[str]) -> bool:
    """Run pytest and tell whether everything passed."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "WSROUTER_TEST_WS": protocol}).returncode == 0


def main() -> int:
    """Run every combination, the failed ones' successors too, and print a table at the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--versions", nargs="+", choices=VERSIONS, default=VERSIONS)
    parser.add_argument("--ws", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--set-up", action="store_true", help="make the environments, and run nothing")
    options, arguments = parser.parse_known_args()
    ENVIRONMENTS.mkdir(exist_ok=True)
    if options.set_up:
        for versions in options.versions:
            set_up(versions)
        return 0
    table: list[str] = []
    failed = False
    count = len(options.versions) * len(options.ws)
    for versions in options.versions:
        python = set_up(versions)
        for protocol in options.ws:
            print(f"[{len(table) + 1}/{count}] {versions}, {protocol}: {installed(python)}", flush=True)
            start = time.monotonic()
            passed = run(python, protocol, arguments)
            failed = failed or not passed
            result = "passed" if passed else "FAILED"
            table.append(f"{versions:8}{protocol:36}{result}  {time.monotonic() - start:6.1f} s")
    print("-" * min(50, shutil.get_terminal_size().columns), *table, sep="\n", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
