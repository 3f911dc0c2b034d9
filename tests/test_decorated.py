"""Message methods under decorators: what the outermost function is decides how it is called."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.envelopes import client_of, receive, send
from wsrouter import WebSocketHandler, on

Function = Callable[..., Any]


async def coroutine(self: Any, message: int) -> Any:
    return message + 1


async def stream(self: Any, message: int) -> AsyncIterator[int]:
    yield message
    yield message + 1


def plain(self: Any, message: int) -> Any:
    return message + 1


def numbers(self: Any, message: int) -> Any:
    yield message
    yield message + 1


def passing_on(function: Function) -> Function:
    """Decorate with a plain function, as most decorators do."""

    @functools.wraps(function)
    def pass_on(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return pass_on


def awaiting(function: Function) -> Function:
    """Decorate with a coroutine function."""

    @functools.wraps(function)
    async def wait(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wait


def in_thread(function: Function) -> Function:
    """Make a coroutine function of a plain one."""

    @functools.wraps(function)
    async def wait(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, *args, **kwargs)

    return wait


def collecting(function: Function) -> Function:
    """Make a coroutine function of a generator."""

    @functools.wraps(function)
    async def collect(*args: Any, **kwargs: Any) -> Any:
        return list(function(*args, **kwargs))

    return collect


def streaming(function: Function) -> Function:
    """Make an async generator of a coroutine function."""

    @functools.wraps(function)
    async def twice(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        yield "first"
        yield await function(*args, **kwargs)

    return twice


def noting(function: Function) -> Function:
    """Decorate an async generator with another."""

    @functools.wraps(function)
    async def note(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for item in function(*args, **kwargs):
            yield f"item {item}"

    return note


def remembering(function: Function) -> Function:
    """Answer at once what is known: a value in place of a coroutine or a stream."""

    @functools.wraps(function)
    def remember(self: Any, message: int) -> Any:
        return "known" if message == 1 else function(self, message)

    return remember


def later(function: Function) -> Function:
    """Answer what is known with a coroutine in place of a stream."""

    @functools.wraps(function)
    def remember(self: Any, message: int) -> Any:
        return coroutine(self, message) if message == 1 else function(self, message)

    return remember


@pytest.mark.parametrize(
    ("method", "answers"),
    [
        (passing_on(coroutine), [2]),
        (passing_on(stream), [1, 2, None]),
        (passing_on(plain), [2]),
        (awaiting(coroutine), [2]),
        (awaiting(passing_on(coroutine)), [2]),
        (passing_on(awaiting(coroutine)), [2]),
        (in_thread(plain), [2]),
        (collecting(numbers), [[1, 2]]),
        (streaming(coroutine), ["first", 2, None]),
        (passing_on(streaming(awaiting(coroutine))), ["first", 2, None]),
        (noting(stream), ["item 1", "item 2", None]),
        (noting(streaming(coroutine)), ["item first", "item 2", None]),
        (remembering(coroutine), ["known"]),
        (remembering(stream), ["known"]),
        (later(stream), [2]),
    ],
)
async def test_a_decorated_method_is_called_as_what_it_has_become(method: Function, answers: list[Any]) -> None:
    """A coroutine function replies, an async generator streams, a plain function gives what is under it, or a value."""

    class Handler(WebSocketHandler):
        work = on("work")(method)

    async with client_of(Handler) as ws:
        await send(ws, "work", 1, id=1)
        frames = [await receive(ws) for _ in answers]
    assert [frame.get("data") for frame in frames] == answers
    assert frames[-1]["type"] == "$ok"
