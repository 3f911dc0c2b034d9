"""What every store of one-time values keeps to, in memory and in a real Redis; and each one's own limits."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator

import pytest

from tests.redis_server import RedisServer, serve_redis
from tests.support import eventually
from wsrouter import BrokerError, ConfigurationError
from wsrouter.brokers.redis import RedisStore
from wsrouter.stores import MemoryStore, OneTimeStore


@pytest.fixture(scope="module")
def redis_server() -> Generator[RedisServer]:
    with serve_redis() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[OneTimeStore]:
    made: OneTimeStore
    if request.param == "memory":
        made = MemoryStore()
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        made = RedisStore(server.url, prefix=f"{request.node.name}:")
    yield made
    await made.aclose()


async def test_a_value_is_taken_once(store: OneTimeStore) -> None:
    """What was put comes out as it was, and then it is gone."""
    value = bytes(range(256)) * 4
    await store.put("key", value, 30)
    assert await store.take("key") == value
    assert await store.take("key") is None


async def test_an_empty_value_is_a_value(store: OneTimeStore) -> None:
    """Nothing is not the same as nothing in it."""
    await store.put("key", b"", 30)
    assert await store.take("key") == b""
    assert await store.take("key") is None


async def test_of_many_who_take_at_once_one_gets_it(store: OneTimeStore) -> None:
    """Taking reads and forgets in one step."""
    await store.put("key", b"value", 30)
    taken = await asyncio.gather(*(store.take("key") for _ in range(50)))
    assert [value for value in taken if value is not None] == [b"value"]


async def test_a_value_goes_by_itself(store: OneTimeStore) -> None:
    """After its time it can't be taken any more, and its key is free."""
    await store.put("key", b"old", 0.05)
    until = time.monotonic() + 0.08
    await eventually(lambda: time.monotonic() > until)
    assert await store.take("key") is None
    await store.put("again", b"old", 0.05)
    until = time.monotonic() + 0.08
    await eventually(lambda: time.monotonic() > until)
    await store.put("again", b"new", 30)
    assert await store.take("again") == b"new"


async def test_a_value_is_not_replaced(store: OneTimeStore) -> None:
    """Putting under a key that is in use is a mistake of the caller's, and the first value stays."""
    await store.put("key", b"first", 30)
    with pytest.raises(ValueError, match="under that key"):
        await store.put("key", b"second", 30)
    assert await store.take("key") == b"first"


@pytest.mark.parametrize("ttl", [0, -1, float("nan")])
async def test_a_time_that_is_over_is_refused(store: OneTimeStore, ttl: float) -> None:
    """A value that never could be taken is a mistake."""
    with pytest.raises(ValueError, match="above zero"):
        await store.put("key", b"value", ttl)


async def test_keys_are_texts_like_any(store: OneTimeStore) -> None:
    """Spaces, new lines, wildcards and letters beyond ASCII are part of a key, and mean nothing."""
    keys = ["a b", "a\r\nFLUSHALL\r\n", "*", "é", "", "x" * 1000]
    for number, key in enumerate(keys):
        await store.put(key, str(number).encode(), 30)
    assert [await store.take(key) for key in keys] == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_who_closes_it_takes_nothing_from_others(store: OneTimeStore) -> None:
    """Two applications of one process may share a store: what one has put is there when the other has ended, and it can
    be closed again and used afterwards."""
    await store.put("key", b"value", 30)
    await store.aclose()
    await store.aclose()
    assert await store.take("key") == b"value"


async def test_a_full_memory_store_refuses(no_leaks: None) -> None:
    """It does not drop what others were promised; what is over its time makes room."""
    store = MemoryStore(max_entries=3)
    await store.put("lasting", b"1", 30)
    await store.put("brief", b"2", 0.05)
    await store.put("another", b"3", 30)
    with pytest.raises(BrokerError, match="full"):
        await store.put("more", b"4", 30)
    until = time.monotonic() + 0.08
    await eventually(lambda: time.monotonic() > until)
    await store.put("more", b"4", 30)
    assert (store.entries, await store.take("lasting"), await store.take("more")) == (3, b"1", b"4")


async def test_a_memory_store_is_full_of_bytes(no_leaks: None) -> None:
    """Keys and values count together; what is taken, or over its time, makes room."""
    store = MemoryStore(max_bytes=100)
    await store.put("lasting", b"1" * 43, 30)
    await store.put("brief", b"2" * 45, 0.05)
    await store.put("", b"", 30)
    with pytest.raises(BrokerError, match="full: it keeps 100 bytes"):
        await store.put("x", b"", 30)
    until = time.monotonic() + 0.08
    await eventually(lambda: time.monotonic() > until)
    await store.put("brief", b"3" * 45, 30)
    with pytest.raises(BrokerError, match="full"):
        await store.put("x", b"", 30)
    assert await store.take("lasting") == b"1" * 43
    await store.put("again", b"4" * 45, 30)
    assert (store.entries, await store.take("brief"), await store.take("again")) == (3, b"3" * 45, b"4" * 45)
    with pytest.raises(BrokerError, match="full"):
        await store.put("one", b"5" * 98, 30)
    await store.put("one", b"5" * 97, 30)


async def test_a_memory_store_forgets_what_nobody_takes() -> None:
    """Values that are over their time go as new ones come, without being asked for."""
    store = MemoryStore()
    for number in range(100):
        await store.put(f"old-{number}", b"", 0.02)
    until = time.monotonic() + 0.05
    await eventually(lambda: time.monotonic() > until)
    await store.put("new", b"", 30)
    assert store.entries == 1


def test_a_store_for_nothing_is_refused() -> None:
    """With what was expected."""
    with pytest.raises(ConfigurationError, match="1 or more"):
        MemoryStore(max_entries=0)
    with pytest.raises(ConfigurationError, match="1 or more"):
        MemoryStore(max_bytes=0)
    with pytest.raises(ConfigurationError, match="above zero"):
        RedisStore("redis://127.0.0.1", timeout=0)
    with pytest.raises(ConfigurationError, match="redis://127"):
        RedisStore("127.0.0.1:6379")
    with pytest.raises(ConfigurationError, match="retries"):
        RedisStore("redis://user:s3cret@127.0.0.1/0?retries=3")


async def test_a_redis_that_is_down_is_a_broker_error() -> None:
    """A connection that was open may have carried the command; where none can be opened nothing can have happened.
    When it is back, the same store works."""
    with serve_redis() as server:
        store = RedisStore(server.url, timeout=1)
        await store.put("key", b"value", 30)
        server.kill()
        with pytest.raises(BrokerError):
            await store.take("key")
        for _ in range(2):
            with pytest.raises(BrokerError) as failed:
                await store.put("other", b"value", 30)
            assert failed.value.outcome_unknown is False
        server.start()
        await store.put("key", b"value", 30)
        assert await store.take("key") == b"value"
        await store.aclose()


async def test_a_redis_that_is_frozen_is_a_broker_error_in_time() -> None:
    """After the deadline the outcome is unknown, and nothing is sent twice."""
    with serve_redis() as server:
        store = RedisStore(server.url, timeout=0.3)
        await store.put("first", b"value", 30)
        server.freeze()
        begin = time.monotonic()
        with pytest.raises(BrokerError) as failed:
            await store.put("key", b"value", 30)
        assert failed.value.outcome_unknown is True
        assert time.monotonic() - begin < 1
        server.thaw()
        assert await store.take("first") == b"value"
        assert await store.take("key") == b"value"  # it did happen, once
        assert await store.take("key") is None
        await store.aclose()


async def test_a_caller_that_is_cancelled_does_not_confuse_the_next() -> None:
    """The reply to a command that nobody waits for any more is not taken for that to the next one."""
    with serve_redis() as server:
        store = RedisStore(server.url, timeout=2, max_connections=1)
        await store.put("first", b"1", 30)
        await store.put("second", b"2", 30)
        server.freeze()
        waiting = asyncio.create_task(store.take("first"))
        await eventually(lambda: len(asyncio.all_tasks()) > 1)
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        waiting.cancel()
        await asyncio.wait([waiting])
        server.thaw()
        assert await store.take("second") == b"2"
        await store.aclose()


async def test_more_callers_than_connections_take_turns() -> None:
    """A store opens no more connections than it may, and nobody is refused for that."""
    with serve_redis() as server:
        store = RedisStore(server.url, max_connections=4)
        await asyncio.gather(*(store.put(str(number), b"", 30) for number in range(200)))
        taken = await asyncio.gather(*(store.take(str(number)) for number in range(200)))
        assert taken == [b""] * 200
        await store.aclose()


LOOPS = """
import asyncio, sys
from wsrouter.brokers.redis import RedisStore

store = RedisStore(sys.argv[1], max_connections=4, timeout=5)

async def use(number):
    await asyncio.gather(*(store.put(f"{number}-{each}", b"x", 30) for each in range(60)))
    return await asyncio.gather(*(store.take(f"{number}-{each}") for each in range(60)))

for number in range(3):
    assert asyncio.run(use(number)) == [b"x"] * 60

async def close():
    await store.put("last", b"x", 30)
    await store.aclose()

asyncio.run(close())
asyncio.run(store.aclose())
print("done")
"""


def test_a_store_serves_one_event_loop_after_the_other(redis_server: RedisServer) -> None:
    """In each it has connections and places of its own; a loop that is gone does not come into it."""
    done = subprocess.run(
        [sys.executable, "-c", LOOPS, redis_server.url], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


async def test_who_closes_it_does_not_cut_off_others() -> None:
    """A command that is under way gets its reply, and then its connection goes."""
    with serve_redis() as server:
        store = RedisStore(server.url, timeout=5)
        await store.put("key", b"value", 30)
        server.freeze()
        waiting = asyncio.create_task(store.take("key"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        await store.aclose()
        server.thaw()
        assert await waiting == b"value"
        await store.put("more", b"value", 30)
        await store.aclose()


async def test_a_refusal_of_redis_is_a_broker_error(redis_server: RedisServer) -> None:
    """An answer that is an error did not happen, and the text does not quote values."""
    store = RedisStore(redis_server.url.replace("redis://", "redis://nobody:wrong@"))
    with pytest.raises(BrokerError) as failed:
        await store.put("key", b"S3cret", 30)
    assert failed.value.outcome_unknown is False
    assert "S3cret" not in str(failed.value)
    assert "wrong" not in str(failed.value)
    await store.aclose()


def test_without_redis_py_the_extra_is_named() -> None:
    """Who lacks the package reads what to install."""
    program = "import sys; sys.modules['redis'] = None; import wsrouter.brokers.redis"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install wsrouter-fastapi[redis]" in done.stderr
