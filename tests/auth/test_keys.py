"""Keys and options as they are configured: what is accepted, and what is refused with the cure."""

import base64
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.auth.tokens import EC_KEY, ED_KEY, OTHER_RSA_KEY, RSA_KEY, SECRET, claims, der, jwk, pem, token, written
from wsrouter import ConfigurationError, Deny
from wsrouter.auth import Cookie, Header, JWTAuth

WEAK_RSA_KEY = rsa.generate_private_key(65537, 1024)
P384_KEY = ec.generate_private_key(ec.SECP384R1())
ED448_KEY = ed448.Ed448PrivateKey.generate()


def private_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> str:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    data: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return data.decode()


def secret_jwk(secret: str = SECRET, **more: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="), **more}


def rsa_set() -> dict[str, Any]:
    return {"keys": [jwk(RSA_KEY, "RS256", kid="a"), jwk(OTHER_RSA_KEY, "RS256", kid="b")]}


ACCEPTED: dict[str, tuple[Any, list[str], str]] = {
    "a secret as text": (SECRET, ["HS256"], token()),
    "a secret as bytes": (SECRET.encode(), ["HS256"], token()),
    "a secret as JWK": (secret_jwk(), ["HS256"], token()),
    "a secret as JWK in JSON": (json.dumps(secret_jwk()), ["HS256"], token()),
    "a secret in base64": (base64.b64encode(b"\0\xff" * 20), ["HS256"], token(base64.b64encode(b"\0\xff" * 20))),
    "a secret that begins like DER": (b"0" + b"x" * 40, ["HS256"], token(b"0" + b"x" * 40)),
    "a secret in JSON that is no JWK": ('{"a": "' + SECRET + '"}', ["HS256"], token('{"a": "' + SECRET + '"}')),
    "a long secret for all of HS": ("x" * 63 + "y", ["HS256", "HS512"], token("x" * 63 + "y", "HS512")),
    "an RSA key as PEM": (pem(RSA_KEY), ["RS256"], token(RSA_KEY, "RS256")),
    "an RSA key as PEM in bytes": (pem(RSA_KEY).encode(), ["RS256", "PS512"], token(RSA_KEY, "PS512")),
    "an RSA key as JWK": (jwk(RSA_KEY, "RS256"), ["RS256"], token(RSA_KEY, "RS256")),
    "an RSA key of cryptography's": (RSA_KEY.public_key(), ["PS256"], token(RSA_KEY, "PS256")),
    "a private RSA key": (private_pem(RSA_KEY), ["RS256"], token(RSA_KEY, "RS256")),
    "a private RSA key of cryptography's": (RSA_KEY, ["RS256"], token(RSA_KEY, "RS256")),
    "a private RSA key as JWK": (
        jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEY),
        ["RS256"],
        token(RSA_KEY, "RS256"),
    ),
    "an EC key as PEM": (pem(EC_KEY), ["ES256"], token(EC_KEY, "ES256")),
    "an EC key as JWK": (jwk(EC_KEY, "ES256", use="sig", alg="ES256"), ["ES256"], token(EC_KEY, "ES256")),
    "an EC key as PyJWK": (jwt.PyJWK(jwk(EC_KEY, "ES256")), ["ES256"], token(EC_KEY, "ES256")),
    "an Ed25519 key as PEM": (pem(ED_KEY), ["EdDSA"], token(ED_KEY, "EdDSA")),
    "an Ed448 key as PEM": (pem(ED448_KEY), ["EdDSA"], token(ED448_KEY, "EdDSA")),
    "an Ed25519 key as OpenSSH": (
        ED_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        ["EdDSA"],
        token(ED_KEY, "EdDSA"),
    ),
    "a JWK set": (rsa_set(), ["RS256"], token(OTHER_RSA_KEY, "RS256", {"kid": "b"})),
    "a JWK set in JSON": (json.dumps(rsa_set()), ["RS256"], token(RSA_KEY, "RS256", {"kid": "a"})),
    "a PyJWKSet": (jwt.PyJWKSet.from_dict(rsa_set()), ["RS256"], token(RSA_KEY, "RS256", {"kid": "a"})),
    "a JWK set of one, no kid": ({"keys": [jwk(RSA_KEY, "RS256")]}, ["RS256"], token(RSA_KEY, "RS256")),
    "several by kid": (
        {"new": pem(RSA_KEY), "old": jwk(OTHER_RSA_KEY, "RS256"), "ec": EC_KEY.public_key()},
        ["RS256", "ES256"],
        token(EC_KEY, "ES256", {"kid": "ec"}),
    ),
    "secrets by kid": ({"1": SECRET, "2": secret_jwk("y" * 32)}, ["HS256"], token("y" * 32, headers={"kid": "2"})),
    "one key, whatever the kid": (SECRET, ["HS256"], token(headers={"kid": "anything"})),
    "an RSA and an EC key, each with its algorithm": (
        {"keys": [jwk(RSA_KEY, "RS256", kid="a"), jwk(P384_KEY, "ES384", kid="b")]},
        ["RS256", "ES384"],
        token(P384_KEY, "ES384", {"kid": "b"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", list(ACCEPTED))
async def test_a_key_is_taken_in_many_forms(form: str) -> None:
    """Each verifies a token that was signed with it, and none that was signed with another."""
    key, algorithms, good = ACCEPTED[form]
    auth = JWTAuth(key=key, algorithms=algorithms)
    assert (await auth.verify(good)).id == "ada"
    with pytest.raises(Deny):
        await auth.verify(good[:-8] + "AAAAAAAA")


DER_RSA = der(RSA_KEY)
STRIPPED = "".join(pem(RSA_KEY).splitlines()[1:-1])
PKCS1 = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)

PUBLIC_KEYS: dict[str, str | bytes] = {
    "PEM": pem(RSA_KEY),
    "PEM in bytes": pem(RSA_KEY).encode(),
    "PEM, indented": "\n".join("  " + line for line in pem(RSA_KEY).splitlines()),
    "PEM, with text around it": "the key:\n" + pem(RSA_KEY) + "thanks",
    "PEM, on one line": pem(RSA_KEY).replace("\n", "\\n"),
    "PEM, without header lines": STRIPPED,
    "PEM, without header lines, on many lines": "\n".join(pem(RSA_KEY).splitlines()[1:-1]),
    "PEM, without its first line": "\n".join(pem(RSA_KEY).splitlines()[1:]),
    "PEM, without its last line": "\n".join(pem(RSA_KEY).splitlines()[:-1]),
    "PEM, without dashes": "BEGIN PUBLIC KEY\n" + "\n".join(pem(RSA_KEY).splitlines()[1:-1]) + "\nEND PUBLIC KEY",
    "PEM, without padding": STRIPPED.rstrip("="),
    "PEM, in URL-safe base64": STRIPPED.replace("+", "-").replace("/", "_"),
    "PEM, in base64": base64.b64encode(pem(RSA_KEY).encode()),
    "PEM, of PKCS 1": PKCS1,
    "PEM, of PKCS 1, without header lines": b"".join(PKCS1.splitlines()[1:-1]),
    "PEM, of an EC key": pem(EC_KEY),
    "PEM, of an EC key, without header lines": "".join(pem(EC_KEY).splitlines()[1:-1]),
    "PEM, of an Ed25519 key, without header lines": "".join(pem(ED_KEY).splitlines()[1:-1]),
    "PEM, of a private key": private_pem(RSA_KEY),
    "PEM, of a private key, without header lines": "".join(private_pem(EC_KEY).splitlines()[1:-1]),
    "PEM, of an encrypted private key, without header lines": "".join(
        private_pem(EC_KEY, password=b"x").splitlines()[1:-1]
    ),
    "DER": DER_RSA,
    "DER, in base64": base64.b64encode(DER_RSA),
    "DER, in hex": DER_RSA.hex(),
    "OpenSSH": RSA_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "OpenSSH, of an EC key": EC_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "a JWK": json.dumps(jwk(RSA_KEY, "RS256")),
    "a JWK set": json.dumps(rsa_set()),
}


@pytest.mark.parametrize("form", list(PUBLIC_KEYS))
def test_a_public_key_is_no_secret(form: str) -> None:
    """However it is wrapped: with it everybody could sign. The text does not quote it."""
    with pytest.raises(ConfigurationError, match="HS256") as refused:
        JWTAuth(key=PUBLIC_KEYS[form], algorithms=["HS256"])
    assert STRIPPED[40:60] not in str(refused.value)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no algorithms": (lambda: JWTAuth(key=SECRET, algorithms=[]), r"name those that your tokens are signed with"),
    "algorithms as text": (lambda: JWTAuth(key=SECRET, algorithms="HS256"), r"write \[\.\.\.\] around it"),
    "none": (lambda: JWTAuth(key=SECRET, algorithms=["none"]), "leave it out"),
    "None among others": (lambda: JWTAuth(key=SECRET, algorithms=["HS256", "None"]), "leave it out"),
    "NONE with spaces": (lambda: JWTAuth(key=SECRET, algorithms=[" NONE "]), "leave it out"),
    "an unknown algorithm": (lambda: JWTAuth(key=SECRET, algorithms=["HS265"]), "'HS265' is not known"),
    "an algorithm in another case": (lambda: JWTAuth(key=SECRET, algorithms=["hs256"]), "'hs256' is not known"),
    "both sorts": (lambda: JWTAuth(key=SECRET, algorithms=["HS256", "RS256"]), "taken for a secret"),
    "a short secret": (lambda: JWTAuth(key="short", algorithms=["HS256"]), "5 bytes long.*32 bytes"),
    "a secret short for one": (lambda: JWTAuth(key=SECRET, algorithms=["HS256", "HS512"]), "37 bytes long.*64 bytes"),
    "a short secret as JWK": (lambda: JWTAuth(key=secret_jwk("short"), algorithms=["HS256"]), "5 bytes long"),
    "a short secret among others": (
        lambda: JWTAuth(key={"a": SECRET, "b": "short"}, algorithms=["HS256"]),
        "kid 'b': .*5 bytes",
    ),
    "an empty secret": (lambda: JWTAuth(key="", algorithms=["HS256"]), "needs a secret"),
    "a weak RSA key": (lambda: JWTAuth(key=pem(WEAK_RSA_KEY), algorithms=["RS256"]), "1024 bits long.*2048"),
    "a weak RSA key as JWK": (lambda: JWTAuth(key=jwk(WEAK_RSA_KEY, "RS256"), algorithms=["RS256"]), "1024 bits"),
    "a secret for RS256": (lambda: JWTAuth(key=SECRET, algorithms=["RS256"]), "needs an RSA public key"),
    "an EC key for RS256": (lambda: JWTAuth(key=pem(EC_KEY), algorithms=["RS256"]), "needs an RSA public key"),
    "an RSA key for ES256 too": (lambda: JWTAuth(key=pem(RSA_KEY), algorithms=["RS256", "ES256"]), "leave ES256 out"),
    "another curve": (lambda: JWTAuth(key=pem(P384_KEY), algorithms=["ES256"]), "curve"),
    "an encrypted PEM": (
        lambda: JWTAuth(key=private_pem(RSA_KEY, password=b"x"), algorithms=["RS256"]),
        "can't be read",
    ),
    "no PEM": (lambda: JWTAuth(key="-----BEGIN PUBLIC KEY-----\nAAAA\n", algorithms=["RS256"]), "can't be read"),
    "a number": (lambda: JWTAuth(key=7, algorithms=["HS256"]), "needs a secret"),
    "no key": (lambda: JWTAuth(algorithms=["HS256"]), "give either key=, or jwks_url="),
    "an empty mapping": (lambda: JWTAuth(key={}, algorithms=["HS256"]), "no key in it"),
    "an empty JWK set": (lambda: JWTAuth(key={"keys": []}, algorithms=["RS256"]), "no key in it"),
    "a mapping without names": (lambda: JWTAuth(key={1: SECRET}, algorithms=["HS256"]), "mapping of kid to key"),
    "a JWK set without kids": (
        lambda: JWTAuth(key={"keys": [jwk(RSA_KEY, "RS256"), jwk(OTHER_RSA_KEY, "RS256")]}, algorithms=["RS256"]),
        "each needs a 'kid'",
    ),
    "a JWK set with a kid twice": (
        lambda: JWTAuth(
            key={"keys": [jwk(RSA_KEY, "RS256", kid="a"), jwk(OTHER_RSA_KEY, "RS256", kid="a")]}, algorithms=["RS256"]
        ),
        "two keys go by that name",
    ),
    "a JWK for encryption": (
        lambda: JWTAuth(key=jwk(RSA_KEY, "RS256", use="enc"), algorithms=["RS256"]),
        "not for signatures",
    ),
    "a JWK to encrypt with": (
        lambda: JWTAuth(key=jwk(RSA_KEY, "RS256", key_ops=["encrypt"]), algorithms=["RS256"]),
        "not for signatures",
    ),
    "a JWK of another algorithm": (
        lambda: JWTAuth(key=jwk(RSA_KEY, "RS256", alg="RS512"), algorithms=["RS256"]),
        "for the algorithm 'RS512'",
    ),
    "a JWK of another type": (lambda: JWTAuth(key=jwk(EC_KEY, "ES256"), algorithms=["RS256"]), "of type 'EC'"),
    "a JWK of no type": (lambda: JWTAuth(key={"kty": None}, algorithms=["RS256"]), "of type None"),
    "a JWK of a secret for RS256": (lambda: JWTAuth(key=secret_jwk(), algorithms=["RS256"]), "of type 'oct'"),
    "a JWK whose alg does not fit its type": (
        lambda: JWTAuth(key=secret_jwk(alg="RS256"), algorithms=["HS256"]),
        "for the algorithm 'RS256'",
    ),
    "a broken JWK": (lambda: JWTAuth(key={"kty": "RSA", "n": "AA"}, algorithms=["RS256"]), "can't be read"),
    "a PyJWK of another algorithm": (
        lambda: JWTAuth(key=jwt.PyJWK(jwk(RSA_KEY, "RS256")), algorithms=["PS256"]),
        "one for RS256",
    ),
    "require as text": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], require="exp"), "around it"),
    "a misspelt claim": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], require=["expires"]), "'expires' is no"),
    "an empty audience": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], audience=""), "audience=''"),
    "no audiences": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], audience=[]), r"audience=\[\]"),
    "an audience of a number": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], audience=[1]), "audience"),  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    "an issuer of a number": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], issuer=1), "issuer=1"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "no types": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], types=[]), r"types=\[\]"),
    "a negative leeway": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], leeway=-1), "leeway=-1"),
    "a leeway of NaN": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], leeway=float("nan")), "leeway=nan"),
    "a leeway for ever": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], leeway=float("inf")), "leeway=inf"),
    "a lifetime of nothing": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], max_lifetime=0), "max_lifetime=0"),
    "a negative grace": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], expiry_grace=-1), "expiry_grace=-1"),
    "no interval": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], revalidate_every=0), "revalidate_every=0"),
    "no sources": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], sources=[]), "list of sources"),
    "a source without a list": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], sources=Header()), "list of"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "a source as a class": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Cookie]), "list of"),  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    "a realm that breaks out": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], realm='a", b="c'), "realm"),
    "a realm with a line end": (lambda: JWTAuth(key=SECRET, algorithms=["HS256"], realm="a\r\nb"), "realm"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_can_not_be_meant_is_refused(what: str) -> None:
    """When JWTAuth is made, with what came and what to write instead; a secret is not quoted."""
    make, match = REFUSED[what]
    with pytest.raises(ConfigurationError, match=match) as refused:
        make()
    assert SECRET not in str(refused.value)


def test_an_option_that_does_not_exist_is_refused() -> None:
    """PyJWT would ignore a misspelt option in silence."""
    with pytest.raises(TypeError, match="audiences"):
        JWTAuth(key=SECRET, algorithms=["HS256"], audiences="chat")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "an audience": ({"audience": "chat"}, {"aud": "chat"}, True),
    "one of several audiences": ({"audience": ["chat", "admin"]}, {"aud": ["x", "admin"]}, True),
    "none of several audiences": ({"audience": ["chat", "admin"]}, {"aud": ["x"]}, False),
    "an audience that nobody asked for": ({}, {"aud": "chat"}, False),
    "one of several issuers": ({"issuer": ["a", "b"]}, {"iss": "b"}, True),
    "a part of an issuer": ({"issuer": ["abc"]}, {"iss": "b"}, False),
    "a part of the one issuer": ({"issuer": "abc"}, {"iss": "b"}, False),
    "an issuer that nobody asked for": ({}, {"iss": "b"}, True),
    "within leeway after exp": ({"leeway": 30}, {"exp": -10}, True),
    "beyond leeway after exp": ({"leeway": 30}, {"exp": -40}, False),
    "within leeway before nbf": ({"leeway": 30}, {"nbf": 10}, True),
    "beyond leeway before nbf": ({"leeway": 30}, {"nbf": 40}, False),
    "within leeway before iat": ({"leeway": 30}, {"iat": 10}, True),
    "no exp where none is required": ({"require": ["sub"]}, {"exp": ...}, True),
    "no sub where none is required": ({"require": ["exp"]}, {"sub": ...}, True),
    "an empty sub where none is required": ({"require": ["exp"]}, {"sub": ""}, True),
    "a number for a sub where none is required": ({"require": ["exp"]}, {"sub": 7}, False),
    "no jti where one is required": ({"require": ["exp", "jti"]}, {}, False),
    "a short life": ({"max_lifetime": 120}, {"exp": 60}, True),
    "a long life": ({"max_lifetime": 30}, {"exp": 60}, False),
    "a long life without iat": ({"max_lifetime": 30}, {"exp": 60, "iat": ...}, False),
    "a short life without iat": ({"max_lifetime": 120}, {"exp": 60, "iat": ...}, True),
    "no end where a bound is set": ({"max_lifetime": 120, "require": ["sub"]}, {"exp": ...}, False),
}


@pytest.mark.parametrize("what", list(OPTIONS))
async def test_an_option_does_what_it_says(what: str) -> None:
    """Times in the claims are in seconds from now."""
    options, changes, good = OPTIONS[what]
    now = claims()["iat"]
    changes = {
        name: now + value if name in ("exp", "nbf", "iat") and isinstance(value, int) else value
        for name, value in changes.items()
    }
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], **options)
    try:
        await auth.verify(token(SECRET, "HS256", None, **changes))
    except Deny as denied:
        assert (denied.status, good) == (401, False)  # noqa: PT017 (one table for both outcomes)
    else:
        assert good


@pytest.mark.parametrize(
    ("types", "typ", "good"),
    [
        (["at+jwt"], "at+jwt", True),
        (["at+jwt"], "AT+JWT", True),
        (["at+jwt"], "application/at+jwt", True),
        (["application/at+jwt"], "at+jwt", True),
        (["at+jwt", "JWT"], "jwt", True),
        ("at+jwt", "at+jwt", True),
        (["at+jwt"], "JWT", False),
        (["at+jwt"], "at+jwt ", False),
        (["at+jwt"], "application/application/at+jwt", False),
    ],
)
async def test_the_type_of_a_token(types: Any, typ: str, good: bool) -> None:
    """Types are compared without case, with and without ``application/``."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], types=types)
    text = written({"alg": "HS256", "typ": typ}, claims())
    if good:
        assert (await auth.verify(text)).id == "ada"
    else:
        with pytest.raises(Deny):
            await auth.verify(text)


async def test_a_principal_has_what_was_signed() -> None:
    """Id, scopes, claims and expiry; a scope that is no text gives none."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"])
    user = await auth.verify(token(scope="chat:read  chat:write", exp=4102444800.5))
    assert (user.id, sorted(user.scopes)) == ("ada", ["chat:read", "chat:write"])
    assert (user.expires_at, user.claims["scope"]) == (4102444800.5, "chat:read  chat:write")
    for scope in (["chat:write"], None, 7, {"chat:write": True}):
        assert (await auth.verify(token(scope=scope))).scopes == frozenset()
