"""The application that each of the processes runs."""

import os
from dataclasses import dataclass

from fastapi import FastAPI

from tests.cluster.publishing import Note, Outcome, Publish, publish
from tests.cluster.settings import VARIABLE, Settings
from wsrouter import Limits, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator
from wsrouter.guards import ConnectionLimit
from wsrouter.health import health_router

hub = Settings.model_validate_json(os.environ[VARIABLE]).hub()


@dataclass
class User:
    id: str


class ByName(Authenticator):
    """Believes everybody."""

    async def __call__(self, name: str) -> User:
        return User(name)


router = WebSocketRouter(hub=hub, guards=[ByName()])


@router.handler("/desk")
class Desk(WebSocketHandler):
    """Lets clients into every room, and publishes for them."""

    client_rooms = ["*"]
    limits = Limits(rooms=2_000, inbox_messages=2_000)
    max_in_flight = 500

    @on
    async def publish(self, message: Publish) -> Outcome:
        note = Note(publisher=message.publisher, number=message.number, pad=message.pad)
        return await publish(hub, message.target, note, message.excludes)

    @on("plainly")
    async def publish_plainly(self, room: str) -> None:
        """Publish, and let a failure be answered as it is."""
        await self.broadcast(room, Note(publisher="plainly", number=0))


@router.handler("/limited")
class Limited(WebSocketHandler):
    """Lets two connections of a user in, wherever they are."""

    guards = [ConnectionLimit(per_user=2, everywhere=True, name="limited")]


@router.handler("/newest")
class Newest(WebSocketHandler):
    """Lets one connection of a user in: the newest."""

    guards = [ConnectionLimit(per_user=1, on_full="replace_oldest", everywhere=True, name="newest")]


app = FastAPI()
app.include_router(router)
app.include_router(health_router(hub))


@app.post("/disconnect/{user}")
async def disconnect(user: str) -> None:
    await hub.disconnect_user(user, reason="banned")


@app.get("/presence/{room}")
async def presence(room: str) -> list[str]:
    return [member.user for member in await hub.presence(room)]
