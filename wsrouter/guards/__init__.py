"""Ready guards. A guard of one's own is a dependency that raises `Deny`: a function is enough."""

from wsrouter.guards.origins import AllowOrigins
from wsrouter.guards.places import ConnectionLimit, ConnectionLimitStats
from wsrouter.guards.requirements import RequireScopes, RequireSubprotocol

__all__ = ["AllowOrigins", "ConnectionLimit", "ConnectionLimitStats", "RequireScopes", "RequireSubprotocol"]
