"""Who is at the other end: tokens, where they are looked for, and tickets for one connection."""

from wsrouter.auth.jwks import JWKSet
from wsrouter.auth.jwt import JWTAuth
from wsrouter.auth.sources import BadCredential, Cookie, Header, Query, Source, Subprotocol
from wsrouter.auth.tickets import Ticket
from wsrouter.identity import Authenticator, Principal

__all__ = [
    "Authenticator",
    "BadCredential",
    "Cookie",
    "Header",
    "JWKSet",
    "JWTAuth",
    "Principal",
    "Query",
    "Source",
    "Subprotocol",
    "Ticket",
]
