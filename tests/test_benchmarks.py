"""The benchmarks measure what they say, at sizes that say nothing about speed."""

import subprocess
import sys
from math import isfinite, isinf

import pytest
from websockets.frames import Frame, Opcode

from tests.benchmarks.clients import Frames, masked
from tests.benchmarks.figures import CLOSED, DELIVERIES, HANDSHAKES, MEMORY, P99, SHARE, SLOWER, Figure, Scale, p99
from tests.benchmarks.servers import ROOT, Contender, serve
from tests.benchmarks.stall import stall
from tests.benchmarks.suite import BENCHMARKS, direct, plain, portable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they ask Linux what a server uses")


@pytest.mark.parametrize(
    ("server", "names"),
    [
        (direct(""), {benchmark.name for benchmark in BENCHMARKS} - {"stall"}),
        (portable(""), {"echo", "burst, deflate"}),
        (plain(""), {"echo", "burst, deflate"}),
    ],
    ids=["wsrouter", "portable", "plain"],
)
async def test_each_workload_measures(server: Contender, names: set[str]) -> None:
    """On one server after the other, all that is published arrives, and something comes of each workload."""
    with serve(server.app, server.ws) as running:
        for benchmark in BENCHMARKS:
            for contender in benchmark.contenders():
                if benchmark.name in names and (contender.app, contender.ws) == (server.app, server.ws):
                    figures = await benchmark.workload(running, contender.path, Scale(seconds=0.1, members=5))
                    assert figures
                    for figure, value in figures.items():
                        assert isfinite(value), (benchmark.name, figure)
                        assert value > 0 or figure == MEMORY, (benchmark.name, figure)


async def test_a_member_that_never_reads_is_closed_by_us() -> None:
    """The others get everything, and the server closes the stalled socket."""
    contender = direct("/room")
    with serve(contender.app, contender.ws) as running:
        figures = await stall(running, contender.path, Scale(seconds=0.5, members=3), hz=100)
    assert figures[SHARE] == 100
    assert isfinite(figures[SLOWER])
    assert isfinite(figures[CLOSED])


async def test_a_member_that_never_reads_stops_a_loop() -> None:
    """What is missed is seen as such: the loop over the members waits for the stalled one."""
    contender = plain("/room")
    with serve(contender.app, contender.ws) as running:
        figures = await stall(running, contender.path, Scale(seconds=0.3, members=3), hz=100)
    assert 0 < figures[SHARE] < 99
    assert isinf(figures[SLOWER])
    assert isinf(figures[CLOSED])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def test_a_run_ends_with_a_table() -> None:
    """Each round tells of each contender, and the table of each comparison."""
    ended = run("--rounds", "1", "--seconds", "0.1", "--only", "100 at once")
    assert ended.returncode == 0, ended.stderr
    assert "handshakes, 100 at once 1/1, wsrouter, portable: handshakes per second of CPU" in ended.stdout
    assert "handshakes, 100 at once: wsrouter, portable / plain FastAPI" in ended.stdout
    assert ended.stdout.count("0.85") == 2


def test_a_benchmark_that_is_not_there() -> None:
    """A name that fits none is refused, with those that there are."""
    ended = run("--only", "fanout")
    assert ended.returncode == 2
    assert "fan-out" in ended.stderr


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000_000])
def test_messages_are_counted_however_they_are_cut(size: int) -> None:
    """Each message counts when its last byte is there; a ping is answered, and counts for nothing."""
    pings: list[bytes] = []
    frames = Frames(pings.append)
    stream = [
        Frame(Opcode.TEXT, b"a" * 10),
        Frame(Opcode.TEXT, b""),
        Frame(Opcode.BINARY, b"b" * 200, fin=False),
        Frame(Opcode.PING, b"here?"),
        Frame(Opcode.CONT, b"c" * 70_000),
        Frame(Opcode.TEXT, b"d" * 125),
    ]
    count = 0
    for frame in stream:
        data = frame.serialize(mask=False)
        for begin in range(0, len(data), size):
            count += frames.feed(data[begin : begin + size])
        assert count == sum(each.fin and each.opcode < 8 for each in stream[: stream.index(frame) + 1])
    assert pings == [b"here?"]
    assert Frames(pings.append).feed(b"".join(frame.serialize(mask=False) for frame in stream)) == count


def test_a_close_frame_is_told() -> None:
    """The server's code is in what is raised."""
    with pytest.raises(ConnectionError, match="4508"):
        Frames(bytes).feed(Frame(Opcode.CLOSE, (4508).to_bytes(2)).serialize(mask=False))


@pytest.mark.parametrize("size", [0, 125, 126, 60_000])
def test_frames_of_clients_are_masked_with_zeros(size: int) -> None:
    """Length and mask are as RFC 6455, section 5.2, has them."""
    frame, payload = masked(b"x" * size), b"x" * size
    unmasked = Frame(Opcode.TEXT, payload).serialize(mask=False)
    header = len(unmasked) - size
    assert frame == bytes((unmasked[0], unmasked[1] | 0x80)) + unmasked[2:header] + bytes(4) + payload


@pytest.mark.parametrize(
    ("figure", "ours", "theirs", "shown"),
    [
        (DELIVERIES, 3000.0, 2000.0, "1.50"),
        (HANDSHAKES, 500.0, 1000.0, "0.50"),
        (P99, 10.0, 40.0, "4.00"),
        (MEMORY, 34.9, 30.6, "+4.3 KiB"),
        (MEMORY, 30.0, 31.0, "-1.0 KiB"),
        (SHARE, 100.0, 48.0, "100.0 %"),
        (CLOSED, float("inf"), 1.0, "∞"),
    ],
)
def test_figures_are_compared(figure: Figure, ours: float, theirs: float, shown: str) -> None:
    """A ratio is above 1 where ours is better; other figures are a difference, or stand alone."""
    assert figure.show_compared(figure.compared(ours, theirs)) == shown


def test_the_99th_percentile_counts_what_did_not_come() -> None:
    """Of 100 expected it is the worst one, and for ever if that did not come."""
    assert p99([float(value) for value in range(100)], 100) == 99
    assert p99([1.0] * 100, 100) == 1
    assert isinf(p99([1.0] * 99, 100))


def test_publishing_to_rooms_of_another_process() -> None:
    """All of it arrives through a Redis, and something comes of it."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--rooms", "40", "--tasks", "4", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "median of 1" in done.stdout


def test_what_rooms_cost() -> None:
    """Memory of both processes is told, and what three nodes ask of Redis at rest: two commands per heartbeat."""
    arguments = ["--only", "room", "--connections", "20", "--rounds", "1", "--minutes", "0.1"]
    command = [sys.executable, "-m", "tests.benchmarks.sizing", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "connections of 3 nodes: 6" in done.stdout
    assert "with 1,000 members each: evalsha" in done.stdout
