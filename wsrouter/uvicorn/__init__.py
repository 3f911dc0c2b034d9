"""A protocol class for uvicorn's option ``ws``: ``uvicorn --ws wsrouter.uvicorn:WebSocketProtocol app:app``.

It serves any ASGI application. Connections of wsrouter's handlers find in it the way straight to their socket.

Importing it looks whether uvicorn and websockets have what it uses, and raises `ConfigurationError` if not.
"""

from wsrouter.uvicorn.requirements import check as _check

_check()

from wsrouter.uvicorn.protocol import WebSocketProtocol  # noqa: E402  # what it imports may be missing

__all__ = ["WebSocketProtocol"]
