"""How coroutines and threads are run: in the caller's own task, and to the end."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import copy_context
from types import coroutine
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


def _steps(coro: Coroutine[Any, Any, T], yielded: Any) -> Generator[Any, Any, T]:
    while True:
        value: Any = None
        thrown: BaseException | None = None
        try:
            value = yield yielded
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as exc:
            thrown = exc
        # Not within the except block: what the coroutine raises would get `exc` for its context, from which
        # anyio takes a native cancellation for one of its own.
        try:
            yielded = coro.send(value) if thrown is None else coro.throw(thrown)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            thrown = None  # or the exception would hold this frame, and the frame the exception


resume = coroutine(_steps)
"""Finish a coroutine in the current task whose first step already yielded ``yielded``."""


@coroutine
def drive(coro: Coroutine[Any, Any, T], on_suspend: Callable[[], object]) -> Generator[Any, Any, T]:
    """Run a coroutine in the current task, and call ``on_suspend`` once if it does not finish at once.

    Every step runs in the task that awaits `drive`, so that ``asyncio.timeout``, task groups and anyio's
    cancel scopes behave in ``coro`` as if it had been awaited.
    """
    try:
        yielded = coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    on_suspend()
    return (yield from _steps(coro, yielded))


def current_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "a session runs in a task"
    return task


def is_from_outside(exc: BaseException) -> bool:
    """Whether an exception cancels the current task.

    A `CancelledError` may also come out of a task that was awaited and cancelled, and is a failure like any other then.
    """
    return isinstance(exc, asyncio.CancelledError) and current_task().cancelling() > 0


async def wait_for_end(task: "asyncio.Future[Any]", timeout: float | None = None) -> asyncio.CancelledError | None:
    """Wait until ``task`` has ended, through cancellations of the caller; return the first of them.

    Args:
        task: what to wait for; its result or exception is left to the caller.
        timeout: seconds; after that the task may still run.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        remaining = None if deadline is None else deadline - loop.time()
        if remaining is not None and remaining <= 0:
            break
        try:
            # An anyio scope that was cancelled around the caller would cancel it again in every iteration of the loop.
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task], timeout=remaining)
        except asyncio.CancelledError as exc:
            cancelled = cancelled or exc
    return cancelled


STOPPED: Final = "the server stops"
"""What a cancellation says that comes from whoever waits for a task `apart`."""


def is_stop(exc: BaseException) -> bool:
    """Whether an exception ends the server, or a cancellation comes from there and not from a task group within."""
    if isinstance(exc, asyncio.CancelledError):
        return exc.args == (STOPPED,)
    return not isinstance(exc, Exception)


def is_taken_back(exc: BaseException) -> bool:
    """Whether the current task is no longer cancelled by an exception that did so."""
    return isinstance(exc, asyncio.CancelledError) and not current_task().cancelling()


async def apart(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a task of its own, and return what it returns; a cancellation reaches it once.

    A task that waits goes on through every coroutine that awaits the next one. Behind a framework those are twenty and
    more, each with memory of its own, and a connection pays for them with every message. Here they wait once.
    """
    loop = asyncio.get_running_loop()
    context = copy_context()
    task = loop.create_task(coro, name="wsrouter session", context=context)
    ended = loop.create_future()
    task.add_done_callback(_Wake(ended), context=context)
    try:
        await ended
    except asyncio.CancelledError:
        task.cancel(STOPPED)
        await wait_for_end(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure from None
        raise
    return task.result()


class _Wake:
    """Wakes who waits, unless they were woken already; a partial would be three objects for every connection."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: "asyncio.Future[None]") -> None:
        self._waiter = waiter

    def __call__(self, _: object) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)


async def in_thread(
    function: Callable[..., T], *args: Any, limiter: anyio.CapacityLimiter | None = None, **kwargs: Any
) -> T:
    """Call a function in the thread pool; a cancellation waits until the thread has ended.

    A thread can't be cancelled. To return before it ended would close what it still uses.
    """
    call = functools.partial(function, *args, **kwargs)
    thread = asyncio.ensure_future(anyio.to_thread.run_sync(call, limiter=limiter))
    cancelled = await wait_for_end(thread)
    if cancelled is not None:
        if not thread.cancelled():
            thread.exception()
        raise cancelled
    return thread.result()


def manager_in_thread(function: Callable[..., Any]) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Return an asynchronous context manager made of a generator function that runs in the thread pool."""
    make = contextmanager(function)

    @asynccontextmanager
    async def enter(**arguments: Any) -> AsyncGenerator[Any]:
        manager = make(**arguments)
        entered = False
        value = None

        def begin() -> None:
            nonlocal entered, value
            value = manager.__enter__()
            entered = True

        # The exit has a place of its own in the pool: one that waits for others to finish would deadlock.
        place = anyio.CapacityLimiter(1)
        try:
            await in_thread(begin)
            yield value
        except BaseException as exc:
            if not entered or not await in_thread(manager.__exit__, type(exc), exc, exc.__traceback__, limiter=place):
                raise
        else:
            await in_thread(manager.__exit__, None, None, None, limiter=place)

    return enter


async def shielded(work: Awaitable[T], timeout: float) -> T:
    """Run work in a task of its own that cancellations of the caller do not reach.

    Args:
        work: what to run.
        timeout: seconds; then the work is cancelled.

    Raises:
        TimeoutError: the work was not done in time.
        asyncio.CancelledError: the caller was cancelled meanwhile; the work has ended all the same.
    """
    task = asyncio.ensure_future(work)
    cancelled = await wait_for_end(task, timeout)
    timed_out = not task.done()
    if timed_out:
        task.cancel()
        cancelled = await wait_for_end(task) or cancelled
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    if timed_out:
        raise TimeoutError(f"not done within {timeout:g} s")
    return task.result()


async def insist(work: Callable[[], Awaitable[object]], timeout: float) -> asyncio.CancelledError | None:
    """Do work in the current task, again if a cancellation of the task met it; return the first cancellation.

    Args:
        work: what to do; what was done already has to be skipped the next time.
        timeout: seconds for both together.

    Raises:
        TimeoutError: it was not done in time.
    """
    async with asyncio.timeout(timeout) as deadline:
        cancelled: asyncio.CancelledError | None = None
        while True:
            try:
                await work()
            except asyncio.CancelledError as exc:
                if deadline.expired() or not current_task().cancelling():
                    raise
                cancelled = cancelled or exc
            else:
                return cancelled


async def within(timeout: float, coro: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine with a deadline, and without its cost where the coroutine finishes at once.

    Args:
        timeout: seconds.
        coro: what to await.

    Raises:
        TimeoutError: it was not done in time, and is cancelled.
    """
    try:
        yielded = coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    async with asyncio.timeout(timeout):
        return await resume(coro, yielded)


async def first_of(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Wait until one of some tasks has ended."""
    await asyncio.wait(list(tasks), return_when=asyncio.FIRST_COMPLETED)


def check_loop(loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Check that the caller runs where connections live; sockets are not for several threads.

    Args:
        loop: where that is.
        what: the subject of the error's text.

    Raises:
        RuntimeError: it runs in another event loop.
    """
    if loop is not asyncio.get_running_loop():
        raise RuntimeError(
            f"{what} in another event loop: from a thread call it with anyio.from_thread.run or"
            " asyncio.run_coroutine_threadsafe"
        )
