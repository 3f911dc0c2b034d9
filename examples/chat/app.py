"""The application: ``uvicorn examples.chat.app:app``, or ``create_app`` with a database and origins of your own.

The former reads the environment: ``CHAT_ORIGINS`` has the origins by which browsers reach the page, separated by
spaces, ``CHAT_KEY`` what cookies are signed with.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.chat.container import Container
from examples.chat.handler import Chat
from examples.sign_in import SignIn
from wsrouter import Hub, WebSocketRouter

STATIC = Path(__file__).with_name("static")
ORIGINS = ("http://127.0.0.1:8000", "http://localhost:8000")


def create_app(
    database: str | Path = "chat.sqlite3", *, origins: Sequence[str] = ORIGINS, key: str | None = None
) -> FastAPI:
    """Build the application.

    Args:
        database: The SQLite file. It is opened, and made if there is none, when the application starts.
        origins: By which browsers reach the page, such as ``https://chat.example``.
        key: What the cookies with names are signed with, 32 bytes or more; by default a new one, and after a restart
            the page signs in again.
    """
    container = Container()
    container.config.from_dict({"database": str(database)})
    sign_in = SignIn("chat", origins, key or secrets.token_urlsafe(32))
    # "auto": a browser is told why it was turned away, by a close code; it could not read an HTTP status.
    router = WebSocketRouter(
        prefix="/ws", hub=Hub(), container=container, guards=[sign_in.origins, sign_in.auth], reject="auto"
    )
    router.add_handler("/chat/{room}", Chat)

    app = FastAPI(title="Chat")
    app.include_router(router)
    app.include_router(sign_in.routes())
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app


app = create_app(
    origins=os.environ.get("CHAT_ORIGINS", "").split() or ORIGINS,
    key=os.environ.get("CHAT_KEY"),
)
