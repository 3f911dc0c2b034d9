"""The application: ``uvicorn examples.chat.app:app``, or ``create_app`` with a database of your own."""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.requests import HTTPConnection
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from examples.chat.container import Container
from examples.chat.handler import Chat
from wsrouter import Deny, Hub, WebSocketRouter

STATIC = Path(__file__).with_name("static")


def same_origin(connection: HTTPConnection) -> None:
    """Let in the page that this server serves, and clients that are no browser; not the pages of other sites."""
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise Deny(status=403, reason="This chat is for its own page only.")


def create_app(database: str | Path = "chat.sqlite3") -> FastAPI:
    """Build the application.

    Args:
        database: The SQLite file. It is opened, and made if there is none, when the application starts.
    """
    container = Container()
    container.config.from_dict({"database": str(database)})
    # "auto": a browser is told why it was turned away, by a close code; it could not read an HTTP status.
    router = WebSocketRouter(prefix="/ws", hub=Hub(), container=container, guards=[same_origin], reject="auto")
    router.add_handler("/chat/{room}", Chat)

    app = FastAPI(title="Chat")
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app


app = create_app()
