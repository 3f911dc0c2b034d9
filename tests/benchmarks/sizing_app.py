"""What `tests.benchmarks.sizing` serves: connections that are in nothing, in rooms of all sorts, and of users."""

from dataclasses import dataclass

from fastapi import FastAPI

from tests.benchmarks.app import broker
from wsrouter import History, Hub, RoomOptions, WebSocketHandler, WebSocketRouter
from wsrouter.auth import Authenticator

ROOMS = {"history *": RoomOptions(history=History(size=100)), "presence *": RoomOptions(presence=True)}


@dataclass(frozen=True)
class User:
    id: str


class ByName(Authenticator):
    async def __call__(self, number: int) -> User:
        return User(f"user {number}")


hub = Hub(broker(), rooms=ROOMS)
router = WebSocketRouter(hub=hub)
users = WebSocketRouter(hub=hub, guards=[ByName()])


@router.handler("/nothing/{number}")
class Nothing(WebSocketHandler):
    pass


@router.handler("/{kind}/{number}")
class InARoom(WebSocketHandler):
    def __init__(self, kind: str, number: int) -> None:
        self.room = kind if kind == "shared" else f"{kind} {number}"

    async def on_connect(self) -> None:
        await self.join(self.room)


@users.handler("/user/{number}")
class OfAUser(WebSocketHandler):
    pass


app = FastAPI()
app.include_router(users)
app.include_router(router)
