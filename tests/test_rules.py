"""How rooms behave, by the patterns of their names: which options rule, and which are refused."""

import fnmatch
import re
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sockets import member_of
from wsrouter import ConfigurationError, History, Hub, Limits, Message, Position, RoomOptions, WebSocketError
from wsrouter.brokers import MemoryBroker
from wsrouter.rules import Rules, pattern

ONE, TWO, THREE = (RoomOptions(max_members=count) for count in (1, 2, 3))


class Said(Message):
    text: str


class Price(Message, key="symbol"):
    symbol: str


def test_the_first_pattern_that_matches_rules() -> None:
    """`*` is any text, also none and also a line break; everything else stands for itself."""
    rules = Rules({"chat:*": ONE, "chat:1": TWO, "*:end": TWO, "a*b*c": THREE, "x.y": THREE})
    for room, options in [
        ("chat:1", ONE),
        ("chat:", ONE),
        ("chat:\n", ONE),
        ("chat:end", ONE),
        ("the:end", TWO),
        ("abc", THREE),
        ("a-b-b-c", THREE),
        ("x.y", THREE),
    ]:
        assert rules.of(room) is options
        assert rules.of(room) is options, "the second time it is remembered"
    for room in "chat", "Chat:1", "xzy", "abcd", " chat:1", "*":
        assert rules.of(room) == RoomOptions()


def test_rules_of_many_rooms() -> None:
    """However many names are asked for, each gets its own options, and not all are remembered."""
    rules = Rules({"a*": ONE, "b*": TWO})
    for number in range(20_000):
        assert rules.of(f"a{number}") is ONE
        assert rules.of(f"b{number}") is TWO


@given(name=st.text("ab*", max_size=8), room=st.text("ab", max_size=12))
def test_a_pattern_matches_what_it_should(name: str, room: str) -> None:
    """However the texts between two `*` overlap, it is the same as for file names."""
    assert bool(pattern(name).fullmatch(room)) is bool(re.fullmatch(fnmatch.translate(name), room))


def test_no_text_takes_a_pattern_long() -> None:
    """A client that may choose names can't hold the server up with one that nearly matches."""
    began = process_time()
    assert not pattern("a:*:*:*:*:x").fullmatch("a" + ":" * 60_000)
    assert process_time() - began < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "drop"}, "overflow='drop'"),
        ({"overflow": None}, "overflow=None"),
        ({"overflow": ["latest"]}, "overflow="),
        ({"raw": True, "overflow": "drop_new"}, "raw room"),
        ({"raw": True, "overflow": "latest"}, "raw room"),
        ({"max_members": 0}, "max_members=0"),
        ({"max_members": -1}, "max_members=-1"),
        ({"max_members": "7"}, "max_members='7'"),
        ({"max_members": 1.5}, r"max_members=1\.5"),
        ({"max_members": True}, "max_members=True"),
        ({"history": 100}, r"history=100\): expected History"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    """A mistake in an option is reported where it is made."""
    with pytest.raises(ConfigurationError, match=message):
        RoomOptions(**options)


@pytest.mark.parametrize(
    ("broker", "rooms", "message"),
    [
        (MemoryBroker, None, r"expected a broker, such as MemoryBroker\(\)"),
        ("redis://localhost", None, "expected a broker"),
        ({"chat:*": ONE}, None, "expected a broker"),
        (None, {"chat:*": History()}, r"'chat:\*': History.*expected a text and RoomOptions"),
        (None, {1: ONE}, "expected a text"),
    ],
)
def test_a_hub_of_something_else(broker: Any, rooms: Any, message: str) -> None:
    """What a hub can't work with is reported when it is made, not when somebody joins."""
    with pytest.raises(ConfigurationError, match=message):
        Hub(broker, rooms=rooms)


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan"), "15", None])
def test_a_grace_that_is_none(grace: Any) -> None:
    """It is a number of seconds; none at all is one too."""
    with pytest.raises(ConfigurationError, match="presence_grace="):
        Hub(presence_grace=grace)
    Hub(presence_grace=0)


def test_a_key_that_is_no_field() -> None:
    """`key=` names a field of the message."""
    with pytest.raises(ConfigurationError, match="none of its fields"):

        class Wrong(Message, key="sybmol"):  # pyright: ignore[reportUnusedClass]
            symbol: str


def test_a_key_is_inherited() -> None:
    """A subclass of a message with a key has it too."""

    class Quote(Price):
        price: float

    assert Quote.__message_key__ == "symbol"
    assert Quote.__message_type__ == "quote"


async def test_a_room_that_is_full() -> None:
    """A join above `max_members` raises `conflict`; who is in may join again, and a place that is left is free."""
    hub = Hub(rooms={"pair": RoomOptions(max_members=2)})
    one, two, three = [await member_of(hub) for _ in range(3)]
    for member in one, two, one:
        await hub.join(member.connection, "pair")
    with pytest.raises(WebSocketError, match="No more than 2 members") as refused:
        await hub.join(three.connection, "pair")
    assert refused.value.code == "conflict"
    assert three.connection.rooms == frozenset()
    assert hub.rooms == {"pair": 2}
    await hub.leave(one.connection, "pair")
    await hub.join(three.connection, "pair")
    await two.connection.close()
    await hub.node.release(hub.node.exit(two.connection))
    await hub.join(one.connection, "pair")
    assert hub.rooms == {"pair": 2}


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\ud800", "a\udfffb"])
async def test_names_that_are_none(name: str) -> None:
    """They are empty, longer than 255 bytes of UTF-8, or have none: no frame could say where it comes from."""
    hub = Hub()
    member = await member_of(hub)
    with pytest.raises(WebSocketError, match="The name of a room has 1 to 255 bytes"):
        await hub.join(member.connection, name)
    assert hub.rooms == {}
    for longest in "x" * 255, "é" * 127, "\0":
        await hub.join(member.connection, longest)


async def test_rooms_of_one_connection() -> None:
    """A connection may be in so many rooms at once, and no more."""
    hub = Hub()
    member = await member_of(hub, limits=Limits(rooms=2))
    for room in "a", "b", "a":
        await hub.join(member.connection, room)
    with pytest.raises(WebSocketError, match="No more than 2 rooms"):
        await hub.join(member.connection, "c")
    await hub.leave(member.connection, "a")
    await hub.join(member.connection, "c")
    assert member.connection.rooms == {"b", "c"}


async def test_a_message_of_the_wrong_sort() -> None:
    """A raw room takes text and bytes, any other messages; who calls learns it, and nobody is sent anything."""
    hub = Hub(rooms={"raw": RoomOptions(raw=True)})
    member = await member_of(hub, "a")
    with pytest.raises(TypeError, match="speaks the envelope"):
        await hub.broadcast("a", "text")
    with pytest.raises(TypeError, match="is raw"):
        await hub.broadcast("raw", Said(text="x"))
    with pytest.raises(ValueError, match="surrogates"):
        await hub.broadcast("raw", "\ud800")
    with pytest.raises(ConfigurationError, match="is not raw, the room 'raw' is: use another"):
        await hub.join(member.connection, "raw")
    assert member.socket.writes == []


async def test_presence_where_there_is_none() -> None:
    """Who tells of presence, or asks for it, in a room without the option is told which option makes it."""
    hub = Hub(rooms={"desk:*": RoomOptions(presence=True)})
    member = await member_of(hub, "desk:1", "plain")
    for room in "plain", "other", "desks:1":
        with pytest.raises(ConfigurationError, match=r"join\('.*', presence=...\): .*RoomOptions\(presence=True\)"):
            await hub.join(member.connection, room, presence={})
        with pytest.raises(ConfigurationError, match=r"presence\('.*'\): .*RoomOptions\(presence=True\)"):
            await hub.presence(room)
    await hub.join(member.connection, "desk:1", presence={"status": "here"})
    assert hub.rooms == {"desk:1": 1, "plain": 1}
    await hub.node.release(hub.node.exit(member.connection))
    await member.connection.aclose()


async def test_a_position_where_there_is_no_history() -> None:
    """A position comes from a client, so where there is nothing to recover it changes nothing: no error, no frame."""
    hub = Hub(rooms={"feed:*": RoomOptions(history=History())})
    member = await member_of(hub)
    await hub.join(member.connection, "plain", since=Position("epoch", 7))
    assert hub.rooms == {"plain": 1}
    assert member.socket.texts() == []
    await hub.node.release(hub.node.exit(member.connection))
    await member.connection.aclose()
