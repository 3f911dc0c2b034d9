"""The server of ``examples/notifications`` in one process: what each device is sent, and what is stored."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from examples.notifications.app import create_app
from examples.notifications.messages import MOST, Inbox, Load, MarkRead, Notified, WereRead
from tests.redis_server import RedisServer, serve_redis
from wsrouter.testing import TestConnection, WebSocketTestClient

ORIGIN = "http://notifications.test"
KEY = "a key of at least thirty-two bytes"


def notifications(database: Path, redis: str | None = None) -> FastAPI:
    return create_app(database, redis=redis, origins=[ORIGIN], key=KEY, takes=0)


class Client(WebSocketTestClient):
    """Signs in, posts and connects, as the page does."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app, timeout=5)
        self._transport = httpx.ASGITransport(app)

    async def sign_in(self, name: str) -> httpx.AsyncClient:
        """Return an HTTP client that has the cookie."""
        http = httpx.AsyncClient(transport=self._transport, base_url=ORIGIN, headers={"Origin": ORIGIN})
        assert (await http.post("/sign-in", json={"name": name})).status_code == 200
        return http

    @asynccontextmanager
    async def device(self, name: str) -> AsyncGenerator[tuple[TestConnection, list[Notified]]]:
        """Connect a device of a user, and yield it with the inbox that it was sent."""
        http = await self.sign_in(name)
        cookies = dict(http.cookies)
        async with self.connect("/ws/device", cookies=cookies, headers={"Origin": ORIGIN}) as socket:
            told: list[Notified] = []  # what happens just now may be told before the inbox, and be in it too
            while (message := await socket.receive())["type"] != "inbox":
                told.append(Notified.model_validate(message["data"]))
            inbox = Inbox.model_validate(message["data"])
            assert inbox.you == name
            known = {each.id for each in inbox.notifications}
            yield socket, [each for each in told if each.id not in known] + inbox.notifications

    async def notify(self, sender: str, to: str, text: str, key: str = "k1") -> None:
        http = await self.sign_in(sender)
        answer = await http.post("/notifications", json={"key": key, "to": to, "text": text})
        assert answer.status_code == 204


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "notifications.sqlite3"


@pytest_asyncio.fixture
async def client(database: Path) -> AsyncIterator[Client]:
    async with Client(notifications(database)) as client:
        yield client


async def test_every_device_of_the_user_is_told_and_nobody_else(client: Client) -> None:
    """A route sends to both devices at once; a device that comes later finds it in its inbox."""
    async with (
        client.device("Ada") as (phone, before),
        client.device("Ada") as (laptop, _),
        client.device("Bob") as (bob, _),
    ):
        assert before == []
        await client.notify("Bob", "Ada", "  Tea is ready ")
        told = await phone.receive(Notified)
        assert (told.sender, told.text, told.read) == ("Bob", "Tea is ready", False)
        assert await laptop.receive(Notified) == told
        await bob.expect_nothing()
    async with client.device("Ada") as (_, inbox):
        assert inbox == [told]


async def test_what_one_device_reads_is_read_on_all(client: Client) -> None:
    """They are told at once, and it stays so; nobody can mark what is another's."""
    await client.notify("Bob", "Ada", "one", "k1")
    await client.notify("Bob", "Ada", "two", "k2")
    async with (
        client.device("Ada") as (phone, inbox),
        client.device("Ada") as (laptop, _),
        client.device("Bob") as (bob, _),
    ):
        two, one = inbox
        assert (two.text, one.text) == ("two", "one")
        assert (await bob.call(MarkRead(ids=[one.id])))["type"] == "$ok"
        assert (await phone.call(MarkRead(ids=[two.id])))["type"] == "$ok"
        assert (await phone.receive(WereRead)).ids == (await laptop.receive(WereRead)).ids == [two.id]
        assert [each.read for each in (await laptop.call(Load(), expect=Inbox)).notifications] == [True, False]
    async with client.device("Ada") as (_, inbox):
        assert [each.read for each in inbox] == [True, False]


async def test_a_letter_that_is_posted_again_is_stored_once(client: Client) -> None:
    """With the same key of the same sender; devices are told again, with the same id."""
    async with client.device("Ada") as (phone, _):
        await client.notify("Bob", "Ada", "once")
        told = await phone.receive(Notified)
        await client.notify("Bob", "Ada", "once")
        assert await phone.receive(Notified) == told
        await client.notify("Cleo", "Ada", "once")
        assert (await phone.receive(Notified)).id > told.id
    async with client.device("Ada") as (_, inbox):
        assert [each.sender for each in inbox] == ["Cleo", "Bob"]


async def test_the_worker_tells_when_an_export_is_ready(database: Path) -> None:
    """It is told once for each order, to who was away too, and the orders survive a restart."""
    async with Client(notifications(database)) as client:
        http = await client.sign_in("Ada")
        for key in ("k1", "k2", "k2"):
            assert (await http.post("/exports", json={"key": key})).status_code == 202
    async with Client(notifications(database)) as client, client.device("Ada") as (phone, inbox):
        told = {each.id: each for each in inbox}
        while len(told) < 2:
            notification = await phone.receive(Notified)
            told[notification.id] = notification
        assert {each.text for each in told.values()} == {"Your export is ready."}
        await phone.expect_nothing()


async def test_the_inbox_has_the_newest(client: Client) -> None:
    """Not more than a page shows."""
    await asyncio.gather(*(client.notify("Bob", "Ada", f"{number}", f"k{number}") for number in range(MOST + 5)))
    async with client.device("Ada") as (_, inbox):
        assert len(inbox) == MOST
        assert [each.id for each in inbox] == [*range(MOST + 5, 5, -1)]


async def test_who_is_not_signed_in_or_from_elsewhere_is_turned_away(client: Client) -> None:
    """By the socket and by the routes."""
    async with client.connect("/ws/device", headers={"Origin": ORIGIN}) as socket:
        assert (await socket.closed()).code == 4401
    http = await client.sign_in("Ada")
    elsewhere = {"Origin": "https://elsewhere.example"}
    async with client.connect("/ws/device", cookies=dict(http.cookies), headers=elsewhere) as socket:
        assert (await socket.closed()).code == 4403
    for path, body in (("/notifications", {"key": "k", "to": "Bob", "text": "hi"}), ("/exports", {"key": "k"})):
        assert (await http.post(path, json=body, headers=elsewhere)).status_code == 403
        http.cookies.clear()
        assert (await http.post(path, json=body)).status_code == 401
        await http.post("/sign-in", json={"name": "Ada"})


@asynccontextmanager
async def two_servers(database: Path) -> AsyncGenerator[tuple[RedisServer, Client, Client]]:
    """Run two servers on one Redis; they have their connections to it in one process, but nothing else in common."""
    with serve_redis() as redis:
        async with (
            Client(notifications(database, redis.url)) as one,
            Client(notifications(database, redis.url)) as other,
        ):
            yield redis, one, other


async def test_devices_may_be_on_several_servers(database: Path) -> None:
    """What one server sends is told on the other, and so is what was read there."""
    async with (
        two_servers(database) as (_, one, other),
        one.device("Ada") as (phone, _),
        other.device("Ada") as (laptop, _),
    ):
        await other.notify("Bob", "Ada", "Tea is ready")
        told = await phone.receive(Notified)
        assert await laptop.receive(Notified) == told
        assert (await phone.call(MarkRead(ids=[told.id])))["type"] == "$ok"
        assert (await laptop.receive(WereRead)).ids == [told.id]


async def test_a_notification_is_stored_while_the_redis_is_away(database: Path) -> None:
    """Devices of the same server are told at once, the others that something is missing when the Redis is back."""
    async with (
        two_servers(database) as (redis, one, other),
        one.device("Ada") as (phone, _),
        other.device("Ada") as (laptop, _),
    ):
        redis.kill()
        await one.notify("Bob", "Ada", "Tea is ready")
        told = await phone.receive(Notified)
        assert (await phone.call(MarkRead(ids=[told.id])))["type"] == "$ok"
        redis.start()
        frame = await laptop.receive()
        assert frame == {"type": "$gap", "data": {"dropped": None}}
        (stored,) = (await laptop.call(Load(), expect=Inbox)).notifications
        assert (stored.id, stored.read) == (told.id, True)
