"""What a guard returns that denies nobody, although whoever wrote it meant it to."""

import inspect

from starlette.responses import Response

from wsrouter.containers import is_pending
from wsrouter.errors import ConfigurationError


def check_decision(name: str, value: object) -> None:
    """Check that a guard does not admit by mistake.

    Args:
        name: the guard.
        value: what it returned, or yielded.

    Raises:
        ConfigurationError: that is ``False``, a response, or what should have been awaited, iterated or raised.
    """
    if isinstance(value, BaseException):
        raise ConfigurationError(f"the guard {name} returned {type(value).__name__}; write raise in place of return")
    if value is False:
        raise ConfigurationError(f"the guard {name} returned False, which denies nobody; raise Deny")
    if isinstance(value, Response):
        raise ConfigurationError(f"the guard {name} returned a response, which denies nobody; raise Deny")
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise ConfigurationError(f"the guard {name} returned a generator, and nothing of it ran; write the yield in it")
    if is_pending(value):
        if inspect.iscoroutine(value):
            value.close()
        raise ConfigurationError(f"the guard {name} returned a coroutine; make it async def, and await what it calls")
