"""What `wsrouter.uvicorn` uses of uvicorn and websockets; whether it is there is looked at when it is imported."""

import logging
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from typing import Final

import uvicorn
from uvicorn import Config
from uvicorn.server import ServerState

from wsrouter.errors import ConfigurationError

logger: Final = logging.getLogger("wsrouter")

TESTED: Final = frozenset({"0.52", "0.53", "0.54"})
"""Versions of uvicorn, without their last part."""

NAMES: Final = (
    "uvicorn.config:Config.asgi_version",
    "uvicorn.config:Config.load",
    "uvicorn.protocols.utils:ClientDisconnected",
    "uvicorn.protocols.utils:get_local_addr",
    "uvicorn.protocols.utils:get_remote_addr",
    "uvicorn.protocols.utils:is_ssl",
    "websockets.datastructures:Headers",
    "websockets.exceptions:HeaderLineTooLong",
    "websockets.exceptions:PayloadTooBig",
    "websockets.exceptions:ProtocolError",
    "websockets.exceptions:RequestLineTooLong",
    "websockets.exceptions:TooManyHeaders",
    "websockets.extensions.permessage_deflate:PerMessageDeflate.decode",
    "websockets.extensions.permessage_deflate:ServerPerMessageDeflateFactory",
    "websockets.frames:Close.parse",
    "websockets.frames:Frame.serialize",
    "websockets.frames:Opcode",
    "websockets.http11:Request",
    "websockets.http11:Response.serialize",
    "websockets.server:ServerProtocol.accept",
    "websockets.server:ServerProtocol.events_received",
    "websockets.server:ServerProtocol.receive_data",
    "websockets.utils:apply_mask",
)
OPTIONS: Final = ("root_path", "ws_max_size", "ws_per_message_deflate", "ws_ping_interval", "ws_ping_timeout")
"""Of uvicorn's ``Config``."""
STATE: Final = ("connections", "default_headers", "tasks")
"""Of uvicorn's ``ServerState``."""


def check() -> None:
    """Warn if this version of uvicorn was not tested.

    Raises:
        ConfigurationError: something is missing.
    """
    lacking = [*absent(NAMES)]
    lacking += [f"uvicorn.Config({name}=)" for name in OPTIONS if name not in signature(Config).parameters]
    lacking += [f"uvicorn.server:ServerState.{name}" for name in STATE if not hasattr(ServerState(), name)]
    if lacking:
        raise ConfigurationError(
            f"wsrouter.uvicorn uses {', '.join(lacking)}, which uvicorn {uvicorn.__version__} and websockets "
            f"{version('websockets')} don't have. Install a version of uvicorn that it was tested with "
            f"({', '.join(sorted(TESTED))}), or run uvicorn without --ws: everything works on its own protocol class"
        )
    if ".".join(uvicorn.__version__.split(".")[:2]) not in TESTED:
        logger.warning(
            "wsrouter.uvicorn was not tested with uvicorn %s, only with %s",
            uvicorn.__version__,
            ", ".join(sorted(TESTED)),
        )


def absent(names: Iterable[str]) -> Iterator[str]:
    """Yield those of the names (``module:attribute.attribute``) that stand for nothing."""
    for name in names:
        module, _, path = name.partition(":")
        try:
            found: object = import_module(module)
        except ModuleNotFoundError:
            yield name
            continue
        for attribute in path.split("."):
            found = getattr(found, attribute, None)
        if found is None:
            yield name
