"""The server of ``examples/chat``, in process: what each client is sent."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from examples.chat.app import create_app
from examples.chat.messages import Earlier, Here, IsTyping, Lines, People, Said, Say, Typing
from examples.chat.roster import Roster
from wsrouter.testing import Denied, TestConnection, WebSocketTestClient


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


@asynccontextmanager
async def enter(client: WebSocketTestClient, name: str, room: str = "garden") -> AsyncGenerator[Visit]:
    async with client.connect(f"/ws/chat/{room}", query={"name": name}) as socket:
        people = await socket.receive(People)
        yield Visit(socket, people.people, await socket.receive(Lines))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chat.sqlite3"


@pytest_asyncio.fixture
async def client(database: Path) -> AsyncIterator[WebSocketTestClient]:
    async with WebSocketTestClient(create_app(database), timeout=5) as client:
        yield client


async def test_who_joins_is_told_who_is_here_and_what_was_said(client: WebSocketTestClient) -> None:
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


async def test_a_line_reaches_everyone_in_the_room_once(client: WebSocketTestClient) -> None:
    """Its sender too, as it was stored: with an id, a time, and without the white space around it."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        line = await ada.say("  two\nlines \n", "k1")
        assert (line.name, line.text, line.key) == ("Ada", "two\nlines", "k1")
        assert await bob.socket.receive(Said) == line
        assert (await bob.say("Yes", "k2")).id > line.id
        await bob.socket.expect_nothing()


async def test_a_line_that_is_sent_again_is_stored_once(client: WebSocketTestClient) -> None:
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


async def test_a_line_that_is_sent_twice_at_the_same_time_is_stored_once(client: WebSocketTestClient) -> None:
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
async def test_a_text_that_does_not_fit_is_answered_and_not_stored(
    client: WebSocketTestClient, text: str, problem: str
) -> None:
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


async def test_typing_is_told_to_the_others(client: WebSocketTestClient) -> None:
    """Not to the device that types, and without an answer."""
    async with enter(client, "Ada") as ada, enter(client, "Bob") as bob:
        await ada.socket.receive(Here)
        await ada.socket.send(Typing())
        assert await bob.socket.receive(IsTyping) == IsTyping(name="Ada")
        await ada.socket.expect_nothing()


async def test_older_lines_come_fifty_at_a_time(client: WebSocketTestClient) -> None:
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


async def test_the_first_of_two_devices_that_leaves_is_not_the_person(client: WebSocketTestClient) -> None:
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


@pytest.mark.parametrize(
    ("room", "name"),
    [("garden", ""), ("garden", "  "), ("garden", "x" * 41), ("x" * 61, "Ada")],
    ids=["no name", "a blank name", "a long name", "a long room"],
)
async def test_a_name_or_room_that_does_not_fit_is_denied(client: WebSocketTestClient, room: str, name: str) -> None:
    """With 422 before the handshake; a browser is let in and closed with 4422 at once, which it can read."""
    with pytest.raises(Denied) as denied:
        async with client.connect(f"/ws/chat/{room}", query={"name": name}):
            pass
    assert denied.value.status == 422
    headers = {"Origin": "http://testserver"}
    async with client.connect(f"/ws/chat/{room}", query={"name": name}, headers=headers) as socket:
        assert (await socket.closed()).code == 4422


async def test_the_page_of_another_site_is_denied(client: WebSocketTestClient) -> None:
    """It is closed with 4403 and joins nothing; the chat's own page comes in."""
    headers = {"Origin": "https://elsewhere.example"}
    async with client.connect("/ws/chat/garden?name=Eve", headers=headers) as eve:
        assert (await eve.closed()).code == 4403
    async with client.connect("/ws/chat/garden?name=Ada", headers={"Origin": "http://testserver"}) as ada:
        assert await ada.receive(People) == People(people={"Ada": 1})


async def test_lines_outlive_the_application(database: Path) -> None:
    """They are in the database: the next start shows them."""
    for expected in ([], ["k1"], ["k1", "k2"]):
        async with (
            WebSocketTestClient(create_app(database), timeout=5) as client,
            enter(client, "Ada") as ada,
        ):
            assert [line.key for line in ada.history.lines] == expected
            await ada.say("Hello", f"k{len(expected) + 1}")
    assert sorted(path.name for path in database.parent.iterdir()) == ["chat.sqlite3"]


async def test_two_applications_in_one_process_stay_apart(tmp_path: Path) -> None:
    """Each has a container of its own, and so a roster and a database."""
    async with (
        WebSocketTestClient(create_app(tmp_path / "one"), timeout=5) as one,
        WebSocketTestClient(create_app(tmp_path / "two"), timeout=5) as two,
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
