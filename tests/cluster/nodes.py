"""The processes: uvicorn with the application, each in one of its own, as users start it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.cluster.settings import VARIABLE, Settings
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]


class Node:
    """One process on a port of its own, which it keeps when it is started again.

    Args:
        number: what it is called by.
        settings: of its application.
        directory: where its log goes.
    """

    def __init__(self, number: int, settings: Settings, directory: Path) -> None:
        self.port = free_port()
        self.number = number
        self.log = directory / f"node-{number}.log"
        """Everything that it wrote, since it was first started."""
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, path: str) -> str:
        """Return the ``ws://`` address of a path."""
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        """Return the ``http://`` address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def spawn(self) -> None:
        """Start it, and do not wait."""
        command = [sys.executable, "-m", "uvicorn", "tests.cluster.app:app", "--port", str(self.port)]
        command += ["--ws", "wsrouter.uvicorn:WebSocketProtocol", "--no-access-log", "--timeout-graceful-shutdown", "5"]
        if self.number == 2:
            command += ["--loop", "asyncio"]  # the others take uvloop, where there is one
        environment = {**os.environ, VARIABLE: self._settings.model_dump_json()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def is_up(self) -> bool:
        """Tell whether it takes connections.

        Raises:
            RuntimeError: it has ended.
        """
        self._check()
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def terminate(self) -> None:
        """Tell it to end, and do not wait."""
        assert self._process is not None
        self._process.terminate()

    def has_ended(self) -> bool:
        """Tell whether it has ended."""
        return self._process is None or self._process.poll() is not None

    def freeze(self) -> None:
        """Let it take connections and do nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, by force if it takes longer than ten seconds.

        Raises:
            RuntimeError: it has ended by itself.
            TimeoutError: it had to be ended by force.
        """
        if self._process is None:
            return
        self._check()
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise TimeoutError(f"node {self.number} did not end within 10 s") from None
        finally:
            self._process = None

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"node {self.number} ended with {self._process.returncode}:\n{self.log.read_text()}")
