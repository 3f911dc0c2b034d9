"""The application of the control process: it runs the cluster, and serves the page."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from examples.cluster.control import NODES, ROOM, Container, Control, Status
from examples.cluster.processes import HOST, Process, Watchdog, node_command
from examples.cluster.supervisor import REDIS, Supervisor
from examples.serving import add_page
from wsrouter import Hub, WebSocketRouter
from wsrouter.guards import AllowOrigins

GLANCE = 0.5
"""Seconds between two looks at the processes."""


def create_app(*, ports: Mapping[str, int], redis: Sequence[str], origins: Sequence[str]) -> FastAPI:
    """Build the application; the cluster runs as long as it does.

    Args:
        ports: Mapping of ``redis``, and of the name of each node, to its port on 127.0.0.1.
        redis: Command line of the Redis.
        origins: By which browsers reach the page.
    """
    watchdog = Watchdog()
    processes = [Process(REDIS, ports[REDIS], redis, watchdog)]
    for name in NODES:
        environment = {
            "CLUSTER_NODE": name,
            "CLUSTER_REDIS": f"redis://{HOST}:{ports[REDIS]}/0",
            "CLUSTER_ORIGINS": " ".join(origins),
        }
        processes.append(Process(name, ports[name], node_command(ports[name]), watchdog, environment))
    supervisor, hub = Supervisor(processes), Hub()

    router = WebSocketRouter(
        prefix="/ws",
        hub=hub,
        container=Container(supervisor=supervisor),
        guards=[AllowOrigins(*origins, missing=False)],  # a page from elsewhere must not kill anything
        reject="auto",
    )
    router.add_handler("/control", Control)

    async def watch() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                await supervisor.look(http)
                await hub.broadcast(ROOM, Status(processes=supervisor.reports()))
                await asyncio.sleep(GLANCE)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with watchdog:
            try:
                supervisor.start()
                async with asyncio.TaskGroup() as tasks:
                    watching = tasks.create_task(watch())
                    yield
                    watching.cancel()
            finally:
                supervisor.close()

    app = FastAPI(title="Cluster", lifespan=lifespan)
    app.include_router(router)
    add_page(app, Path(__file__).with_name("static"))
    return app
