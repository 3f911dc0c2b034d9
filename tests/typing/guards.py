"""Ready guards and rate limits: what they take, and what they are beside the application's own."""

from typing import Annotated, Literal, assert_type

from fastapi import APIRouter, Depends

from wsrouter import Connection, WebSocketHandler, WebSocketRouter
from wsrouter.guards import AllowOrigins, ConnectionLimit, ConnectionLimitStats, RequireScopes, RequireSubprotocol
from wsrouter.rates import Rate, RateLimit, RateLimitStats

origins = AllowOrigins("https://app.example", "https://*.app.example", missing=None)
places = ConnectionLimit(total=10_000, per_ip=20, retry_after=5)
devices = ConnectionLimit(per_user=5, on_full="replace_oldest")
writers = RequireScopes("chat:write", "chat:read")
rate: Rate = (20, 0.5)
rates = RateLimit(messages="20/second", bytes="64 KiB per second", per="user", burst=2)

router = WebSocketRouter(
    guards=[places, origins, writers, devices, RequireSubprotocol("wsrouter.v1")],
    middleware=[rates, RateLimit(messages=rate), RateLimit(bytes=(65536, 1))],
)


@router.handler("/")
class Limited(WebSocketHandler):
    guards = [Depends(writers)]
    middleware = [rates]


api = APIRouter(dependencies=[Depends(origins)])


@api.get("/")
async def read(allowed: Annotated[None, Depends(writers)]) -> None: ...


async def inferred(connection: Connection) -> None:
    """What is added comes back as it is, and counts have types."""
    assert_type(router.middleware(rates), RateLimit)
    assert_type(rates.stats(), RateLimitStats)
    assert_type(rates.stats().refused, int)
    assert_type(places.stats(), ConnectionLimitStats)
    assert_type(places.needs_user, bool)
    assert_type(places.reads_user, Literal[False])
    assert_type(await writers(connection.http), None)
    assert_type(await origins(connection.http), None)
