"""What a router's decorators give back: what they were given."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, assert_type

from fastapi import APIRouter, Depends, FastAPI

from tests.typing.services import Session, get_session
from wsrouter import (
    Connection,
    ConnectionScoped,
    Deny,
    Envelope,
    Hub,
    Message,
    WebSocketHandler,
    WebSocketRouter,
)
from wsrouter.guards import AllowOrigins, ConnectionLimit


class Failed(Message):
    why: str


async def guard(connection: Connection, session: Annotated[Session, Depends(get_session)]) -> None:
    if connection.user_id is None:
        raise Deny(401, reason="Who are you?")


hub = Hub()
router = WebSocketRouter(
    prefix="/ws",
    hub=hub,
    guards=[guard, Depends(guard), AllowOrigins("https://app.example"), ConnectionLimit(per_user=5)],
    reject="auto",
)


@router.middleware
async def timed(
    message: Envelope,
    connection: Connection,
    call_next: Callable[[Envelope], Awaitable[Any]],
    session: Annotated[Session, Depends(get_session)],
) -> float:
    await call_next(message)
    return 0.1


class Traced:
    """Middleware that is an object."""

    async def __call__(
        self, message: Envelope, connection: Connection, call_next: Callable[[Envelope], Awaitable[Any]]
    ) -> None:
        await call_next(message)


@router.exception_handler(KeyError)
async def missing(exc: KeyError, connection: Connection) -> Failed:
    return Failed(why=str(exc))


@router.handler("/echo", name="echo")
class Echo(WebSocketHandler):
    def __init__(self, size: int = 10) -> None:
        self.size = size


child = WebSocketRouter()
router.include_router(child, prefix="/child", dependencies=[Depends(guard)])
between = APIRouter()
between.include_router(router)
app = FastAPI()
app.include_router(between, prefix="/v1")


async def decorated(envelope: Envelope, connection: Connection, session: Session) -> None:
    """Each keeps its own parameters and its own result."""

    async def call_next(message: Envelope) -> None: ...

    assert_type(await timed(envelope, connection, call_next, session), float)
    assert_type(await missing(KeyError("name"), connection), Failed)
    assert_type(router.middleware(Traced()), Traced)
    assert_type(Echo(size=1).size, int)
    assert_type(Echo, type[Echo])
    assert_type(router.handler("/other")(Echo), type[Echo])


def shared_default(session: Session = ConnectionScoped(get_session)) -> Session:
    return session


def shared(session: Annotated[Session, ConnectionScoped(get_session, use_cache=False)]) -> Session:
    return session


def scoped(session: Session) -> None:
    """A dependency of the connection has the type that its annotation says, however it is marked."""
    assert_type(shared_default(), Session)
    assert_type(shared(session), Session)
