"""Who is at the other end."""

from wsrouter.auth.base import Authenticator, Principal
from wsrouter.auth.jwt import JWTAuth

__all__ = ["Authenticator", "JWTAuth", "Principal"]
