"""What can be a dependency, and where it runs: callables of every kind, on the event loop or in the thread pool."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from inspect import signature
from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.injecting import app_of, call
from tests.support import connect, serve
from wsrouter import ConnectionScoped, WebSocketHandler, on
from wsrouter.testing import WebSocketTestClient


def plain(q: str) -> str:
    return f"plain {q}"


async def coroutine(q: str) -> str:
    return f"coroutine {q}"


def generator(q: str) -> Iterator[str]:
    yield f"generator {q}"


async def async_generator(q: str) -> AsyncIterator[str]:
    yield f"async generator {q}"


class Klass:
    def __init__(self, q: str) -> None:
        self.text = f"class {q}"

    def __str__(self) -> str:
        return self.text


class Instance:
    def __call__(self, q: str) -> str:
        return f"instance {q}"

    async def method(self, q: str) -> str:
        return f"method {q}"


class AsyncInstance:
    async def __call__(self, q: str) -> str:
        return f"async instance {q}"


class GeneratorInstance:
    def __call__(self, q: str) -> Iterator[str]:
        yield f"generator instance {q}"


class AsyncGeneratorInstance:
    async def __call__(self, q: str) -> AsyncIterator[str]:
        yield f"async generator instance {q}"


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as most decorators do: with a plain function that passes on what it is given."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def with_prefix(prefix: str, q: str) -> str:
    return f"{prefix} {q}"


def made() -> Callable[[str], str]:
    return lambda q: f"lambda {q}"


CALLABLES: list[tuple[Callable[..., Any], str]] = [
    (plain, "plain hi"),
    (coroutine, "coroutine hi"),
    (generator, "generator hi"),
    (async_generator, "async generator hi"),
    (Klass, "class hi"),
    (Instance(), "instance hi"),
    (Instance().method, "method hi"),
    (AsyncInstance(), "async instance hi"),
    (GeneratorInstance(), "generator instance hi"),
    (AsyncGeneratorInstance(), "async generator instance hi"),
    (made(), "lambda hi"),
    (wrapped(plain), "plain hi"),
    (wrapped(coroutine), "coroutine hi"),
    (wrapped(generator), "generator hi"),
    (wrapped(async_generator), "async generator hi"),
    (wrapped(wrapped(coroutine)), "coroutine hi"),
    (functools.partial(with_prefix, "partial"), "partial hi"),
    (functools.partial(with_prefix, prefix="partial"), "partial hi"),
    (functools.partial(functools.partial(with_prefix, "twice")), "twice hi"),
    (functools.partial(wrapped(with_prefix), "wrapped"), "wrapped hi"),
    (functools.partial(AsyncInstance()), "async instance hi"),
    (functools.partial(AsyncGeneratorInstance()), "async generator instance hi"),
]
each_callable = pytest.mark.parametrize(
    ("dependency", "expected"), CALLABLES, ids=[f"{number}-{text[:-3]}" for number, (_, text) in enumerate(CALLABLES)]
)


@each_callable
async def test_callables_of_every_kind_are_dependencies(dependency: Callable[..., Any], expected: str) -> None:
    """Functions, generators, classes, instances, partials and decorated ones work in every place."""
    passed: list[str] = []

    async def guard(value: Annotated[Any, Depends(dependency)]) -> None:
        passed.append(str(value))

    class Handler(WebSocketHandler):
        guards = [guard]

        def __init__(self, value: Annotated[Any, ConnectionScoped(dependency)]) -> None:
            self.value = value

        async def on_connect(self, value: Annotated[Any, Depends(dependency)]) -> None:
            passed.append(str(value))

        @on("use")
        async def use(self, message: None, value: Annotated[Any, Depends(dependency)]) -> list[str]:
            return [str(self.value), str(value)]

        async def on_disconnect(self, value: Annotated[Any, Depends(dependency)]) -> None:
            passed.append(str(value))

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws?q=hi") as ws:
        assert await call(ws) == [expected, expected]
    assert passed == [expected] * 3


@each_callable
async def test_callables_of_every_kind_are_guards(dependency: Callable[..., Any], expected: str) -> None:
    """Each of them can be a guard as well, but for a class; its value is injected by naming it."""
    if dependency is Klass:
        return

    class Handler(WebSocketHandler):
        guards = [dependency]

        @on("use")
        async def use(self, message: None, value: Annotated[Any, Depends(dependency)]) -> str:
            return str(value)

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws?q=hi") as ws:
        assert await call(ws) == expected


async def test_classes_are_constructed_on_the_event_loop() -> None:
    """A class as a dependency, and the handler itself, find the running loop in their constructors."""

    class Service:
        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.thread = threading.get_ident()

    class Handler(WebSocketHandler):
        def __init__(self, service: Annotated[Service, Depends()]) -> None:
            assert asyncio.get_running_loop() is service.loop

        @on("use")
        async def use(self, message: None, service: Annotated[Service, Depends()]) -> bool:
            return service.thread == threading.get_ident()

    async with serve(app_of(Handler)) as server, connect(server, "/ws") as ws:
        await ws.send('{"type":"use","id":1}')
        assert await ws.recv() == '{"type":"$ok","id":1,"data":true}'


async def test_sync_callables_run_in_the_thread_pool() -> None:
    """A plain `def` dependency, generator, guard, method or hook never runs on the event loop's thread."""
    threads: dict[str, int] = {}

    def guard() -> None:
        threads["guard"] = threading.get_ident()

    def dependency() -> None:
        threads["dependency"] = threading.get_ident()

    def held() -> Iterator[None]:
        threads["opened"] = threading.get_ident()
        yield
        threads["closed"] = threading.get_ident()

    class Handler(WebSocketHandler):
        guards = [guard]

        def on_connect(self) -> None:
            threads["on_connect"] = threading.get_ident()

        @on("use")
        def use(
            self, message: None, value: Annotated[None, Depends(dependency)], held: Annotated[None, Depends(held)]
        ) -> None:
            threads["method"] = threading.get_ident()

        def on_disconnect(self) -> None:
            threads["on_disconnect"] = threading.get_ident()

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        await call(ws)
    assert set(threads) == {"guard", "on_connect", "dependency", "opened", "method", "closed", "on_disconnect"}
    assert threading.get_ident() not in threads.values()


language: ContextVar[str] = ContextVar("language", default="none")


async def test_context_variables_of_async_dependencies_are_seen() -> None:
    """What an async dependency or generator sets is seen by constructor, hooks and methods that it is solved for."""

    async def speaking() -> None:
        language.set("French")

    async def speaking_for_long() -> AsyncIterator[None]:
        language.set("Latin")
        yield

    class Handler(WebSocketHandler):
        def __init__(self, speaking: Annotated[None, Depends(speaking)]) -> None:
            self.constructed = language.get()

        async def on_connect(self, speaking: Annotated[None, Depends(speaking_for_long)]) -> None:
            self.connected = language.get()

        @on("french")
        async def french(self, message: None, speaking: Annotated[None, Depends(speaking)]) -> list[str]:
            return [self.constructed, self.connected, language.get()]

        @on("latin")
        async def latin(self, message: None, speaking: Annotated[None, Depends(speaking_for_long)]) -> str:
            await asyncio.sleep(0)
            return language.get()

        @on("thread")
        def thread(self, message: None, speaking: Annotated[None, Depends(speaking)]) -> str:
            return language.get()

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        assert await call(ws, "french") == ["French", "Latin", "French"]
        assert await call(ws, "latin") == "Latin"
        assert await call(ws, "thread") == "French"


async def test_max_concurrency_holds_a_place_for_the_call_only() -> None:
    """Depends(max_concurrency=1) lets one message at a time use the dependency, and its end frees the place."""
    if "max_concurrency" not in signature(Depends).parameters:
        pytest.skip("this FastAPI has no max_concurrency")
    open_now = most = 0

    async def held() -> AsyncIterator[None]:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        yield
        open_now -= 1

    one_at_a_time = Depends(held, max_concurrency=1)

    class Handler(WebSocketHandler):
        max_in_flight = 4

        async def on_connect(self, held: Annotated[None, one_at_a_time]) -> None: ...

        @on("use")
        async def use(self, message: None, held: Annotated[None, one_at_a_time]) -> None:
            for _ in range(3):
                await asyncio.sleep(0)

    async with (
        WebSocketTestClient(app_of(Handler)) as client,
        client.connect("/ws") as one,
        client.connect("/ws") as other,
    ):
        for ws in (one, other):
            for number in range(8):
                await ws.send_json({"type": "use", "id": number})
        for ws in (one, other):
            for _ in range(8):
                assert (await ws.receive())["type"] == "$ok"
    assert (open_now, most) == (0, 1)
