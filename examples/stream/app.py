"""The application: ``uvicorn examples.stream.app:app --port 8002``, or ``create_app`` with origins of your own.

The former reads the environment: ``STREAM_ORIGINS`` has the origins by which browsers reach the page, separated by
spaces.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from examples.serving import add_page
from examples.stream.container import Container
from examples.stream.handler import Watch, Writer
from wsrouter import WebSocketRouter
from wsrouter.guards import AllowOrigins

ORIGINS = ("http://127.0.0.1:8002", "http://localhost:8002")


def create_app(*, origins: Sequence[str] = ORIGINS) -> FastAPI:
    """Build the application.

    Args:
        origins: By which browsers reach the page, such as ``https://stream.example``.
    """
    # "auto": a browser is told why it was turned away, by a close code; it could not read an HTTP status.
    router = WebSocketRouter(prefix="/ws", container=Container(), guards=[AllowOrigins(*origins)], reject="auto")
    router.add_handler("/write", Writer)
    router.add_handler("/watch", Watch)

    app = FastAPI(title="Stream")
    app.include_router(router)
    add_page(app, Path(__file__).with_name("static"))
    return app


app = create_app(origins=os.environ.get("STREAM_ORIGINS", "").split() or ORIGINS)
