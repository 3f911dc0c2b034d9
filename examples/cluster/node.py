"""A node: ``CLUSTER_REDIS=redis://127.0.0.1:6379/0 uvicorn examples.cluster.node:app``, as often as you like.

The environment says more: ``CLUSTER_NODE`` is its name, ``CLUSTER_ORIGINS`` has the origins of the page, separated by
spaces.
"""

import logging
import os
from dataclasses import dataclass
from typing import Annotated

from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import FastAPI, Query

from examples.cluster.messages import Move, Order, Ordered, Tick, Ticked, Welcome
from wsrouter import Disconnect, History, Hub, HubHealth, Position, RoomOptions, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator
from wsrouter.brokers.redis import RedisBroker
from wsrouter.guards import AllowOrigins
from wsrouter.health import health_router

ORDERS, TICKS = "orders", "ticks"
ROOMS = {ORDERS: RoomOptions(history=History(size=300), presence=True)}
TTL = 15.0
"""Seconds until the others believe that a node is gone. The default is 60; nobody would wait for that at a page."""


class Container(containers.DeclarativeContainer):
    config = providers.Configuration()


@dataclass
class User:
    id: str


class ByName(Authenticator):
    """Believes everybody: all the clients of this demo are on its page."""

    async def __call__(self, name: Annotated[str, Query(min_length=1, max_length=40)]) -> User:
        return User(name)


@dataclass
class Visitor(WebSocketHandler):
    """A client in both rooms."""

    node: Annotated[str, Provide[Container.config.node]]
    since: Position | None = None
    """How far it has read the orders, on whatever node."""

    async def on_connect(self) -> Welcome:
        await self.join(ORDERS, since=self.since)
        await self.join(TICKS)
        return Welcome(node=self.node)

    @on
    async def order(self, message: Order) -> None:
        await self.broadcast(ORDERS, Ordered(sender=self.user.id, source=message.source, serial=message.serial))

    @on
    async def tick(self, message: Tick) -> None:
        await self.broadcast(TICKS, Ticked(sender=self.user.id, source=message.source, serial=message.serial))

    @on
    async def move(self, message: Move) -> None:
        raise Disconnect(1012, "Go to another node")


def create_app(*, node: str, redis: str, origins: list[str]) -> FastAPI:
    """Build the application.

    Args:
        node: Name of this process.
        redis: URL of the Redis that all nodes share.
        origins: By which browsers reach the page.
    """
    container = Container()
    container.config.from_dict({"node": node})
    hub = Hub(RedisBroker(redis, ttl=TTL), rooms=ROOMS)
    router = WebSocketRouter(
        prefix="/ws", hub=hub, container=container, guards=[AllowOrigins(*origins), ByName()], reject="auto"
    )
    router.add_handler("/visit", Visitor)

    app = FastAPI(title=node)
    app.include_router(router)
    app.include_router(health_router(hub))  # for the load balancer that you would have

    @app.get("/hub")
    async def hub_health() -> HubHealth:
        return hub.health()

    return app


name = os.environ.get("CLUSTER_NODE", "node")
logging.basicConfig(level="WARNING", format=f"{name}: %(message)s")
app = create_app(
    node=name,
    redis=os.environ.get("CLUSTER_REDIS", "redis://127.0.0.1:6379/0"),
    origins=os.environ.get("CLUSTER_ORIGINS", "http://127.0.0.1:8010 http://localhost:8010").split(),
)
