"""The parts of the Redis broker that need no Redis."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from wsrouter.brokers.base import Entry, Publication
from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import pack
from wsrouter.brokers.redis.names import Names
from wsrouter.brokers.redis.nodes import Nodes
from wsrouter.brokers.redis.payloads import Payloads, entries_of, item, publication_of, read
from wsrouter.brokers.redis.upkeep import Upkeep
from wsrouter.codecs import dump
from wsrouter.errors import BrokerError

texts = st.text(st.characters(exclude_categories=["Cs"]))


def nodes() -> Nodes:
    return Nodes("own", ttl=60, heartbeat=2)


def test_a_node_is_gone_after_the_ttl() -> None:
    """Since its last heartbeat, whatever the list says, and once; this node never is."""
    known = nodes()
    for now in range(0, 20, 2):
        assert known.heard({"own": 0, "other": now}, 100 + now, forgotten=False) == []
    for now in range(20, 60, 2):
        assert known.heard({"own": 0}, 100 + now, forgotten=False) == []
        assert known.alive(100 + now) == {"own", "other"}
    assert known.heard({"own": 0}, 160, forgotten=False) == ["other"]
    assert known.heard({}, 162, forgotten=False) == []
    assert known.alive(162) == {"own"}


def test_it_is_known_when_the_next_node_is_gone() -> None:
    """Of those that were heard of, the one that was not for longest."""
    assert nodes().due is None
    known = nodes()
    known.heard({"own": 0, "a": 0, "b": 1.5}, 100, forgotten=False)
    assert known.due == 158.5
    known.heard({"own": 0, "a": 2, "b": 0}, 102, forgotten=False)
    assert known.due == 160


def test_nodes_have_time_to_tell_of_themselves() -> None:
    """Where Redis forgot, or was away for long, nobody is gone before five heartbeats."""
    for forgotten, back in ((True, 102), (False, 300)):
        known = nodes()
        known.heard({"own": 0, "other": 0}, 100, forgotten=False)
        assert not known.settled(100)
        known.heard({"own": 0, "other": 2}, 102, forgotten=False)
        assert known.heard({"own": 0}, back, forgotten=forgotten) == []
        assert "other" in known.alive(back)
        assert not known.settled(back)
        for now in range(back + 2, back + 10, 2):
            assert known.heard({"own": 0}, now, forgotten=False) == []
        assert known.settled(back + 10)
        gone = known.heard({"own": 0}, back + 10, forgotten=False)
        assert gone == ([] if forgotten else ["other"])  # seen before the flush it has all of its ttl


@given(st.lists(st.one_of(st.binary(), texts, st.integers(0, 10**9))))
def test_commands_are_written_as_arrays(parts: list[bytes | str | int]) -> None:
    """Each part with its length in bytes, so that nothing in it means anything."""
    written = pack(*parts)
    head, _, rest = written.partition(b"\r\n")
    assert head == b"*%d" % len(parts)
    for part in parts:
        size, _, rest = rest.partition(b"\r\n")
        expected = part if isinstance(part, bytes) else str(part).encode()
        assert (size[:1], int(size[1:])) == (b"$", len(expected))
        assert rest[: len(expected)] == expected
        rest = rest[len(expected) + 2 :]
    assert rest == b""


@given(texts, st.none() | texts, st.frozensets(texts, max_size=3), st.one_of(st.binary(), texts, st.none()))
def test_publications_cross_as_they_are(
    type: str, key: str | None, exclude: frozenset[str], frame: str | bytes | None
) -> None:
    """Whatever text or frame is in them."""
    sent = Publication("room", "r", type, dump({"x": type}) if frame is None else b"", frame, key, exclude)
    payloads = Payloads("me")
    payload = payloads.message(sent)
    assert payloads.is_own(payload)
    assert not Payloads("m").is_own(payload)
    assert not Payloads("me2").is_own(payload)
    header, body = read(payload)
    assert header["k"] == "message"
    assert publication_of(header, body, "room", "r") == sent


@given(texts, texts, st.booleans())
def test_entries_cross_as_they_are(user: str, value: str, dropped: bool) -> None:
    """With what is known of them byte by byte."""
    entry = Entry("ref", "me", user, dump({"a": value, "b": 1.0}), dropped)
    assert entries_of("me", b"[%b]" % item(entry)) == [entry]


@given(st.text(), st.text())
def test_names_are_digests(one: str, other: str) -> None:
    """Of one length and of few characters; different names, targets, databases and prefixes have different ones."""
    names = Names("p:", 0)
    channel = names.channel("room", one)
    assert (names.channel("room", other) == channel) is (one == other)
    assert len({channel, names.channel("user", one), Names("p:", 1).channel("room", one)}) == 3
    assert Names("p", 11).channel("room", one) != Names("p1", 1).channel("room", one)
    assert len(channel) == len(b"p:0:room:{}") + 24
    assert channel.isascii()
    assert names.stream(one)[2] == channel


async def test_an_alarm_waits_for_a_loop_that_stood_still() -> None:
    """What was ready while it did is done before the alarm rings."""
    rung: list[str] = []
    begin = time.monotonic()
    Alarm(0.05, lambda: rung.append("alarm"))
    asyncio.get_running_loop().call_later(0.06, rung.append, "ready")
    cancelled = Alarm(0.05, lambda: rung.append("cancelled"))
    cancelled.cancel()
    time.sleep(0.5)  # noqa: ASYNC251 - it does stand still
    await eventually(lambda: len(rung) == 2)
    assert rung == ["ready", "alarm"]
    Alarm(0.05, lambda: rung.append("in time"))
    await eventually(lambda: rung[-1] == "in time")
    assert time.monotonic() - begin < 2


async def test_an_alarm_waits_for_a_loop_that_stood_still_while_it_read() -> None:
    """Also where it stands still a second time, just after the alarm was due."""
    rung: list[str] = []
    Alarm(0.05, lambda: rung.append("alarm"))
    time.sleep(0.06)  # noqa: ASYNC251 - it does stand still
    for _ in range(4):
        await asyncio.sleep(0)
    assert rung == []
    asyncio.get_running_loop().call_later(0.1, rung.append, "ready")
    time.sleep(0.6)  # noqa: ASYNC251
    await eventually(lambda: len(rung) == 2)
    assert rung == ["ready", "alarm"]


async def test_an_alarm_rings_in_a_loop_that_always_stands_still() -> None:
    """It is put off three times at most."""
    rung: list[float] = []
    begin = time.monotonic()
    Alarm(0.05, lambda: rung.append(time.monotonic() - begin))
    while not rung and time.monotonic() - begin < 20:
        time.sleep(0.4)  # noqa: ASYNC251
        await asyncio.sleep(0)
    assert 0 < rung[0] < 6


async def test_an_alarm_that_is_due_can_be_cancelled() -> None:
    rung: list[str] = []
    cancelled = Alarm(0.05, lambda: rung.append("cancelled"))
    time.sleep(0.1)  # noqa: ASYNC251
    for _ in range(4):
        await asyncio.sleep(0)  # it is due, and lets the loop read
    cancelled.cancel()
    Alarm(0.2, lambda: rung.append("alarm"))
    await eventually(lambda: rung != [])
    assert rung == ["alarm"]


async def test_what_is_kept_up_is_sent_again_and_again() -> None:
    """Each at its own pace, sooner where it failed, and not any more once it is released."""
    sent: list[bytes] = []
    fails = True

    def send(key: bytes, command: bytes) -> "asyncio.Future[None]":
        sent.append(command)
        if fails and command == b"nowhere":
            raise BrokerError("no server is known to have it")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if fails and command == b"fails":
            done.set_exception(BrokerError("down"))
        else:
            done.set_result(None)
        return done

    upkeep = Upkeep(send)
    running = asyncio.create_task(upkeep.run())
    upkeep.hold(b"slow", 600, b"slow")
    upkeep.hold(b"fast", 0.02, b"fast")
    upkeep.hold(b"fails", 0.02, b"fails")
    upkeep.hold(b"nowhere", 0.02, b"nowhere")
    await eventually(lambda: all(sent.count(each) >= 3 for each in (b"fast", b"fails", b"nowhere")))
    assert b"slow" not in sent
    upkeep.release(b"fast")
    upkeep.release(b"unknown")
    sent.clear()
    await eventually(lambda: sent.count(b"fails") >= 3)
    assert b"fast" not in sent
    assert len(upkeep) == 3
    running.cancel()
    await asyncio.wait([running])
