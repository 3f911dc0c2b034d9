"""Keys and tokens for tests: good ones, and what an attacker would write."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a secret of at least thirty-two bytes"
ISSUER = "https://issuer.example"

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    """Return the public half of a private key as PEM."""
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def der(key: Any) -> bytes:
    """Return the public half of a private key as DER."""
    data: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


def jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """Return the public half of a private key as JWK."""
    method: Any = jwt.get_algorithm_by_name(algorithm)
    data: dict[str, Any] = method.to_jwk(key.public_key(), as_dict=True)
    data.pop("key_ops", None)
    return {**data, **more}


def claims(**changes: Any) -> dict[str, Any]:
    """Return claims of a good token, changed; ``...`` takes one out."""
    now = int(time.time())
    good = {"sub": "ada", "exp": now + 1800, "iat": now, **changes}
    return {name: value for name, value in good.items() if value is not ...}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """Return a signed token with `claims`."""
    return written({"alg": algorithm, "typ": "JWT", **(headers or {})}, claims(**changes), key, algorithm)


def written(header: Any, payload: Any, key: Any = SECRET, algorithm: str = "HS256") -> str:
    """Return a token with any header and payload, JSON or not, and a signature that is right for them."""
    signed = f"{encoded(header)}.{encoded(payload)}"
    return f"{signed}.{signature(signed, key, algorithm)}"


def signature(signed: str, key: Any = SECRET, algorithm: str = "HS256") -> str:
    """Return the signature of the first two parts of a token, however weak the key."""
    if algorithm.startswith("HS"):
        secret = key.encode() if isinstance(key, str) else key
        return encoded(hmac.new(secret, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest())
    method: Any = jwt.get_algorithm_by_name(algorithm)
    return encoded(method.sign(signed.encode(), key))


def encoded(part: Any) -> str:
    """Return bytes, text or JSON as a part of a token."""
    data = part.encode() if isinstance(part, str) else part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
