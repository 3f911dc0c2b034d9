"""The application: ``uvicorn --port 8003 examples.ticker.app:app``, or ``create_app`` with options of your own.

The former reads the environment: ``TICKER_ORIGINS`` has the origins by which browsers reach the page, separated by
spaces.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from examples.serving import add_page
from examples.ticker.api import create_api
from examples.ticker.container import Container
from examples.ticker.handler import Ticker
from examples.ticker.market import ROOM
from examples.ticker.slow import SlowClient
from wsrouter import Hub, Limits, RoomOptions, WebSocketRouter
from wsrouter.guards import AllowOrigins

ORIGINS = ("http://127.0.0.1:8003", "http://localhost:8003")
PATIENCE = 5.0


def create_app(*, origins: Sequence[str] = ORIGINS, patience: float = PATIENCE) -> FastAPI:
    """Build the application.

    Args:
        origins: By which browsers reach the page, such as ``https://ticker.example``.
        patience: Seconds after which a client is given up that has taken nothing of what waits for it.
    """
    container, allowed = Container(), AllowOrigins(*origins)
    # Nobody wants yesterday's price: for a client that falls behind only the newest one of each share is kept.
    hub = Hub(rooms={ROOM: RoomOptions(overflow="latest")})
    slow = SlowClient(hub)
    # "auto": a browser is told why it was turned away, by a close code; it could not read an HTTP status.
    router = WebSocketRouter(
        prefix="/ws", hub=hub, container=container, guards=[allowed], limits=Limits(send=patience), reject="auto"
    )
    router.add_handler("/prices", Ticker)

    @asynccontextmanager
    async def open_market(app: FastAPI) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as tasks:
            market = tasks.create_task(container.market().run(hub))
            try:
                yield
            finally:
                market.cancel()
                await slow.aclose()

    app = FastAPI(title="Ticker", lifespan=open_market)
    app.include_router(router)
    app.include_router(create_api(hub, slow, allowed))
    add_page(app, Path(__file__).with_name("static"))
    return app


app = create_app(origins=os.environ.get("TICKER_ORIGINS", "").split() or ORIGINS)
