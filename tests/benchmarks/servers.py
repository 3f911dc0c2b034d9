"""The servers that are measured: each in a process of its own, and what the kernel tells of it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]
TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
TIME_WAIT: Final = "06"
"""A state of TCP, as in ``/proc/net/tcp``."""

STOCK: Final = "websockets-sansio"
"""The protocol class that uvicorn takes by itself."""
OURS: Final = "wsrouter.uvicorn:WebSocketProtocol"


@dataclass(frozen=True)
class Contender:
    """An application, the protocol class that it is served with, and the path that is measured."""

    name: str
    app: str
    ws: str
    path: str


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Bytes of memory that it has in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def end_of(self, client_port: int) -> "ServerEnd":
        """Return its end of the connection from a port of 127.0.0.1.

        Raises:
            LookupError: there is none.
        """
        inode = _inode(self.port, client_port)
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            if inode is not None and _target(path) == f"socket:[{inode}]":
                return ServerEnd(self.port, client_port, path, f"socket:[{inode}]")
        raise LookupError(f"the server has no connection from port {client_port}")


@dataclass(frozen=True)
class ServerEnd:
    """A server's end of a connection."""

    port: int
    client_port: int
    descriptor: Path
    target: str
    """What the descriptor refers to."""

    def is_open(self) -> bool:
        """Tell whether the server has it open."""
        return _target(self.descriptor) == self.target

    def is_kept(self) -> bool:
        """Tell whether the kernel has it, with all that waits to be sent: also when the server has closed it."""
        return self.is_open() or _inode(self.port, self.client_port) is not None


def _target(descriptor: Path) -> str | None:
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:
        return None


def _inode(port: int, client_port: int) -> str | None:
    """Return the inode of a connection that is not over; 0 if no process has it open."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *rest = line.split()
        if (local[-4:], remote[-4:]) == (f"{port:04X}", f"{client_port:04X}") and state != TIME_WAIT:
            return rest[5]
    return None


@cache
def cores() -> tuple[int, int]:
    """Return the core of the servers and that of their clients, which are one where there is only one."""
    available = os.sched_getaffinity(0)
    return min(available), max(available)


@contextmanager
def serve(app: str, ws: str = STOCK, environment: Mapping[str, str] | None = None) -> Generator[Running]:
    """Run an application on uvicorn in a process of its own, on a core of its own where there are two.

    Args:
        app: As uvicorn takes it, from the root of the project.
        ws: uvicorn's option of that name.
        environment: of the process, beside our own.

    Raises:
        RuntimeError: it did not start within 20 s.
    """
    port = free_port()
    options = {
        "--port": str(port),
        "--loop": "uvloop",
        "--ws": ws,
        "--log-level": "warning",
        "--backlog": "4096",
    }
    arguments = [part for option in options.items() for part in option]
    command = [sys.executable, "-m", "uvicorn", app, "--no-access-log", *arguments]
    server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})})
    try:
        os.sched_setaffinity(server.pid, {cores()[0]})
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{app} did not start") from None
                time.sleep(0.05)
        yield Running(port, server.pid)
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:  # it waits for a client that does not read
            server.kill()
            server.wait()
