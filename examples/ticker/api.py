"""HTTP beside the WebSocket: how the hub and its clients are doing, and what makes one of them slow."""

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel

from examples.ticker.slow import Pace, SlowClient, SlowReport
from wsrouter import Hub
from wsrouter.guards import AllowOrigins


class Status(BaseModel):
    """What the hub counts, since the server started, and what waits for two of its clients.

    Attributes:
        connections: How many there are.
        published: Prices that were published.
        delivered: Prices that were handed to connections.
        superseded: Prices that never went out, because a newer one of the share had taken their place.
        dropped: Prices that were dropped without one.
        given_up: Connections that were closed because their clients did not read.
        pending_bytes: What waits for the client that asks.
        slow: How the slow client is doing.
    """

    connections: int
    published: int
    delivered: int
    superseded: int
    dropped: int
    given_up: int
    pending_bytes: int
    slow: SlowReport


class Wish(BaseModel):
    """How the slow client shall read."""

    pace: Pace


def create_api(hub: Hub, slow: SlowClient, origins: AllowOrigins) -> APIRouter:
    """Return ``GET /status?connection=...`` and ``PUT /slow-client``."""
    routes = APIRouter()

    @routes.get("/status")
    async def status(connection: str = "") -> Status:
        stats, asking = hub.stats(), hub.connections.get(connection)
        return Status(
            connections=stats.connections,
            published=stats.published,
            delivered=stats.delivered,
            superseded=stats.superseded,
            dropped=stats.dropped,
            given_up=stats.slow,
            pending_bytes=0 if asking is None else asking.pending_bytes,
            slow=slow.report(),
        )

    @routes.put("/slow-client", dependencies=[Depends(origins)])
    async def slow_client(wish: Wish, request: Request) -> SlowReport:
        # Where this server itself was reached; a header could send the client anywhere.
        host, port = request.scope["server"]
        if port is None:
            raise HTTPException(503, "The slow client needs a server that listens on a port")
        await slow.read(wish.pace, host, port)
        return slow.report()

    return routes
