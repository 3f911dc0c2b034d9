"""The keys that tokens are verified with: what an application gives, checked when it is configured."""

import base64
import binascii
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from wsrouter.errors import ConfigurationError

SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES256K", "ES384", "ES512", "EdDSA"}
)
_KEY_TYPES: Final[Mapping[str, str]] = {"HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_NEEDS: Final[Mapping[str, str]] = {
    "HS": "a secret (str or bytes), or a JWK of type oct",
    "RS": "an RSA public key, as PEM or JWK",
    "PS": "an RSA public key, as PEM or JWK",
    "ES": "a public key of the algorithm's curve, as PEM or JWK",
    "Ed": "an Ed25519 or Ed448 public key, as PEM or JWK",
}


class UnknownKey(Exception):
    """No key goes by the ``kid`` of a token, or it names none and there are several."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the algorithms that a token may use with it."""

    material: Any
    """What PyJWT takes: bytes of a secret, or a public key of cryptography's."""

    algorithms: Sequence[str]


def check_algorithms(algorithms: Collection[str]) -> Sequence[str]:
    """Return the algorithms that are accepted, each once.

    Raises:
        ConfigurationError: none, ``none``, unknown ones, or symmetric beside asymmetric ones.
    """
    shown = f"JWTAuth(algorithms={algorithms!r})"
    if isinstance(algorithms, str) or not isinstance(algorithms, Collection):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{shown}: expected a list; write [...] around it")
    given = list(dict.fromkeys(algorithms))
    if not given:
        raise ConfigurationError(f"{shown}: name those that your tokens are signed with, such as ['RS256']")
    if any(str(each).strip().lower() == "none" for each in given):
        raise ConfigurationError(f"{shown}: 'none' is no signature, anybody could write such a token; leave it out")
    unknown = [each for each in given if each not in SYMMETRIC | ASYMMETRIC]
    if unknown:
        known = ", ".join(sorted(SYMMETRIC | ASYMMETRIC))
        raise ConfigurationError(f"{shown}: {unknown[0]!r} is not known; expected some of {known}")
    if not SYMMETRIC.isdisjoint(given) and not ASYMMETRIC.isdisjoint(given):
        raise ConfigurationError(
            f"{shown}: a public key could be taken for a secret; keep HS* or the others, and make a second JWTAuth"
            " if you need both"
        )
    return given


class KeyRing:
    """The keys of an application: one, or several by ``kid``.

    Args:
        key: a secret, PEM, JWK (mapping or JSON text), PyJWK or key of cryptography's; or several of them: a JWK
            set, or a mapping of ``kid`` to key.
        algorithms: what `check_algorithms` returned.

    Raises:
        ConfigurationError: a key is weak, or can't be used with these algorithms, or an algorithm has none.
    """

    def __init__(self, key: object, algorithms: Sequence[str]) -> None:
        self._by_kid: dict[str, Key] = {}
        given = list(_given(key, None))
        for kid, each in given:
            shown = "JWTAuth(key=...)" if kid is None else f"JWTAuth(key=...), kid {kid!r}"
            if kid is None and len(given) > 1:
                raise ConfigurationError(f"{shown}: with several keys each needs a 'kid', by which a token names it")
            if kid in self._by_kid:
                raise ConfigurationError(f"{shown}: two keys go by that name")
            self._by_kid[kid or ""] = _checked(each, algorithms, shown)
        if not self._by_kid:
            raise ConfigurationError("JWTAuth(key=...): there is no key in it")
        usable = {algorithm for each in self._by_kid.values() for algorithm in each.algorithms}
        for algorithm in algorithms:
            if algorithm not in usable:
                raise ConfigurationError(
                    f"JWTAuth(key=..., algorithms={list(algorithms)}): no key fits {algorithm}, which needs"
                    f" {_NEEDS[algorithm[:2]]}; give one, or leave {algorithm} out"
                )
        self.sole: Key | None = next(iter(self._by_kid.values())) if len(self._by_kid) == 1 else None
        """The key, where there is only one: then it does not matter how a token names it."""

    async def find(self, kid: str | None, algorithm: object) -> Key:
        """Return the key of a token by what its header says.

        Raises:
            UnknownKey: none goes by that name.
        """
        key = self.sole or self._by_kid.get(kid or "")
        if key is None:
            raise UnknownKey
        return key

    async def aclose(self) -> None:
        """Nothing to release."""


def _given(key: Any, kid: str | None) -> Iterator[tuple[str | None, Any]]:
    """Yield every key in what the application gave, with its ``kid``."""
    if isinstance(key, str | bytes):
        key = _jwk_in(key) or key
    if isinstance(key, jwt.PyJWK):
        yield key.key_id if kid is None else kid, key
    elif isinstance(key, jwt.PyJWKSet):
        for each in key.keys:
            yield each.key_id, each
    elif isinstance(key, Mapping):
        data: Mapping[Any, Any] = key  # pyright: ignore[reportUnknownVariableType]
        if "kty" in data:
            yield data.get("kid") if kid is None else kid, dict(data)
        elif isinstance(data.get("keys"), list):
            for each in data["keys"]:
                yield from _given(each, None)
        else:
            for name, each in data.items():
                if not isinstance(name, str) or not name:
                    raise ConfigurationError(
                        f"JWTAuth(key=...): expected a mapping of kid to key, or a JWK, got the key {name!r} in it"
                    )
                yield from _given(each, name)
    else:
        yield kid, key


def _jwk_in(text: str | bytes) -> Any:
    """Return the JWK or JWK set that a text is, ``None`` if it is none."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast(object, data) if isinstance(data, dict) and ("kty" in data or "keys" in data) else None


def _checked(key: Any, algorithms: Sequence[str], shown: str) -> Key:
    """Return a key with those of the algorithms that it can be used with.

    Raises:
        ConfigurationError: there are none, or the key is weak.
    """
    try:
        found = usable(key, algorithms)
    except WeakKey as exc:
        raise ConfigurationError(f"{shown}: {exc}") from None
    except NotUsable as exc:
        needs = " or ".join(dict.fromkeys(_NEEDS[algorithm[:2]] for algorithm in algorithms))
        raise ConfigurationError(f"{shown}: {exc}; {list(algorithms)} needs {needs}") from None
    return found


class NotUsable(Exception):
    """A key can't be used with any of the algorithms. The text does not show the key."""


class WeakKey(Exception):
    """A key is too short for an algorithm. The text does not show the key."""


def usable(key: Any, algorithms: Sequence[str]) -> Key:
    """Return a key with those of some algorithms that it can be used with.

    Args:
        key: one key, in any of the forms that `KeyRing` takes.
        algorithms: all symmetric, or all asymmetric.

    Raises:
        NotUsable: it fits none of them, or is not for signatures.
        WeakKey: it is too short for one that it fits.
    """
    material, admitted = key, algorithms
    jwk: dict[str, Any] | None = None
    if isinstance(key, jwt.PyJWK):
        material, admitted = key.key, [each for each in algorithms if each == key.algorithm_name]
        if not admitted:
            raise NotUsable(f"the PyJWK is one for {key.algorithm_name}")
    elif isinstance(key, Mapping):
        jwk = dict(cast(Mapping[str, Any], key))
        admitted = _admitted_by(jwk, algorithms)
    elif isinstance(key, str | bytes) and not SYMMETRIC.isdisjoint(algorithms) and is_public(key):
        raise NotUsable("this is an asymmetric key or a certificate, which everybody may know, not a secret")
    fitting: dict[str, Any] = {}
    for algorithm in admitted:
        method = jwt.get_algorithm_by_name(algorithm)
        try:
            prepared: Any = method.prepare_key(material if jwk is None else method.from_jwk(jwk))
        except (jwt.PyJWTError, TypeError, ValueError, KeyError, AttributeError, UnsupportedAlgorithm):
            continue
        weakness = method.check_key_length(prepared)
        if weakness:
            raise WeakKey(weakness)
        fitting[algorithm] = prepared.public_key() if hasattr(prepared, "public_key") else prepared
    if not fitting:
        raise NotUsable("this key can't be read, or is of another type")
    return Key(next(iter(fitting.values())), list(fitting))


def _admitted_by(key: Mapping[str, Any], algorithms: Sequence[str]) -> Sequence[str]:
    """Return the algorithms that a JWK admits by what it says of itself (RFC 7517, section 4)."""
    if key.get("use", "sig") != "sig":
        raise NotUsable(f"the JWK is for {key['use']!r}, not for signatures")
    operations: Any = key.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not ("verify" in operations or "sign" in operations):
        raise NotUsable("the JWK is not for signatures")
    admitted = [each for each in algorithms if _KEY_TYPES[each[:2]] == key.get("kty")]
    if not admitted:
        raise NotUsable(f"the JWK is of type {key.get('kty')!r}")
    if key.get("alg") is not None:
        admitted = [each for each in admitted if each == key["alg"]]
        if not admitted:
            raise NotUsable(f"the JWK is for the algorithm {key['alg']!r}")
    return admitted


def is_public(secret: str | bytes) -> bool:
    """Whether what is given as a secret is an asymmetric key or a certificate, however it is wrapped.

    PEM, with its header lines or without, OpenSSH, DER, and any of them in base64 or hex are recognised.
    """
    data = secret.encode() if isinstance(secret, str) else secret
    lines = [line.strip() for line in data.splitlines()]
    body = b"".join(line for line in lines if line and b"-" * 4 not in line and b" " not in line)
    candidates = [data, data.strip()]
    for text in (b"".join(data.split()), body):
        candidates += _decoded(text)
    return any(_is_key(each) or any(map(_is_key, _decoded(b"".join(each.split())))) for each in candidates)


def _decoded(text: bytes) -> list[bytes]:
    found: list[bytes] = []
    padded = text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4)
    for alternative in (None, b"-_"):
        try:
            found.append(base64.b64decode(padded, alternative, validate=True))
        except (binascii.Error, ValueError):
            continue
    with suppress(binascii.Error, ValueError):
        found.append(binascii.unhexlify(text))
    return found


_LOADERS: Final[Sequence[Callable[[bytes], object]]] = (
    load_der_public_key,
    lambda data: load_der_private_key(data, None),
    x509.load_der_x509_certificate,
)


def _is_key(data: bytes) -> bool:
    if b"-----BEGIN " in data or b"---- BEGIN " in data or data.startswith((b"ssh-", b"ecdsa-sha2-")):
        return True
    if not data.startswith(b"\x30"):  # every DER structure of a key is a SEQUENCE
        return False
    for load in _LOADERS:
        try:
            load(data)
        except TypeError:  # an encrypted private key
            return True
        except (ValueError, UnsupportedAlgorithm):
            continue
        return True
    return False
