"""When a hub starts and stops, and what it asks of its broker."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI
from websockets.exceptions import InvalidStatus

from tests.envelopes import app_of, receive, send
from tests.support import connect, eventually, serve
from wsrouter import ConfigurationError, History, Hub, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.brokers import MemoryBroker
from wsrouter.brokers.base import Publication, Receiver, Target


class Said(Message):
    text: str


class NotingBroker(MemoryBroker):
    """A broker that is for many processes, as far as a hub can tell, and notes what it is asked."""

    local = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        self.asked.append("start")
        await super().start(node, receiver, grace)

    async def aclose(self) -> None:
        self.asked.append("close")
        await super().aclose()

    async def publish(self, publication: Publication, history: History | None = None) -> None:
        self.asked.append(f"publish {publication.target} {publication.name}")
        await super().publish(publication, history)

    async def subscribe(self, target: Target, name: str, history: History | None = None) -> None:
        self.asked.append(f"subscribe {target} {name}")
        await super().subscribe(target, name, history)

    async def unsubscribe(self, target: Target, name: str) -> None:
        self.asked.append(f"unsubscribe {target} {name}")
        await super().unsubscribe(target, name)


class LocalNotingBroker(NotingBroker):
    local = True


class Member(WebSocketHandler):
    async def on_connect(self) -> None:
        await self.join("a")

    @on("tell")
    async def tell(self, message: str) -> None:
        await self.broadcast("a", Said(text=message))


async def test_it_lives_as_long_as_the_application() -> None:
    """It starts and stops within the application's own lifespan, without being wired."""
    broker = NotingBroker()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        broker.asked.append("application starts")
        yield
        broker.asked.append("application ends")

    app = FastAPI(lifespan=lifespan)
    app.include_router(app_of(Member, hub=Hub(broker)).router)
    async with serve(app):
        pass
    assert broker.asked == ["application starts", "start", "close", "application ends"]


async def test_it_starts_once_however_often_it_is_included() -> None:
    """One hub under several routers, prefixes and plain routers in between starts once and stops once."""
    broker = NotingBroker()
    hub = Hub(broker)
    app = FastAPI()
    child = WebSocketRouter(hub=hub)
    child.add_handler("/", Member)
    for prefix in "/one", "/two", "/three":
        parent = WebSocketRouter(prefix=prefix, hub=hub)
        parent.include_router(child)
        between = APIRouter(prefix="/between")
        between.include_router(parent)
        app.include_router(between)
        app.include_router(parent)
    async with serve(app) as server, connect(server, "/one/") as one, connect(server, "/between/three/") as three:
        await eventually(lambda: hub.rooms == {"a": 2})
        await send(one, "tell", "hi")
        for ws in one, three:
            assert (await receive(ws))["data"]["text"] == "hi"
    assert broker.asked.count("start") == broker.asked.count("close") == 1


async def test_a_process_subscribes_for_its_first_member() -> None:
    """The broker is asked for a room or a user when the first member comes, and no longer after the last left."""
    broker = NotingBroker()
    hub = Hub(broker)
    async with serve(app_of(Member, hub=hub)) as server:
        async with connect(server), connect(server):
            await eventually(lambda: hub.rooms == {"a": 2})
            await hub.broadcast("a", Said(text="hi"))
            await hub.send_to_user("ann", Said(text="hi"))
        await eventually(lambda: not hub.connections)
    assert broker.asked == [
        *("start", "subscribe room a", "publish room a", "publish user ann", "unsubscribe room a", "close")
    ]


async def test_on_memory_it_starts_on_first_use() -> None:
    """Where no lifespan ran, a hub for one process starts when it is first used."""
    broker = LocalNotingBroker()
    hub = Hub(broker)
    async with serve(app_of(Member, hub=hub), lifespan="off") as server, connect(server) as ws:
        await eventually(lambda: hub.rooms)
        await hub.broadcast("a", Said(text="hi"))
        assert (await receive(ws))["data"]["text"] == "hi"
    assert broker.asked[0] == "start"
    assert broker.asked.count("start") == 1


@pytest.mark.logs_errors
async def test_on_another_broker_it_must_be_started(caplog: pytest.LogCaptureFixture) -> None:
    """Where no lifespan ran, a handshake is refused with 500, and the log says what to do."""
    hub = Hub(NotingBroker())
    async with serve(app_of(Member, hub=hub), lifespan="off") as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server)
    assert refused.value.response.status_code == 500
    for part in "NotingBroker", "--lifespan on", "async with hub":
        assert part in caplog.text


async def test_a_script_that_only_sends() -> None:
    """`async with Hub(...)` starts it and ends it; before and after, it refuses with a sentence."""
    broker = NotingBroker()
    hub = Hub(broker)
    for use in hub.broadcast("a", Said(text="hi")), hub.send_to_user("ann", Said(text="hi")), hub.disconnect_user("a"):
        with pytest.raises(ConfigurationError, match="was not started"):
            await use
    async with hub as entered:
        assert entered is hub
        await hub.broadcast("a", Said(text="hi"))
        async with hub:
            await hub.broadcast("b", Said(text="hi"))
        await hub.broadcast("c", Said(text="hi"))
    assert broker.asked == ["start", "publish room a", "publish room b", "publish room c", "close"]
    with pytest.raises(ConfigurationError, match="was not started"):
        await hub.broadcast("a", Said(text="hi"))
    async with hub:
        await hub.broadcast("a", Said(text="hi"))
    assert broker.asked[-3:] == ["start", "publish room a", "close"]


async def test_a_hub_of_one_process_needs_no_start() -> None:
    """On memory a hub can be used as it is, entered or not."""
    broker = LocalNotingBroker()
    hub = Hub(broker)
    await hub.broadcast("a", Said(text="hi"))
    async with hub:
        await hub.broadcast("a", Said(text="hi"))
    await hub.send_to_user("ann", Said(text="hi"))
    published = [each for each in broker.asked if each.startswith("publish")]
    assert published == ["publish room a", "publish room a", "publish user ann"]
    assert hub.stats().published == 0, "nobody is here"


class BrokenBroker(NotingBroker):
    """A broker that can't be reached."""

    async def start(self, node: str, receiver: Receiver, grace: float = 15.0) -> None:
        self.asked.append("start")
        raise OSError("no route to broker")


@pytest.mark.logs_errors
async def test_a_broker_that_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    """The application does not start either, and says why."""
    caplog.set_level(logging.ERROR)
    with pytest.raises(OSError, match="no route to broker"):
        async with serve(app_of(Member, hub=Hub(BrokenBroker()))):
            pytest.fail("it has started")


class LingeringBroker(MemoryBroker):
    """A broker that takes its time to close."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = asyncio.Event()
        self.gate = asyncio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await self.gate.wait()
        await super().aclose()


async def test_who_publishes_while_it_stops_waits() -> None:
    """What comes as the application ends starts it again afterwards, and not under what is being closed."""
    broker = LingeringBroker()
    hub = Hub(broker)
    async with serve(app_of(Member, hub=hub)) as server:
        async with connect(server):
            await eventually(lambda: hub.rooms == {"a": 1})
        publishing = asyncio.create_task(_publish_late(broker, hub))
    await publishing
    async with serve(app_of(Member, hub=hub)) as server, connect(server) as ws:
        await eventually(lambda: hub.rooms == {"a": 1})
        await hub.broadcast("a", Said(text="hi"))
        assert (await receive(ws))["data"]["text"] == "hi"


async def _publish_late(broker: LingeringBroker, hub: Hub) -> None:
    await broker.closing.wait()
    asyncio.get_running_loop().call_later(0.05, broker.gate.set)
    await hub.broadcast("a", Said(text="late"))
