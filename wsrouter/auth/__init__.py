"""Who is at the other end."""

from wsrouter.auth.jwt import JWTAuth
from wsrouter.identity import Authenticator, Principal

__all__ = ["Authenticator", "JWTAuth", "Principal"]
