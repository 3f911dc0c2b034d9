"""The application."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from examples.secure.access import Access
from examples.secure.api import SOCKET, create_api
from examples.secure.container import Container
from examples.secure.handler import BoardHandler
from examples.secure.settings import Settings
from wsrouter import Hub, WebSocketRouter
from wsrouter.rates import RateLimit

STATIC = Path(__file__).with_name("static")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(settings: Settings) -> FastAPI:
    """Build the application."""
    container = Container(settings=settings)
    access, hub = Access(settings), Hub()

    # "auto": a browser is told by a close code why it was turned away; it could not read an HTTP status.
    router = WebSocketRouter(
        hub=hub,
        container=container,
        guards=access.guards,
        middleware=[RateLimit(messages="5/second", burst=4, per="user")],
        reject="auto",
    )
    router.add_handler(SOCKET, BoardHandler)

    app = FastAPI(title="Board", openapi_url=None)
    app.include_router(router)
    app.include_router(create_api(container, access, hub))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer repeats what was sent, and here that may be a password.
        return JSONResponse({"detail": "This can't be what the page sends"}, status_code=422)

    return app
