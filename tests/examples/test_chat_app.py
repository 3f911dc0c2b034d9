"""The server of ``examples/chat``, in process: what each client is sent."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest
import pytest_asyncio
from fastapi import FastAPI

from examples.chat.app import create_app
from examples.chat.messages import Earlier, Here, IsTyping, Lines, People, Said, Say, Typing
from examples.chat.roster import Roster
from wsrouter.testing import Denied, TestConnection, WebSocketTestClient

ORIGIN = "http://chat.test"
KEY = "a key of at least thirty-two bytes"


def chat(database: Path) -> FastAPI:
    return create_app(database, origins=[ORIGIN], key=KEY)


@dataclass
class Visit:
    """A connection that has joined, and what it was told first."""

    socket: TestConnection
    people: dict[str, int]
    history: Lines

    async def say(self, text: str, key: str) -> Said:
        """Say something, and return the line as it comes back."""
        reply = await self.socket.call(Say(key=key, text=text))
        assert reply["type"] == "$ok"
        return await self.socket.receive(Said)


class ChatClient(WebSocketTestClient):
    """Signs in and connects, as the chat's own page does."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(app, timeout=5)
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN)

    async def sign_in(self, name: object, origin: str | None = ORIGIN) -> httpx.Response:
        self._http.cookies.clear()
        headers = {} if origin is None else {"Origin": origin}
        return await self._http.post("/sign-in", json={"name": name}, headers=headers)

    async def cookies_of(self, name: str) -> dict[str, str]:
        """Return the cookies of who has signed in."""
        answer = await self.sign_in(name)
        assert answer.status_code == 200
        return dict(answer.cookies)


@asynccontextmanager
async def enter(client: ChatClient, name: str, room: str = "garden") -> AsyncGenerator[Visit]:
    cookies = await client.cookies_of(name)
    async with client.connect(f"/ws/chat/{room}", cookies=cookies, headers={"Origin": ORIGIN}) as socket:
        people = await socket.receive(People)
        assert people.you == name
        yield Visit(socket, people.people, await socket.receive(Lines))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chat.sqlite3"


@pytest_asyncio.fixture
async def client(database: Path) -> AsyncIterator[ChatClient]:
    async with ChatClient(chat(database)) as client:
        yield client


async def test_who_joins_is_told_who_is_here_and_what_was_said(client: ChatClient) -> None:
    """A newcomer gets the names and the lines of the room; those who are here hear of the newcomer."""
    async with enter(client, "Ada") as ada:
        assert ada.people == {"Ada": 1}
        assert ada.history == Lines(lines=[], more=False)
        line = await ada.say("Hello", "k1")
        async with enter(client, "Bob") as bob:
            assert bob.people == {"Ada": 1, "Bob": 1}
            assert bob.history == Lines(lines=[line], more=False)
            assert await ada.socket.receive(Here) == Here(name="Bob", devices=1)
            async with enter(client, "Cleo", "cellar") as cleo:
                assert cleo.people == {"Cleo": 1}
                assert cleo.history.lines == []
                await ada.socket.expect_nothing()


async def test_a_line_reaches_everyone_in_the_room_once(client: ChatClient) -> None:
    """Its sender too, as it was stored: with an id, a time, and without the white space around it."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        line = await ada.say("  two\nlines \n", "k1")
        assert (line.name, line.text, line.key) == ("Ada", "two\nlines", "k1")
        assert await bob.socket.receive(Said) == line
        assert (await bob.say("Yes", "k2")).id > line.id
        await bob.socket.expect_nothing()


async def test_a_line_that_is_sent_again_is_stored_once(client: ChatClient) -> None:
    """The second time its sender is told of the line that is there, and nobody else hears of it."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        line = await ada.say("once", "k1")
        assert await bob.socket.receive(Said) == line
        assert await ada.say("once", "k1") == line
        await bob.socket.expect_nothing()
    async with enter(client, "Ada") as again:
        assert await again.say("once", "k1") == line
        assert again.history.lines == [line]
    async with enter(client, "Ada", "cellar") as elsewhere:
        assert (await elsewhere.say("once", "k1")).id != line.id


async def test_a_line_that_is_sent_twice_at_the_same_time_is_stored_once(client: ChatClient) -> None:
    """Two devices that send the same key at once are both told of one line."""
    async with enter(client, "Ada") as phone, enter(client, "Ada") as laptop:
        await phone.socket.receive(Here)
        for round in range(20):
            replies = await asyncio.gather(
                phone.socket.call(Say(key=f"k{round}", text="once")),
                laptop.socket.call(Say(key=f"k{round}", text="once")),
            )
            assert [reply["type"] for reply in replies] == ["$ok", "$ok"]
    async with enter(client, "Bob") as bob:
        assert [line.key for line in bob.history.lines] == [f"k{round}" for round in range(20)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "string_too_short"), (" \n\t", "string_too_short"), ("x" * 4001, "string_too_long")],
    ids=["empty", "blank", "4,001 characters"],
)
async def test_a_text_that_does_not_fit_is_answered_and_not_stored(client: ChatClient, text: str, problem: str) -> None:
    """The error carries the id of its message and says what is wrong; the connection goes on."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        await ada.socket.send_json({"type": "say", "id": 7, "data": {"key": "k1", "text": text}})
        reply = await ada.socket.receive()
        assert (reply["type"], reply["id"]) == ("$error", 7)
        assert (reply["error"]["code"], reply["error"]["retry"]) == ("invalid", False)
        assert [detail["type"] for detail in reply["error"]["details"]] == [problem]
        await bob.socket.expect_nothing()
        assert (await ada.say("🌻" * 4000, "k1")).text == "🌻" * 4000


async def test_typing_is_told_to_the_others(client: ChatClient) -> None:
    """Not to the device that types, and without an answer."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        await ada.socket.send(Typing())
        assert await bob.socket.receive(IsTyping) == IsTyping(name="Ada")
        await ada.socket.expect_nothing()


async def test_older_lines_come_fifty_at_a_time(client: ChatClient) -> None:
    """On joining the last fifty, then those before a line that the client names, oldest first."""
    async with enter(client, "Ada") as ada:
        said = [await ada.say(f"line {number}", f"k{number}") for number in range(120)]
    async with enter(client, "Ada") as ada:
        assert ada.history == Lines(lines=said[70:], more=True)
        middle = await ada.socket.call(Earlier(before=said[70].id), expect=Lines)
        assert middle == Lines(lines=said[20:70], more=True)
        first = await ada.socket.call(Earlier(before=said[20].id), expect=Lines)
        assert first == Lines(lines=said[:20], more=False)
        none = await ada.socket.call(Earlier(before=said[0].id), expect=Lines)
        assert none == Lines(lines=[], more=False)


async def test_the_first_of_two_devices_that_leaves_is_not_the_person(client: ChatClient) -> None:
    """The others are told how many devices are left, and at 0 that the person has left."""
    async with enter(client, "Ada") as ada:
        async with enter(client, "Bob"):
            assert await ada.socket.receive(Here) == Here(name="Bob", devices=1)
            async with enter(client, "Bob") as second:
                assert second.people == {"Ada": 1, "Bob": 2}
                assert await ada.socket.receive(Here) == Here(name="Bob", devices=2)
            assert await ada.socket.receive(Here) == Here(name="Bob", devices=1)
        assert await ada.socket.receive(Here) == Here(name="Bob", devices=0)
    async with enter(client, "Cleo") as cleo:
        assert cleo.people == {"Cleo": 1}


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, None, 7], ids=str)
async def test_a_name_that_does_not_fit_is_refused(client: ChatClient, name: object) -> None:
    """With 422, and nobody is signed in; white space around one that fits is left out."""
    answer = await client.sign_in(name)
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers
    answer = await client.sign_in("  Ada  ")
    assert answer.json() == {"name": "Ada"}


async def test_the_cookie_is_for_this_site_and_not_for_scripts(client: ChatClient, tmp_path: Path) -> None:
    """HttpOnly and SameSite=Strict; where the page is served over https, Secure."""
    attributes = (await client.sign_in("Ada")).headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
    assert "Secure" not in attributes
    async with ChatClient(create_app(tmp_path / "secure", origins=["https://chat.test"])) as secure:
        answer = await secure.sign_in("Ada", origin="https://chat.test")
        assert {"HttpOnly", "SameSite=strict", "Secure"} <= set(answer.headers["set-cookie"].split("; "))


async def test_a_room_that_does_not_fit_is_denied(client: ChatClient) -> None:
    """A browser is let in and closed with 4422 at once, which it can read."""
    cookies = await client.cookies_of("Ada")
    async with client.connect(f"/ws/chat/{'x' * 61}", cookies=cookies, headers={"Origin": ORIGIN}) as socket:
        assert (await socket.closed()).code == 4422


async def test_a_client_can_take_no_name_but_its_own(client: ChatClient) -> None:
    """What it says of a name on the socket or in the address is not looked at."""
    cookies = await client.cookies_of("Eve")
    async with (
        enter(client, "Bob") as bob,
        client.connect("/ws/chat/garden?name=Ada", cookies=cookies, headers={"Origin": ORIGIN}) as eve,
    ):
        assert await bob.socket.receive(Here) == Here(name="Eve", devices=1)
        assert (await eve.receive(People)).you == "Eve"
        await eve.receive(Lines)
        await eve.send_json({"type": "say", "data": {"key": "k1", "text": "I am Ada", "name": "Ada"}})
        assert (await bob.socket.receive(Said)).name == "Eve"


@pytest.mark.parametrize(
    ("key", "claims"),
    [
        ("another key of thirty-two bytes and more", {"sub": "Ada", "aud": "chat", "exp": 4102444800}),
        (KEY, {"sub": "Ada", "aud": "another", "exp": 4102444800}),
        (KEY, {"sub": "Ada", "aud": "chat"}),
    ],
    ids=["another key", "another audience", "without an end"],
)
async def test_a_cookie_that_the_chat_did_not_sign_is_refused(
    client: ChatClient, key: str, claims: dict[str, object]
) -> None:
    """With 4401, as is none at all, and whoever is in the room hears nothing."""
    async with enter(client, "Bob") as bob:
        for cookies in ({"chat_name": jwt.encode(claims, key, "HS256")}, {}):
            async with client.connect("/ws/chat/garden", cookies=cookies, headers={"Origin": ORIGIN}) as socket:
                assert (await socket.closed()).code == 4401
        await bob.socket.expect_nothing()


async def test_the_page_of_another_site_is_denied(client: ChatClient) -> None:
    """It is closed with 4403 and joins nothing, with a good cookie too; and it can't sign anybody in."""
    cookies = await client.cookies_of("Eve")
    elsewhere = "https://elsewhere.example"
    async with client.connect("/ws/chat/garden", cookies=cookies, headers={"Origin": elsewhere}) as eve:
        assert (await eve.closed()).code == 4403
    for origin in (elsewhere, "null", None):
        answer = await client.sign_in("Eve", origin)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    with pytest.raises(Denied) as denied:
        async with client.connect("/ws/chat/garden", cookies=cookies):
            pass
    assert denied.value.status == 403
    async with enter(client, "Ada") as ada:
        assert ada.people == {"Ada": 1}


async def test_lines_outlive_the_application(database: Path) -> None:
    """They are in the database: the next start shows them."""
    for expected in ([], ["k1"], ["k1", "k2"]):
        async with (
            ChatClient(chat(database)) as client,
            enter(client, "Ada") as ada,
        ):
            assert [line.key for line in ada.history.lines] == expected
            await ada.say("Hello", f"k{len(expected) + 1}")
    assert sorted(path.name for path in database.parent.iterdir()) == ["chat.sqlite3"]


async def test_two_applications_in_one_process_stay_apart(tmp_path: Path) -> None:
    """Each has a container of its own, and so a roster and a database."""
    async with (
        ChatClient(chat(tmp_path / "one")) as one,
        ChatClient(chat(tmp_path / "two")) as two,
        enter(one, "Ada") as ada,
        enter(two, "Bob") as bob,
    ):
        await ada.say("Hello", "k1")
        assert bob.people == {"Bob": 1}
        await bob.socket.expect_nothing()


def test_the_roster_counts_each_device_once() -> None:
    """An arrival that is told twice, and a departure that nobody arrived for, change nothing."""
    roster = Roster()
    assert roster.depart("garden", "Ada", "a") == 0
    assert [roster.arrive("garden", "Ada", device) for device in ("a", "a", "b")] == [1, 1, 2]
    assert roster.people("garden") == {"Ada": 2}
    assert roster.people("cellar") == {}
    assert [roster.depart("garden", "Ada", device) for device in ("a", "a", "b")] == [1, 1, 0]
    assert roster.people("garden") == {}
