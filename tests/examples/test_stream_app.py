"""The server of ``examples/stream``, in process: what each client is sent, and what becomes of the generators."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from examples.stream.app import create_app
from examples.stream.composer import Composer
from examples.stream.messages import Generators, Ready, Write
from wsrouter.testing import TestConnection, WebSocketTestClient

ORIGIN = "http://stream.test"
HEADERS = {"Origin": ORIGIN}
ENDLESS = 1_000_000


@pytest_asyncio.fixture
async def client() -> AsyncIterator[WebSocketTestClient]:
    async with WebSocketTestClient(create_app(origins=[ORIGIN]), timeout=5) as client:
        yield client


@pytest_asyncio.fixture
async def socket(client: WebSocketTestClient) -> AsyncIterator[TestConnection]:
    async with client.connect("/ws/write", headers=HEADERS) as socket:
        assert await socket.receive(Ready) == Ready(at_once=4)
        yield socket


@pytest_asyncio.fixture
async def watch(client: WebSocketTestClient) -> AsyncIterator[TestConnection]:
    async with client.connect("/ws/watch", headers=HEADERS) as watch:
        assert await watch.receive(Generators) == Generators()
        yield watch


async def text_of(socket: TestConnection, order: Write) -> list[str]:
    """Return the words of a text that is written to its end."""
    words: list[str] = []
    await socket.send(order, id="text")
    while (frame := await socket.receive())["type"] == "$item":
        assert frame["id"] == "text"
        words.append(frame["data"])
    assert frame == {"type": "$ok", "id": "text"}
    return words


async def ends(watch: TestConnection) -> Generators:
    """Return the counts when no generator runs any more."""
    async with asyncio.timeout(5):
        while (counts := await watch.receive(Generators)).running or not (counts.finished or counts.cut_short):
            pass
    return counts


async def test_a_text_comes_word_by_word(socket: TestConnection, watch: TestConnection) -> None:
    """Each word in an item of its own, with the white space before it; the last frame says that it is done."""
    words = await text_of(socket, Write(prompt="the sea", words=100, seed=1))
    text = "".join(words)
    assert text.split() == [word.strip() for word in words]
    assert 100 <= len(words) < 200
    assert "sea" in text
    assert text.endswith(".")
    assert "\n\n" in text
    assert await ends(watch) == Generators(finished=1, words=len(words))


async def test_a_text_goes_on_where_it_broke_off(socket: TestConnection) -> None:
    """The same prompt and seed give the same text, also from the middle; another seed gives another."""
    whole = await text_of(socket, Write(prompt="bread", words=3000, seed=7))
    assert await text_of(socket, Write(prompt="bread", words=3000, seed=7, after=2500)) == whole[2500:]
    assert await text_of(socket, Write(prompt="bread", words=3000, seed=7, after=len(whole))) == []
    assert await text_of(socket, Write(prompt="bread", words=3000, seed=8)) != whole


@pytest.mark.parametrize("pace", [None, 1000, 0.001], ids=["at its yield", "between words", "where it waits"])
async def test_cancel_ends_the_generator(socket: TestConnection, watch: TestConnection, pace: float | None) -> None:
    """Wherever it is: its clean-up runs, the call ends with `cancelled`, and no word comes after that."""
    await socket.send(Write(prompt="letters", words=ENDLESS, pace=pace, seed=1), id=1)
    assert (await socket.receive())["type"] == "$item"
    await socket.send_json({"type": "$cancel", "id": 1})
    while (frame := await socket.receive())["type"] == "$item":
        pass
    assert (frame["id"], frame["error"]["code"]) == (1, "cancelled")
    await socket.expect_nothing()
    counts = await ends(watch)
    assert (counts.running, counts.finished, counts.cut_short) == (0, 0, 1)


async def test_a_client_that_leaves_ends_its_generators(client: WebSocketTestClient, watch: TestConnection) -> None:
    """All of them, and those of nobody else."""
    async with client.connect("/ws/write", headers=HEADERS) as stays:
        await stays.receive(Ready)
        await stays.send(Write(prompt="a garden", words=ENDLESS, pace=100, seed=1), id=1)
        async with client.connect("/ws/write", headers=HEADERS) as leaves:
            await leaves.receive(Ready)
            for id in range(3):
                await leaves.send(Write(prompt="a garden", words=ENDLESS, pace=100, seed=1), id=id)
            while (await watch.receive(Generators)).running < 4:
                pass
        while (counts := await watch.receive(Generators)).running > 1:
            pass
        assert (counts.running, counts.cut_short) == (1, 3)
        assert (await stays.receive())["type"] == "$item"


async def test_four_are_written_at_once_and_the_fifth_waits(socket: TestConnection, watch: TestConnection) -> None:
    """The words of four come mixed; one that waits begins when another ends, and can be cancelled before."""
    for id in range(6):
        await socket.send(Write(prompt="a clock", words=ENDLESS, pace=1000, seed=id), id=id)
    seen: set[Any] = set()
    for _ in range(100):
        seen.add((await socket.receive())["id"])
    assert seen == {0, 1, 2, 3}
    for id in (4, 0):
        await socket.send_json({"type": "$cancel", "id": id})
        while (frame := await socket.receive())["type"] == "$item":
            pass
        assert (frame["id"], frame["error"]["code"]) == (id, "cancelled")
    while (await socket.receive())["id"] != 5:
        pass
    while (counts := await watch.receive(Generators)).cut_short == 0:
        pass
    assert (counts.running, counts.cut_short) == (4, 1)


async def test_what_can_not_be_written_is_answered(socket: TestConnection, watch: TestConnection) -> None:
    """With an error that names the field; no generator is made, and the connection goes on."""
    for field, value, problem in (
        ("prompt", " \n", "string_too_short"),
        ("prompt", "x" * 201, "string_too_long"),
        ("words", 0, "greater_than_equal"),
        ("words", ENDLESS + 1, "less_than_equal"),
        ("pace", 0, "greater_than"),
        ("seed", 2**32, "less_than"),
        ("after", -1, "greater_than_equal"),
    ):
        await socket.send_json({"type": "write", "id": 1, "data": {"prompt": "x", "words": 1, "seed": 1, field: value}})
        reply = await socket.receive()
        assert (reply["type"], reply["id"], reply["error"]["code"]) == ("$error", 1, "invalid")
        assert [(detail["loc"], detail["type"]) for detail in reply["error"]["details"]] == [([field], problem)]
    await watch.expect_nothing(for_=0.2)
    assert await text_of(socket, Write(prompt="x" * 200, words=1, seed=1))


@pytest.mark.parametrize("path", ["/ws/write", "/ws/watch"])
async def test_the_page_of_another_site_is_denied(client: WebSocketTestClient, path: str) -> None:
    """A browser is let in and closed with 4403 at once, which it can read."""
    async with client.connect(path, headers={"Origin": "https://elsewhere.example"}) as socket:
        assert (await socket.closed()).code == 4403


async def test_two_applications_in_one_process_stay_apart() -> None:
    """Each counts its own generators."""
    async with (
        WebSocketTestClient(create_app(origins=[ORIGIN])) as one,
        WebSocketTestClient(create_app(origins=[ORIGIN])) as two,
        one.connect("/ws/write", headers=HEADERS) as socket,
        two.connect("/ws/watch", headers=HEADERS) as watch,
    ):
        await socket.receive(Ready)
        await text_of(socket, Write(prompt="trains", words=10, seed=1))
        assert await watch.receive(Generators) == Generators()


def test_a_composer_says_what_its_passages_say() -> None:
    """Every three words that follow each other stand so in a passage; a word of the prompt is in the first sentence."""
    passages = "The cat sat on the mat. The dog sat on the cat. A bird sat on the dog."
    for seed in range(50):
        text = "".join(Composer(passages).compose("One bird, please!", seed=seed, words=30))
        assert "bird" in text.split(".")[0]
        for sentence in text.replace("\n\n", " ").removesuffix(".").split(". "):
            words = f"{sentence}.".split()
            for three in zip(words, words[1:], words[2:], strict=False):
                assert " ".join(three) in passages


@pytest.mark.parametrize("prompt", ["", "?!", "the of", "quarks"])
def test_a_composer_writes_about_what_it_does_not_know(prompt: str) -> None:
    """Words that it does not have, or that say nothing, make no difference."""
    composer = Composer("The cat sat on the mat. " * 10)
    assert "".join(composer.compose(prompt, seed=1, words=5)) == "The cat sat on the mat."
