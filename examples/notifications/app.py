"""The application: ``uvicorn --port 8004 examples.notifications.app:app``, or ``create_app`` with options of your own.

The former reads the environment: ``NOTIFICATIONS_ORIGINS`` has the origins by which browsers reach the page, separated
by spaces, ``NOTIFICATIONS_KEY`` what cookies are signed with, ``NOTIFICATIONS_REDIS`` the URL of a Redis.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from examples.notifications.api import create_api
from examples.notifications.container import make_container
from examples.notifications.handler import Device
from examples.notifications.storage import open_tables
from examples.notifications.worker import TAKES, work
from examples.serving import add_page
from examples.sign_in import SignIn
from wsrouter import WebSocketRouter

ORIGINS = ("http://127.0.0.1:8004", "http://localhost:8004")


def create_app(
    database: str | Path = "notifications.sqlite3",
    *,
    redis: str | None = None,
    origins: Sequence[str] = ORIGINS,
    key: str | None = None,
    takes: float = TAKES,
) -> FastAPI:
    """Build the application.

    Args:
        database: The SQLite file. It is opened, and made if there is none, when the application starts.
        redis: URL of the Redis through which several processes reach all devices, such as
            ``redis://127.0.0.1:6379/0``. Without one this process is all there is, and it runs the worker too.
        origins: By which browsers reach the page.
        key: What the cookies with names are signed with, 32 bytes or more, the same in all processes; by default a new
            one.
        takes: Seconds that an export takes, if the worker runs here.
    """
    container = make_container(database, redis)
    sign_in = SignIn("notifications", origins, key or secrets.token_urlsafe(32))
    # "auto": a browser is told why it was turned away, by a close code; it could not read an HTTP status.
    router = WebSocketRouter(
        prefix="/ws", hub=container.hub(), container=container, guards=[sign_in.origins, sign_in.auth], reject="auto"
    )
    router.add_handler("/device", Device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_tables(container.engine()), asyncio.TaskGroup() as tasks:
            worker = None if redis else tasks.create_task(work(container, takes))
            yield
            if worker is not None:
                worker.cancel()

    app = FastAPI(title="Notifications", lifespan=lifespan)
    app.include_router(router)
    app.include_router(sign_in.routes())
    app.include_router(create_api(container, sign_in))
    add_page(app, Path(__file__).with_name("static"))
    return app


app = create_app(
    redis=os.environ.get("NOTIFICATIONS_REDIS"),
    origins=os.environ.get("NOTIFICATIONS_ORIGINS", "").split() or ORIGINS,
    key=os.environ.get("NOTIFICATIONS_KEY"),
)
