"""The example that README opens with runs as printed, its parts given."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.support import connect, serve

pytestmark = pytest.mark.usefixtures("unmeasured")

PARTS = """
from types import SimpleNamespace

from dependency_injector import containers, providers
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

settings = SimpleNamespace(jwt_key="a secret of at least thirty-two bytes")


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    text: Mapped[str]


class RoomService:
    pass


class Container(containers.DeclarativeContainer):
    rooms = providers.Singleton(RoomService)


engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session():
    async with engine.begin() as setup:
        await setup.run_sync(Base.metadata.create_all)
    async with new_session() as session:
        yield session
"""

EXAMPLE = """
from typing import Annotated
from fastapi import Depends, FastAPI
from dependency_injector.wiring import Provide
from wsrouter import CloseInfo, Hub, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import JWTAuth
from wsrouter.guards import AllowOrigins, ConnectionLimit

class Say(Message):                 # {"type": "say", "data": {"text": "hi"}}
    text: str

class Said(Message, type="chat.said"):
    user: str
    text: str

auth = JWTAuth(key=settings.jwt_key, algorithms=["HS256"], audience="chat")
hub = Hub()                         # one process; Hub(RedisBroker(url)) for many

router = WebSocketRouter(
    prefix="/ws", hub=hub, container=Container(),
    guards=[AllowOrigins("https://app.example"), auth, ConnectionLimit(per_user=5)],
)

@router.handler("/chat/{room}")
class Chat(WebSocketHandler):
    def __init__(                   # once per connection, before accept
        self,
        room: str,                                                   # path, query, header, cookie: as in FastAPI
        rooms: Annotated[RoomService, Provide[Container.rooms]],     # any dependency-injector provider
    ) -> None:
        self.room, self.rooms = room, rooms

    async def on_connect(self) -> None:            # after accept: may send
        await self.join(self.room)

    @on                                            # the type comes from the annotation
    async def say(
        self, message: Say,
        session: Annotated[AsyncSession, Depends(get_session)],      # opened for this message, closed after it
    ) -> None:
        session.add(Line(user=self.user.id, text=message.text))
        await session.commit()
        await self.broadcast(self.room, Said(user=self.user.id, text=message.text))

    async def on_disconnect(self, close: CloseInfo) -> None:         # always runs once, if on_connect began
        ...

app = FastAPI()
app.include_router(router)

@app.post("/announce/{room}")                      # from an HTTP route, a worker, another process
async def announce(room: str, text: str) -> None:
    await hub.broadcast(room, Said(user="system", text=text))
"""


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["plain", "future-annotations"])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    path = tmp_path / "example.py"
    path.write_text(request.param + PARTS + EXAMPLE)
    spec = importlib.util.spec_from_file_location("example", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["example"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["example"]


def bearer(**claims: object) -> dict[str, str]:
    claims = {"sub": "ada", "aud": "chat", "exp": int(time.time()) + 60, **claims}
    token = jwt.encode(claims, "a secret of at least thirty-two bytes", "HS256")
    return {"Authorization": f"Bearer {token}"}


async def test_the_example_runs_as_printed(example: ModuleType) -> None:
    """Two users chat, an HTTP route announces, and what was said lies in the database."""
    async with (
        serve(example.app) as server,
        connect(server, "/ws/chat/1", additional_headers=bearer()) as ada,
        connect(server, "/ws/chat/1", additional_headers=bearer(sub="bob"), origin="https://app.example") as bob,
    ):
        await ada.send('{"type":"say","id":1,"data":{"text":"hi"}}')
        said = '{"type":"chat.said","room":"1","data":{"user":"ada","text":"hi"}}'
        assert await ada.recv() == said
        assert await ada.recv() == '{"type":"$ok","id":1}'
        assert await bob.recv() == said
        async with httpx.AsyncClient(verify=server.trust or True) as http:
            answer = await http.post(server.http("/announce/1"), params={"text": "tea"})
        assert answer.status_code == 200
        assert await bob.recv() == '{"type":"chat.said","room":"1","data":{"user":"system","text":"tea"}}'

        async with example.new_session() as session:
            line = await session.get(example.Line, 1)
        assert (line.user, line.text) == ("ada", "hi")
    await example.engine.dispose()


@pytest.mark.parametrize(
    ("headers", "origin", "status"),
    [
        ({}, None, 401),
        (bearer(exp=int(time.time()) - 1), None, 401),
        (bearer(aud="other"), None, 401),
        (bearer(), "https://elsewhere.example", 403),
        (bearer(), "https://app.example.evil.example", 403),
    ],
    ids=["no token", "expired", "another audience", "another origin", "a longer origin"],
)
async def test_the_example_denies(
    example: ModuleType, headers: dict[str, str], origin: str | None, status: int
) -> None:
    """Who has no valid token, or comes from another page, is denied before the handler is built."""
    async with serve(example.app) as server:
        with pytest.raises(InvalidStatus) as denied:
            async with connect(server, "/ws/chat/1", additional_headers=headers, origin=origin):
                pass
    assert denied.value.response.status_code == status
    if status == 401:
        assert denied.value.response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_the_example_limits_connections_of_one_user(example: ModuleType) -> None:
    """The sixth connection of one user is denied with 429, and admitted when another has ended."""
    async with serve(example.app) as server:
        held = [await connect(server, "/ws/chat/1", additional_headers=bearer()) for _ in range(5)]
        with pytest.raises(InvalidStatus) as denied:
            async with connect(server, "/ws/chat/1", additional_headers=bearer()):
                pass
        assert denied.value.response.status_code == 429
        assert denied.value.response.headers["Retry-After"] == "5"
        await held.pop().close()
        while True:
            try:
                held.append(await connect(server, "/ws/chat/1", additional_headers=bearer()))
            except InvalidStatus:
                continue
            break
        for connection in held:
            await connection.close()
