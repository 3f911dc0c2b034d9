"""Signing in by name: no password, but a signed cookie, so that on the socket nobody speaks in another's name."""

import time
from collections.abc import Sequence
from typing import Annotated

import jwt
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, StringConstraints

from wsrouter.auth import Cookie, JWTAuth
from wsrouter.guards import AllowOrigins

ALGORITHM = "HS256"
LIFETIME = 12 * 3600
"""Seconds. The page signs in again with the name that it knows."""


class Name(BaseModel):
    """The name that somebody wants to have."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class SignIn:
    """The route that signs in, and the guards that look at what it gave.

    Args:
        app: name of the example: browsers keep one set of cookies for all ports of this machine.
        origins: where the page is served: a page from elsewhere can neither sign in nor connect.
        key: what cookies are signed with, 32 bytes or more.
    """

    def __init__(self, app: str, origins: Sequence[str], key: str) -> None:
        self._app, self._key = app, key
        self._cookie = f"{app}_name"
        self.origins = AllowOrigins(*origins, missing=False)
        self.auth = JWTAuth(key=key, algorithms=[ALGORITHM], audience=app, sources=[Cookie(self._cookie)])

    def routes(self) -> APIRouter:
        """Return ``POST /sign-in``, which answers with the name as it is going to be seen."""
        routes = APIRouter()

        @routes.post("/sign-in", dependencies=[Depends(self.origins)])
        async def sign_in(wanted: Name, request: Request, response: Response) -> Name:
            response.set_cookie(
                self._cookie,
                self._token(wanted.name),
                max_age=LIFETIME,
                httponly=True,
                samesite="strict",
                secure=request.headers["origin"].startswith("https://"),
            )
            return wanted

        return routes

    def _token(self, name: str) -> str:
        claims = {"sub": name, "aud": self._app, "exp": int(time.time()) + LIFETIME}
        return jwt.encode(claims, self._key, ALGORITHM)
