"""HTTP routes for probes: is this process alive, and can it serve?"""

from fastapi import APIRouter, Response

from wsrouter.hub import Hub


def health_router(hub: Hub, *, prefix: str = "/health") -> APIRouter:
    """Return a router with two routes for whoever starts, restarts and chooses processes.

    ``/live`` answers 200 while the event loop runs. ``/ready`` answers 200 while the link to the broker is up, and 503
    while it is down, with how long that has been so, and no number that tells of users.

        app.include_router(health_router(hub))

    A process whose link is down still serves its connections. If the broker itself is away, all processes say 503:
    what stops those that are not ready would stop all of them.

    Args:
        hub: whose link it is about.
        prefix: of the paths.
    """
    router = APIRouter(prefix=prefix, include_in_schema=False)

    @router.get("/live")
    async def live(response: Response) -> dict[str, str]:
        response.headers["Cache-Control"] = "no-store"
        return {"state": "up"}

    @router.get("/ready")
    async def ready(response: Response) -> dict[str, str | float | None]:
        response.headers["Cache-Control"] = "no-store"
        health = hub.health()
        if health.state == "down":
            response.status_code = 503
        return {
            "state": health.state,
            "since": health.since,
            "heartbeat_age": health.heartbeat_age,
            "lag": health.lag,
        }

    return router
