"""A WebSocket protocol class for uvicorn: ``uvicorn --ws wsrouter.uvicorn:WebSocketProtocol app:app``."""

from wsrouter.uvicorn.protocol import WebSocketProtocol

__all__ = ["WebSocketProtocol"]
