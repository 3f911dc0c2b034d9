"""What a guard returns that denies nobody, although whoever wrote it meant it to."""

import inspect

from starlette.responses import Response

from wsrouter.containers import is_pending
from wsrouter.errors import ConfigurationError


def check_decision(name: str, value: object, *, yielded: bool = False) -> None:
    """Check that a guard does not admit by mistake.

    Args:
        name: the guard.
        value: what it returned.
        yielded: whether it has yielded that, and not returned it; a task or a generator may be what others need then.

    Raises:
        ConfigurationError: that is ``False``, a response, or what should have been awaited, iterated or raised.
    """
    kind = value if inspect.isclass(value) else type(value)
    if issubclass(kind, BaseException):
        raise ConfigurationError(f"the guard {name} returned {kind.__name__}; write raise in place of return")
    if value is False:
        raise ConfigurationError(f"the guard {name} returned False, which denies nobody; raise Deny")
    if isinstance(value, Response):
        raise ConfigurationError(f"the guard {name} returned a response, which denies nobody; raise Deny")
    if yielded and not inspect.iscoroutine(value):
        return
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise ConfigurationError(f"the guard {name} returned a generator, and nothing of it ran; write the yield in it")
    if is_pending(value):
        if inspect.iscoroutine(value):
            value.close()
        raise ConfigurationError(f"the guard {name} returned a coroutine; make it async def, and await what it calls")
