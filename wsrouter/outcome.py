"""What an exception comes to: which member of a group rules, how it closes, what a scope makes of it."""

import asyncio
import logging
from contextlib import AsyncExitStack

from fastapi.exceptions import ValidationException
from starlette.exceptions import HTTPException, WebSocketException
from typing_extensions import TypeIs

from wsrouter.errors import Deny, Disconnect, WebSocketError, close_code, is_close_code, status_of
from wsrouter.tasks import is_from_outside

logger = logging.getLogger("wsrouter")


async def unwind(stack: AsyncExitStack | None, exc: BaseException) -> None:
    """Close a scope in which ``exc`` was raised; what the dependencies raise instead goes on from here.

    A dependency that swallows the exception does not make a success of it: the caller raises it again.
    """
    if stack is not None:
        await stack.__aexit__(type(exc), exc, exc.__traceback__)


async def let_go(
    stack: AsyncExitStack | None, exc: BaseException | None, timeout: float, failure: str, *args: object
) -> None:
    """Close a scope that is over; that it fails is logged, and concerns nobody else.

    Args:
        stack: the scope.
        exc: what was raised in it, ``None`` for nothing.
        timeout: seconds; then it is cancelled.
        failure: what the log says of a failure, with ``args``.
    """
    if stack is None:
        return
    try:
        async with asyncio.timeout(timeout):
            if exc is None:
                await stack.aclose()
            else:
                await unwind(stack, exc)
    except (Exception, asyncio.CancelledError) as raised:
        if is_from_outside(raised):
            raise
        if raised is not exc:
            logger.exception(failure, *args)


def strongest(exc: BaseException) -> BaseException:
    """Return the member of an exception group that rules; the unexpected ones that do not are logged."""
    if not is_group(exc):
        return exc
    members = [strongest(member) for member in exc.exceptions]
    ranks: list[tuple[type[BaseException], ...]] = [
        (Disconnect, WebSocketException),
        (WebSocketError, HTTPException, ValidationException),
        (BaseException,),
    ]
    rank = next(rank for rank in ranks if any(isinstance(member, rank) for member in members))
    if rank is not ranks[-1]:
        for member in members:
            if not isinstance(member, (*ranks[0], *ranks[1])):
                logger.error("A task group failed with this beside what was answered", exc_info=member)
    return next(member for member in members if isinstance(member, rank))


def answerable(exc: BaseException) -> BaseException:
    """Return what tells the client in the place of FastAPI's exceptions of a request that is not valid."""
    return WebSocketError("invalid", "The request is not valid") if isinstance(exc, ValidationException) else exc


def is_group(exc: BaseException) -> TypeIs[BaseExceptionGroup[BaseException]]:
    return isinstance(exc, BaseExceptionGroup)


def closing_of(exc: BaseException, place: str) -> tuple[int, str]:
    """Return close code and reason of an exception where it can't be answered with a frame."""
    exc = answerable(strongest(exc))
    if isinstance(exc, Disconnect):
        return exc.code, exc.reason
    if isinstance(exc, Deny):
        return exc.code, exc.reason
    if isinstance(exc, HTTPException):
        return close_code(exc.status_code), str(exc.detail)
    if isinstance(exc, WebSocketError):
        return close_code(status_of(exc.code)), exc.message
    if isinstance(exc, WebSocketException) and is_close_code(exc.code):
        return exc.code, exc.reason
    logger.error("%s failed", place, exc_info=exc)
    return 1011, "internal error"
