"""The server of ``examples/secure``: who gets in, who stays, and who is put out."""

import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed, InvalidStatus

from examples.secure.app import create_app
from examples.secure.messages import AccountList, Board, Clear, Disable, ListAccounts, Pin, Post, Welcome
from examples.secure.passwords import Passwords, hash_password
from examples.secure.settings import Settings
from tests.support import connect, serve
from wsrouter.testing import Denied, TestConnection, WebSocketTestClient

ORIGIN = "http://board.test"
PASSWORDS = {"rosa": "rosa reads", "walt": "walt writes", "ada": "ada administers"}


def settings(**chosen: Any) -> Settings:
    """Return settings with short times, and others as they are chosen."""
    defaults: dict[str, Any] = {"origins": [ORIGIN], "expiry_grace": 0.0, "revalidate_every": 0.05}
    return Settings(**(defaults | chosen))


@dataclass
class Visit:
    """A connection to the board, and what it was told first."""

    socket: TestConnection
    welcome: Welcome
    board: Board


@dataclass
class Device:
    """A browser: it keeps cookies, and sends its origin."""

    client: WebSocketTestClient
    http: httpx.AsyncClient
    headers: dict[str, str] = field(default_factory=lambda: {"Origin": ORIGIN})

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(path, json=body, headers=self.headers)

    async def sign_in(self, name: str, password: str | None = None) -> httpx.Response:
        return await self.post("/api/sign-in", {"name": name, "password": password or PASSWORDS.get(name, "?")})

    async def token(self) -> str:
        answer = await self.post("/api/token")
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self.http.cookies)

    @asynccontextmanager
    async def enter(self, *, ticket: str | None = None) -> AsyncGenerator[Visit]:
        cookies = None if ticket else self.cookies
        query = {"ticket": ticket} if ticket else None
        async with self.client.connect("/ws/board", headers=self.headers, cookies=cookies, query=query) as socket:
            yield Visit(socket, await socket.receive(Welcome), await socket.receive(Board))

    async def is_turned_away(self, *, query: dict[str, str] | None = None) -> int:
        """Return the close code with which the server closes at once, as it does for browsers."""
        async with self.client.connect("/ws/board", headers=self.headers, cookies=self.cookies, query=query) as socket:
            frame = await socket.closed()
            return frame.code


class Devices:
    """Makes devices that belong to one application."""

    def __init__(self, app: FastAPI, client: WebSocketTestClient, stack: AsyncExitStack) -> None:
        self._app = app
        self._client = client
        self._stack = stack

    async def __call__(self, name: str | None = None, *, address: str = "127.0.0.1") -> Device:
        transport = httpx.ASGITransport(app=self._app, client=(address, 50000))
        http = await self._stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=ORIGIN))
        device = Device(self._client, http)
        if name is not None:
            assert (await device.sign_in(name)).status_code == 200
            await device.token()
        return device


@asynccontextmanager
async def running(**chosen: Any) -> AsyncGenerator[Devices]:
    app = create_app(settings(**chosen))
    async with WebSocketTestClient(app, timeout=5) as client, AsyncExitStack() as stack:
        yield Devices(app, client, stack)


@pytest_asyncio.fixture
async def device() -> AsyncIterator[Devices]:
    async with running() as devices:
        yield devices


async def test_cookies_are_for_this_site_and_not_for_scripts(device: Devices) -> None:
    """Both are HttpOnly and SameSite=Strict; over https they are Secure, and keep to their host by their name."""
    rosa = await device()
    set_cookies = [
        (await rosa.sign_in("rosa")).headers["set-cookie"],
        (await rosa.post("/api/token")).headers["set-cookie"],
    ]
    for cookie in set_cookies:
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
    async with running(origins=["https://board.test"]) as secure:
        rosa = await secure()
        rosa.headers["Origin"] = "https://board.test"
        cookie = (await rosa.sign_in("rosa")).headers["set-cookie"]
        assert cookie.startswith("__Host-board_session=")
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Secure"} <= set(cookie.split("; "))


async def test_a_wrong_password_and_an_unknown_name_are_answered_alike(device: Devices) -> None:
    """The same status and body, without a cookie."""
    rosa = await device()
    answers = [await rosa.sign_in("rosa", "guessed"), await rosa.sign_in("nobody", "guessed")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert rosa.cookies == {}


@pytest.mark.parametrize(
    "body",
    [{"name": "rosa", "password": "s3cret" * 50}, {"password": "s3cret"}, {"name": "rosa", "password": ["s3cret"]}, []],
    ids=["a long password", "no name", "a list", "no object"],
)
async def test_what_is_no_sign_in_is_refused_and_not_repeated(device: Devices, body: Any) -> None:
    """With 422; the password that was sent does not come back."""
    rosa = await device()
    answer = await rosa.post("/api/sign-in", body)
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


async def test_an_unknown_name_takes_as_long_as_a_known_one() -> None:
    """A hash is computed for it too, and what it is compared with lets nobody in."""
    passwords = Passwords()
    known = hash_password("right")
    assert await passwords.verify(known, "right")
    assert not await passwords.verify(known, "wrong")
    assert not await passwords.verify(None, "nobody's")
    assert not await passwords.verify("no hash", "right")

    async def fastest(known: str | None) -> float:
        times: list[float] = []
        for _ in range(3):
            begin = time.perf_counter()
            await passwords.verify(known, "wrong")
            times.append(time.perf_counter() - begin)
        return min(times)

    assert await fastest(None) > await fastest(known) / 4


async def test_attempts_are_limited_by_name_and_address(device: Devices) -> None:
    """After five that fail the sixth has to wait, also with the right password; others are not held up."""
    mallory, rosa = await device(address="192.0.2.1"), await device(address="192.0.2.2")
    statuses = [(await mallory.sign_in("rosa", "guessed")).status_code for _ in range(5)]
    assert statuses == [401] * 5
    refused = await mallory.sign_in("rosa")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert (await mallory.sign_in("walt")).status_code == 200
    for _ in range(7):
        assert (await rosa.sign_in("rosa")).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", None], ids=str)
@pytest.mark.parametrize("path", ["/api/sign-in", "/api/token", "/api/ticket", "/api/sign-out"])
async def test_another_sites_page_can_post_nothing(device: Devices, path: str, origin: str | None) -> None:
    """Without the origin of the board's own page every route answers 403, cookies or not."""
    rosa = await device("rosa")
    headers = {} if origin is None else {"Origin": origin}
    body = {"name": "rosa", "password": PASSWORDS["rosa"]}
    answer = await rosa.http.post(path, json=body, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    async with rosa.enter():
        pass


async def test_both_credentials_let_in(device: Devices) -> None:
    """The cookie, and a ticket in its place; the board says which it was."""
    rosa = await device("rosa")
    async with rosa.enter() as visit:
        assert (visit.welcome.name, visit.welcome.scopes) == ("rosa", ["notes:read"])
        assert visit.welcome.credential == "cookie"
        assert len(visit.board.notices) == 1
    ticket = (await rosa.post("/api/ticket")).json()["ticket"]
    async with rosa.enter(ticket=ticket) as visit:
        assert (visit.welcome.name, visit.welcome.credential) == ("rosa", "ticket")
    assert await rosa.is_turned_away(query={"ticket": ticket}) == 4401


async def test_a_ticket_is_for_the_origin_that_asked_for_it() -> None:
    """Another of the board's own origins can't use it."""
    async with running(origins=[ORIGIN, "http://other.test"]) as device:
        rosa = await device("rosa")
        ticket = (await rosa.post("/api/ticket")).json()["ticket"]
        rosa.headers["Origin"] = "http://other.test"
        assert await rosa.is_turned_away(query={"ticket": ticket}) == 4401


async def test_nobody_gets_in_without_a_credential(device: Devices) -> None:
    """A browser is closed with 4401; a client without Origin is denied with 403, signed in or not."""
    rosa = await device()
    assert await rosa.is_turned_away() == 4401
    for path in ("/api/token", "/api/ticket"):
        assert (await rosa.post(path)).status_code == 401
    await rosa.sign_in("rosa")
    await rosa.token()
    with pytest.raises(Denied) as denied:
        async with rosa.client.connect("/ws/board", cookies=rosa.cookies):
            pass
    assert denied.value.status == 403


async def test_a_token_of_somebody_elses_making_is_refused(device: Devices) -> None:
    """Another key, and a token of another type that is signed with the same one."""
    rosa = await device("rosa")
    claims = jwt.decode(rosa.cookies["board_access"], options={"verify_signature": False})
    rosa.http.cookies.clear()
    rosa.http.cookies.set("board_access", jwt.encode(claims, "x" * 32, "HS256", {"typ": "at+jwt"}))
    assert await rosa.is_turned_away() == 4401
    key = "y" * 32
    async with running(key=key) as device:
        rosa = await device("rosa")
        claims = jwt.decode(rosa.cookies["board_access"], options={"verify_signature": False})
        rosa.http.cookies.clear()
        rosa.http.cookies.set("board_access", jwt.encode(claims, key, "HS256"))
        assert await rosa.is_turned_away() == 4401


async def test_a_fresh_token_extends_the_connection() -> None:
    """Sent with `$auth` in time, it keeps the connection beyond the end of the first one."""
    async with running(token_lifetime=2, expiry_grace=1.0) as device:
        rosa = await device("rosa")
        async with rosa.enter() as visit:
            expires_at = jwt.decode(rosa.cookies["board_access"], options={"verify_signature": False})["exp"]
            while time.time() < expires_at + 1.2:
                token = await rosa.token()
                await visit.socket.send_json({"type": "$auth", "id": 1, "data": {"token": token}})
                assert await visit.socket.receive() == {"type": "$ok", "id": 1}
                await visit.socket.expect_nothing(for_=0.3)
            assert (await visit.socket.call(Clear()))["error"]["code"] == "forbidden"


async def test_a_connection_whose_token_has_expired_is_closed() -> None:
    """With 4519; a fresh token lets in again, the old one does not."""
    async with running(token_lifetime=1) as device:
        rosa = await device("rosa")
        async with rosa.enter() as visit:
            close = await visit.socket.closed()
            assert close.code == 4519
        assert await rosa.is_turned_away() == 4519
        await rosa.token()
        async with rosa.enter():
            pass


async def test_another_users_token_does_not_take_a_connection_over(device: Devices) -> None:
    """It is answered `forbidden`, and the connection goes on as it was."""
    rosa, ada = await device("rosa"), await device("ada")
    async with rosa.enter() as visit:
        await visit.socket.send_json({"type": "$auth", "id": 1, "data": {"token": await ada.token()}})
        assert (await visit.socket.receive())["error"]["code"] == "forbidden"
        assert (await visit.socket.call(Clear()))["error"]["code"] == "forbidden"


async def test_signing_out_everywhere_closes_every_device_at_once(device: Devices) -> None:
    """Both devices are closed with 4401, no cookie or token of theirs is worth anything, and others stay."""
    phone, laptop, ada = await device("rosa"), await device("rosa"), await device("ada")
    async with phone.enter() as on_phone, laptop.enter() as on_laptop, ada.enter() as other:
        kept = phone.cookies
        answer = await laptop.post("/api/sign-out?everywhere=true")
        assert answer.status_code == 204
        for visit in (on_phone, on_laptop):
            close = await visit.socket.closed()
            assert (close.code, close.reason) == (4401, "You were signed out everywhere")
        assert (await phone.post("/api/token")).status_code == 401
        assert (await phone.post("/api/ticket")).status_code == 401
        assert laptop.cookies == {}
        assert phone.cookies == kept
        assert await phone.is_turned_away() == 4401
        await other.socket.expect_nothing()


async def test_signing_out_ends_the_connections_of_this_device(device: Devices) -> None:
    """Within the time between two looks, with 4401; the same user's other device stays."""
    phone, laptop = await device("rosa"), await device("rosa")
    async with phone.enter() as on_phone, laptop.enter() as on_laptop:
        assert (await laptop.post("/api/sign-out")).status_code == 204
        close = await on_laptop.socket.closed()
        assert (close.code, close.reason) == (4401, "You were signed out")
        await on_phone.socket.expect_nothing(for_=0.2)
    assert (await laptop.post("/api/sign-out")).status_code == 204


async def test_signing_in_anew_ends_the_session_before_it(device: Devices) -> None:
    """A browser has one session: who signs in as somebody else leaves none behind."""
    shared = await device("rosa")
    async with shared.enter() as visit:
        assert (await shared.sign_in("walt")).status_code == 200
        close = await visit.socket.closed()
        assert close.code == 4401


async def test_scopes_decide_what_somebody_may_do(device: Devices) -> None:
    """Who reads may not write, who writes may not administer; each is answered `forbidden` and stays connected."""
    rosa, walt, ada = await device("rosa"), await device("walt"), await device("ada")
    async with rosa.enter() as reader, walt.enter() as writer, ada.enter() as admin:
        for message in (Post(text="Hi"), Pin(notice=1, pinned=True), Clear(), ListAccounts()):
            reply = await reader.socket.call(message)
            assert (reply["type"], reply["error"]["code"]) == ("$error", "forbidden")
        assert (await writer.socket.call(Clear()))["error"]["code"] == "forbidden"
        assert (await writer.socket.call(Post(text=" Lift broken ")))["type"] == "$ok"
        for visit in (reader, writer, admin):
            board = await visit.socket.receive(Board)
            assert (board.notices[0].author, board.notices[0].text) == ("walt", "Lift broken")
        assert (await admin.socket.call(Pin(notice=2, pinned=True)))["type"] == "$ok"
        assert (await reader.socket.receive(Board)).notices[0].pinned
        assert (await admin.socket.call(Clear()))["type"] == "$ok"
        assert [notice.id for notice in (await reader.socket.receive(Board)).notices] == [2]
        assert (await admin.socket.call(Pin(notice=1, pinned=True)))["error"]["code"] == "not_found"


async def test_a_disabled_user_is_out_and_stays_out(device: Devices) -> None:
    """On every connection within the time between two looks, with 4403; until the account is enabled again."""
    rosa, ada = await device("rosa"), await device("ada")
    async with rosa.enter() as first, rosa.enter() as second, ada.enter() as admin:
        accounts = await admin.socket.call(Disable(name="rosa", disabled=True), expect=AccountList)
        assert {account.name: account.disabled for account in accounts.accounts} == {
            "rosa": True,
            "walt": False,
            "ada": False,
        }
        for visit in (first, second):
            close = await visit.socket.closed()
            assert (close.code, close.reason) == (4403, "This account is disabled")
        assert await rosa.is_turned_away() == 4403
        assert (await rosa.post("/api/token")).status_code == 403
        assert (await rosa.sign_in("rosa")).status_code == 403
        assert (await rosa.sign_in("rosa", "guessed")).status_code == 401
        await admin.socket.call(Disable(name="rosa", disabled=False), expect=AccountList)
        async with rosa.enter():
            pass
        assert (await admin.socket.call(Disable(name="ada", disabled=True)))["error"]["code"] == "conflict"
        assert (await admin.socket.call(Disable(name="nobody", disabled=True)))["error"]["code"] == "not_found"


async def test_the_sixth_connection_of_a_user_replaces_the_oldest(device: Devices) -> None:
    """It is closed with 4409; the others stay."""
    rosa = await device("rosa")
    async with AsyncExitStack() as stack:
        visits = [await stack.enter_async_context(rosa.enter()) for _ in range(6)]
        close = await visits[0].socket.closed()
        assert close.code == 4409
        for visit in visits[1:]:
            await visit.socket.expect_nothing(for_=0.02)


async def test_who_sends_too_fast_is_told_to_wait(device: Devices) -> None:
    """Twenty messages at once are let through, the next is answered `rate_limited`."""
    walt = await device("walt")
    async with walt.enter() as visit:
        replies = [await visit.socket.call(Clear()) for _ in range(25)]
    codes = [reply["error"]["code"] for reply in replies]
    assert codes[:20] == ["forbidden"] * 20
    assert "rate_limited" in codes


def test_no_key_is_shown_and_none_is_the_same() -> None:
    """A key is random for each start, and not in what settings look like in a log."""
    one, other = Settings(origins=[ORIGIN]), Settings(origins=[ORIGIN])
    assert one.key != other.key
    assert one.key not in repr(one)


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With a real server that logs all it can: no password, token, ticket or cookie."""
    caplog.set_level(logging.DEBUG)
    origin = {"Origin": ORIGIN}
    async with serve(create_app(settings()), log_level="debug") as server, httpx.AsyncClient() as http:
        body = {"name": "rosa", "password": PASSWORDS["rosa"]}
        await http.post(server.http("/api/sign-in"), json=body, headers=origin)
        token = (await http.post(server.http("/api/token"), headers=origin)).json()["token"]
        ticket = (await http.post(server.http("/api/ticket"), headers=origin)).json()["ticket"]
        session = http.cookies["board_session"]
        cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
        async with connect(server, "/ws/board", additional_headers={**origin, "Cookie": cookies}) as ws:
            assert '"credential":"cookie"' in str(await ws.recv())
        async with connect(server, f"/ws/board?ticket={ticket}", additional_headers=origin) as ws:
            assert '"credential":"ticket"' in str(await ws.recv())
        async with connect(server, f"/ws/board?ticket={ticket}", additional_headers=origin) as ws:
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
    # What the clients of this test log of themselves is not the server's.
    served = [
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore", "websockets.client"))
    ]
    assert any("/ws/board" in message for message in served)
    for secret in (PASSWORDS["rosa"], token, ticket, session):
        assert not [message for message in served if secret in message]


async def test_the_page_of_another_origin_is_turned_away_over_a_real_server() -> None:
    """With a cookie that is good: 4403 where a browser asks, HTTP 403 without an origin."""
    async with serve(create_app(settings())) as server, httpx.AsyncClient() as http:
        body = {"name": "rosa", "password": PASSWORDS["rosa"]}
        await http.post(server.http("/api/sign-in"), json=body, headers={"Origin": ORIGIN})
        await http.post(server.http("/api/token"), headers={"Origin": ORIGIN})
        cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in http.cookies.items())}
        for origin in ("http://evil.test", f"{ORIGIN}.evil.test", "null", f"{ORIGIN}:8080"):
            async with connect(server, "/ws/board", additional_headers={"Origin": origin, **cookies}) as ws:
                with pytest.raises(ConnectionClosed) as closed:
                    await ws.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4403
        with pytest.raises(InvalidStatus) as denied:
            await connect(server, "/ws/board", additional_headers=cookies)
        assert denied.value.response.status_code == 403


async def test_the_page_may_be_framed_by_nobody(device: Devices) -> None:
    """It runs no script but its own, and tells no other site where it is."""
    visitor = await device()
    page = await visitor.http.get("/")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    script = (await visitor.http.get("/static/board.js")).text
    assert not re.search(r"localStorage|sessionStorage|document\.cookie|innerHTML", script)
