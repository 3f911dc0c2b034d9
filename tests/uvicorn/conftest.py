"""A certificate for 127.0.0.1, and each event loop that a server may run on."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Run = Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True)
class Certificate:
    """Of a server on 127.0.0.1, signed by itself."""

    file: Path
    key_file: Path

    @property
    def options(self) -> dict[str, Any]:
        """What uvicorn takes."""
        return {"ssl_certfile": str(self.file), "ssl_keyfile": str(self.key_file)}

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client takes."""
        return ssl.create_default_context(cafile=str(self.file))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.file.write_bytes(signed.public_bytes(Encoding.PEM))
    made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on asyncio's event loop, and on uvloop's."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Certificate | None:
    """The certificate, and none."""
    if request.param == "plain":
        return None
    made: Certificate = request.getfixturevalue("certificate")
    return made
