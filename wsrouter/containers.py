"""dependency-injector's containers: finding a provider, and starting and stopping resources with the app."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from dependency_injector import providers, wiring
from dependency_injector.containers import Container

from wsrouter.errors import ConfigurationError

# Its types declare these classes as objects of a private protocol, and providers of an unknown type.
_PROVIDERS_MAP: Any = wiring.ProvidersMap
_PROVIDER: Any = wiring.Provider
_CLOSING: Any = wiring.Closing
_MARKERS: Any = (wiring.Provide, wiring.Provider, wiring.Closing)

_started: dict[int, tuple[Container, int]] = {}


def is_provider(value: object) -> bool:
    """Whether it is a provider itself, without a marker around it."""
    return isinstance(value, providers.Provider)


def is_marker(value: object) -> bool:
    """Whether it is a ``Provide[...]``, ``Provider[...]`` or ``Closing[...]``."""
    return isinstance(value, _MARKERS)


def is_unfinished_marker(value: object) -> bool:
    """Whether it is one of them without its brackets."""
    return any(value is marker for marker in _MARKERS)


def is_closing(value: object) -> bool:
    """Whether it is a ``Closing[...]``."""
    return isinstance(value, _CLOSING)


def provider_of(container: Container | None, marker: Any, owner: str) -> Callable[[], Any]:
    """Return what gives the value of a ``Provide[...]`` (or ``Provider[...]``) marker from one container.

    Overrides of the container's providers hold at every call.

    Raises:
        ConfigurationError: there is no container, or no such provider in it.
    """
    if container is None:
        raise ConfigurationError(
            f"{owner}: it comes from a container, and the router has none; write WebSocketRouter(container=...)"
        )
    if is_marker(marker.provider):
        return provider_of(container, marker.provider, owner)
    provider: Callable[[], Any] | None = _PROVIDERS_MAP(container).resolve_provider(marker.provider, marker.modifier)
    if provider is None:
        name = getattr(container.declarative_parent, "__name__", type(container).__name__)
        raise ConfigurationError(
            f"{owner}: {name}, the container of the router, has no provider {marker.provider!r}; add it to {name}, or"
            " give the router another container"
        )
    if isinstance(marker, _PROVIDER):
        return lambda: provider
    return provider


def is_pending(value: object) -> bool:
    """Whether a provider gave something that has to be awaited first (an asynchronous provider)."""
    return asyncio.isfuture(value) or inspect.iscoroutine(value)


async def start(container: Container) -> None:
    """Initialise the resources of a container, if nobody did yet."""
    _, users = _started.get(id(container), (container, 0))
    _started[id(container)] = (container, users + 1)
    if users == 0:
        try:
            await _finished(container.init_resources())
        except BaseException:
            del _started[id(container)]
            raise


async def stop(container: Container) -> None:
    """Shut the resources of a container down, if nobody else uses them."""
    _, users = _started.pop(id(container), (container, 1))
    if users > 1:
        _started[id(container)] = (container, users - 1)
    else:
        await _finished(container.shutdown_resources())


async def _finished(result: Awaitable[Any] | None) -> None:
    if result is not None:
        await result
