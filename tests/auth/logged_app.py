"""What is served by a server of the command line, to see what that logs."""

import logging.config
import os
from typing import Annotated

from fastapi import Depends, FastAPI

from tests.auth.tokens import SECRET
from wsrouter import Deny, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Cookie, Header, JWTAuth, Principal, Query, Subprotocol, Ticket
from wsrouter.guards import AllowOrigins

auth = JWTAuth(
    key=SECRET,
    algorithms=["HS256"],
    sources=[Header(), Cookie("session"), Subprotocol(), Query("access token"), Ticket()],
)


async def deny() -> None:
    """A guard that denies before any authenticator is asked."""
    raise Deny(403)


origins = AllowOrigins("https://app.example", missing=True)
open_router = WebSocketRouter(prefix="/ws", guards=[origins, auth])
open_router.add_handler("", WebSocketHandler)
closed_router = WebSocketRouter(prefix="/denied", guards=[deny, origins, auth])
closed_router.add_handler("", WebSocketHandler)
app = FastAPI()
app.include_router(open_router)
app.include_router(closed_router)


@app.get("/me")
async def me(user: Annotated[Principal, Depends(auth)]) -> str:
    return user.id


if os.environ.get("LOG_CONFIG_AFTER_IMPORT"):
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"out": {"class": "logging.StreamHandler"}},
            "loggers": {
                "uvicorn.error": {"handlers": ["out"], "level": "DEBUG"},
                "uvicorn.access": {"handlers": ["out"], "level": "DEBUG"},
            },
        }
    )
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).filters.clear()
