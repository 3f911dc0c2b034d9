"""The HTTP routes: sign in, a fresh token, a ticket, sign out."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, StringConstraints

from examples.secure.access import Access, check_signed_in
from examples.secure.accounts import DEMOS, Account
from examples.secure.container import Container
from examples.secure.sessions import Session
from wsrouter import Hub
from wsrouter.auth import Principal

SOCKET = "/ws/board"


class SignIn(BaseModel):
    """What the sign-in form sends; a password is long enough for any, and short enough to be hashed."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class SignedInAs(BaseModel):
    """Whom one is signed in as."""

    name: str
    scopes: list[str]


class Grant(BaseModel):
    """A fresh access token.

    Attributes:
        expires_in: Seconds; not a time, since the clocks of browsers are often wrong.
    """

    token: str
    expires_in: float
    name: str


class TicketGrant(BaseModel):
    """A ticket for one connection."""

    ticket: str


class DemoAccount(BaseModel):
    """An account that the sign-in page shows."""

    name: str
    password: str
    scopes: list[str]


def create_api(container: Container, access: Access, hub: Hub) -> APIRouter:
    """Build the routes.

    All that change something, or give something out, are ``POST`` and look at ``Origin``. With ``SameSite=Strict``
    on the cookies that is the second of two fences: a site is more than an origin (another port is the same site).
    """
    settings, attempts = container.settings(), container.attempts()
    accounts, sessions = container.accounts(), container.sessions()
    api = APIRouter(prefix="/api")
    guarded = APIRouter(dependencies=[Depends(access.origins), Depends(keep_out_of_caches)])

    def set_cookie(response: Response, name: str, value: str, lifetime: int) -> None:
        response.set_cookie(
            name, value, max_age=lifetime, path="/", secure=settings.https, httponly=True, samesite="strict"
        )

    def forget_cookies(response: Response) -> None:
        for name in (access.session_cookie, access.access_cookie):
            response.delete_cookie(name, path="/", secure=settings.https, httponly=True, samesite="strict")

    async def signed_in(request: Request) -> tuple[Session, Account]:
        session = sessions.find(request.cookies.get(access.session_cookie, ""))
        if session is None:
            raise HTTPException(401, "You are not signed in")
        account = accounts.find(session.account)
        if account is None or account.disabled:
            raise HTTPException(403, "This account is disabled")
        return session, account

    @api.get("/demo-accounts")
    async def demo_accounts() -> list[DemoAccount]:
        return [DemoAccount(name=demo.name, password=demo.password, scopes=list(demo.scopes)) for demo in DEMOS]

    @guarded.post("/sign-in")
    async def sign_in(form: SignIn, request: Request, response: Response) -> SignedInAs:
        # The address is the server's: behind a proxy, tell uvicorn whom to believe (--forwarded-allow-ips).
        address = request.client.host if request.client else ""
        wait = await attempts.wait(form.name, address)
        if wait:
            raise HTTPException(429, f"Too many attempts; wait {wait} s", {"Retry-After": str(wait)})
        account = await accounts.authenticate(form.name, form.password)
        if account is None:
            raise HTTPException(401, "Name or password is wrong")
        await attempts.forget(form.name, address)
        if account.disabled:  # told only to who knows the password
            raise HTTPException(403, "This account is disabled")
        earlier = sessions.find(request.cookies.get(access.session_cookie, ""))
        if earlier is not None:
            sessions.end(earlier.id)
        set_cookie(response, access.session_cookie, sessions.begin(account.name), settings.session_lifetime)
        return SignedInAs(name=account.name, scopes=list(account.scopes))

    @guarded.post("/token")
    async def token(current: Annotated[tuple[Session, Account], Depends(signed_in)], response: Response) -> Grant:
        session, account = current
        fresh, seconds = access.sign(account, session)
        set_cookie(response, access.access_cookie, fresh, settings.token_lifetime)
        return Grant(token=fresh, expires_in=seconds, name=account.name)

    @guarded.post("/ticket")
    async def ticket(request: Request, user: Annotated[Principal, Depends(access.auth)]) -> TicketGrant:
        check_signed_in(user, accounts, sessions)
        return TicketGrant(ticket=await access.tickets.issue(user, path=SOCKET, origin=request.headers["origin"]))

    @guarded.post("/sign-out", status_code=204)
    async def sign_out(request: Request, response: Response, everywhere: bool = False) -> None:
        session = sessions.find(request.cookies.get(access.session_cookie, ""))
        forget_cookies(response)
        if session is None:
            return
        sessions.end(session.id)
        if everywhere:
            # The sessions first: who is disconnected and comes straight back finds them ended.
            sessions.end_all(session.account)
            await hub.disconnect_user(session.account, code=4401, reason="You were signed out everywhere")

    api.include_router(guarded)
    return api


async def keep_out_of_caches(response: Response) -> None:
    """Mark what is sent as nobody's but this browser's, and for now only."""
    response.headers["Cache-Control"] = "no-store"
