"""Class-based WebSocket handlers on FastAPI, with dependency injection, guards, rooms and broadcast."""

from wsrouter.codecs import Codec, JSONCodec
from wsrouter.connection import Connection
from wsrouter.errors import BrokerError, ConfigurationError, Deny, Disconnect, WebSocketError, WSRouterError
from wsrouter.frames import CloseInfo
from wsrouter.handler import WebSocketHandler, on
from wsrouter.history import History, Position
from wsrouter.hub import Hub
from wsrouter.limits import Limits
from wsrouter.members import Member
from wsrouter.messages import Envelope, Message
from wsrouter.router import WebSocketRouter
from wsrouter.rules import RoomOptions
from wsrouter.signatures import ConnectionScoped
from wsrouter.stats import HubHealth, HubStats

__all__ = [
    "BrokerError",
    "CloseInfo",
    "Codec",
    "ConfigurationError",
    "Connection",
    "ConnectionScoped",
    "Deny",
    "Disconnect",
    "Envelope",
    "History",
    "Hub",
    "HubHealth",
    "HubStats",
    "JSONCodec",
    "Limits",
    "Member",
    "Message",
    "Position",
    "RoomOptions",
    "WSRouterError",
    "WebSocketError",
    "WebSocketHandler",
    "WebSocketRouter",
    "on",
]

__version__ = "0.1.0"
