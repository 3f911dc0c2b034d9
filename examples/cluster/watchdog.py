"""Kills the processes of the cluster when the one that started them is gone, also if it had no time to do it itself.

``python -m examples.cluster.watchdog`` reads lines: ``+1234`` for a process that was started, ``-1234`` for one that
has ended. When there are no more, because whoever wrote them has ended, it kills those that are left, frozen ones too.
"""

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    left: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            left.add(pid)
        else:
            left.discard(pid)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
