"""Credentials that must not get in, each with the one outcome that is documented.

Every case is a handshake that would be let in if one thing in it were not wrong. ``{good}`` in a header or a
query is a good token; ``{bad}`` is one with a wrong signature; both carry ``MARK`` in a claim.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.auth.tokens import (
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    SECRET,
    claims,
    der,
    encoded,
    jwk,
    pem,
    token,
    written,
)

Outcome = Literal["none", "bad", "expired", "server"]
"""401 without an error, 401 ``invalid_token``, the same for a token that has expired; or refused by the server itself,
by those that read the header before the application (400, or no answer), and 401 on the others."""

MARK = "attacker\x1b[31m<script>"


@dataclass(frozen=True)
class Case:
    """A handshake at a path, with what comes of it."""

    name: str
    path: str
    outcome: Outcome
    credential: Callable[[], str] | None = None
    """What is sent as ``Authorization: Bearer ...``."""
    headers: Sequence[tuple[str, str | bytes]] = ()
    query: str = ""
    hidden: Sequence[str] = field(default=())
    """What no answer and no log line may contain, besides the credential."""


def _signed_by(name: str, path: str, key: Any, algorithm: str, **headers: Any) -> Case:
    return Case(name, path, "bad", lambda: token(key, algorithm, headers))


def _claim(name: str, outcome: Outcome = "bad", **changes: Any) -> Case:
    def make() -> str:
        given: dict[str, Any] = {"aud": "chat", "iss": ISSUER}
        given.update((key, _now(value)) for key, value in changes.items())
        return token(SECRET, "HS256", None, **given)

    return Case(name, "/strict", outcome, make)


def _now(value: Any) -> Any:
    return claims()["iat"] + value.seconds if isinstance(value, FromNow) else value


@dataclass(frozen=True)
class FromNow:
    """A time, in seconds from now."""

    seconds: float


def _payload(name: str, text: str | bytes) -> Case:
    """A payload that is signed well, and is no set of claims."""
    return Case(name, "/secret", "bad", lambda: written({"alg": "HS256"}, text))


def _header(name: str, header: Any) -> Case:
    """A header that is signed well over good claims."""
    return Case(name, "/secret", "bad", lambda: written(header, claims()))


def _typed(name: str, **headers: Any) -> Case:
    def make() -> str:
        header = {key: value for key, value in {"alg": "HS256", "typ": "JWT", **headers}.items() if value is not ...}
        return written(header, claims(aud="chat", iss=ISSUER))

    return Case(name, "/strict", "bad", make)


def _changed(name: str, change: Callable[[str], str], outcome: Outcome = "bad") -> Case:
    """A good token that was changed afterwards."""
    return Case(name, "/secret", outcome, lambda: change(token()))


def _raw(name: str, outcome: Outcome, *headers: tuple[str, str | bytes], query: str = "") -> Case:
    return Case(name, "/secret", outcome, None, headers, query)


def _offered(name: str, outcome: Outcome, *lists: str) -> Case:
    return Case(name, "/secret", outcome, None, [("Sec-WebSocket-Protocol", each) for each in lists])


def _unsigned(algorithm: Any) -> Callable[[], str]:
    return lambda: f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims())}."


_STRIPPED = "".join(pem(RSA_KEY).splitlines()[1:-1])

_NO_TEXTS: Sequence[Any] = ("", None, 0, 1, True, [], ["rsa"], {})

SIGNATURES = [
    *(
        Case(f"alg {each!r}, no signature", "/secret", "bad", _unsigned(each))
        for each in ("none", "None", "NONE", "nOnE")
    ),
    *(Case(f"alg {each!r}, no signature", "/secret", "bad", _unsigned(each)) for each in _NO_TEXTS),
    Case("alg none at an RSA key", "/rsa", "bad", _unsigned("none")),
    Case("alg none at several keys", "/kids", "bad", _unsigned("none")),
    _header("alg none, signed", {"alg": "none"}),
    _header("no alg", {"typ": "JWT"}),
    _header("alg in lower case", {"alg": "hs256"}),
    _header("alg with a space", {"alg": "HS256 "}),
    _header("alg in a list", {"alg": ["HS256"]}),
    _header("alg that nobody knows", {"alg": "XS256"}),
    _signed_by("HS512 where HS256 is accepted", "/secret", SECRET, "HS512"),
    _signed_by("HS384 where HS256 is accepted", "/secret", SECRET, "HS384"),
    _signed_by("another secret", "/secret", SECRET[::-1], "HS256"),
    _signed_by("an empty secret", "/secret", "", "HS256"),
    _signed_by("a secret of zeros", "/secret", b"\0" * 32, "HS256"),
    _signed_by("RS256 at a secret", "/secret", RSA_KEY, "RS256"),
    _signed_by("ES256 at a secret", "/secret", EC_KEY, "ES256"),
    _signed_by("EdDSA at a secret", "/secret", ED_KEY, "EdDSA"),
    _signed_by("the public PEM as secret", "/rsa", pem(RSA_KEY), "HS256"),
    _signed_by("the public PEM without its last newline as secret", "/rsa", pem(RSA_KEY).strip(), "HS256"),
    _signed_by("the public PEM without header lines as secret", "/rsa", _STRIPPED, "HS256"),
    _signed_by("the public DER as secret", "/rsa", der(RSA_KEY), "HS256"),
    _signed_by("the public JWK as secret", "/rsa", json.dumps(jwk(RSA_KEY, "RS256")), "HS256"),
    _signed_by("an empty secret at an RSA key", "/rsa", "", "HS256"),
    _signed_by("another RSA key", "/rsa", OTHER_RSA_KEY, "RS256"),
    _signed_by("RS512 where RS256 is accepted", "/rsa", RSA_KEY, "RS512"),
    _signed_by("PS256 where RS256 is accepted", "/rsa", RSA_KEY, "PS256"),
    _signed_by("ES256 at an RSA key", "/rsa", EC_KEY, "ES256"),
    Case("RS256 that is signed as PS256", "/rsa", "bad", lambda: written({"alg": "RS256"}, claims(), RSA_KEY, "PS256")),
    Case(
        "RS256 that is signed with a secret", "/rsa", "bad", lambda: written({"alg": "RS256"}, claims(), pem(RSA_KEY))
    ),
    _signed_by("a key that comes along", "/rsa", OTHER_RSA_KEY, "RS256", jwk=jwk(OTHER_RSA_KEY, "RS256")),
    _signed_by("an address of keys that comes along", "/rsa", OTHER_RSA_KEY, "RS256", jku="http://127.0.0.1:1/jwks"),
    _signed_by("an address of a certificate", "/rsa", OTHER_RSA_KEY, "RS256", x5u="http://127.0.0.1:1/x5u"),
    _signed_by("a certificate that comes along", "/rsa", OTHER_RSA_KEY, "RS256", x5c=["MIIB"]),
    Case(
        "ES256 with r and s of zero",
        "/ec",
        "bad",
        lambda: f"{token(EC_KEY, 'ES256').rpartition('.')[0]}.{encoded(bytes(64))}",
    ),
    Case("ES256 with a signature too short", "/ec", "bad", lambda: token(EC_KEY, "ES256")[:-20]),
    Case("ES256 with a signature of HS256", "/ec", "bad", lambda: written({"alg": "ES256"}, claims(), pem(EC_KEY))),
    _signed_by("HS256 with the public PEM of ES256", "/ec", pem(EC_KEY), "HS256"),
    _signed_by("RS256 at an EC key", "/ec", RSA_KEY, "RS256"),
    _signed_by("EdDSA at an EC key", "/ec", ED_KEY, "EdDSA"),
    _changed("no signature", lambda good: good.rpartition(".")[0] + "."),
    _changed("a signature of zeros", lambda good: good.rpartition(".")[0] + "." + encoded(bytes(32))),
    _changed("a signature too short", lambda good: good[:-4]),
    _changed("a signature too long", lambda good: good + "AAAA"),
    _changed(
        "a signature with one letter changed", lambda good: good[:-3] + ("A" if good[-3] != "A" else "B") + good[-2:]
    ),
    _changed(
        "another token's signature", lambda good: good.rpartition(".")[0] + "." + token(sub="eve").rpartition(".")[2]
    ),
    _changed(
        "claims changed after signing",
        lambda good: ".".join((good.split(".")[0], encoded(claims(sub="eve")), good.split(".")[2])),
    ),
    _changed("a signature with bits that mean nothing", lambda good: good[:-1] + chr(ord(good[-1]) + 1)),
]

PARTS = [
    *(Case(f"the token {each!r}", "/secret", "bad", str(each).strip) for each in (".", "..", "...", "a", "a.b")),
    Case("a token of three letters", "/secret", "bad", lambda: "a.b.c"),
    _changed("a fourth part", lambda good: good + ".AAAA"),
    _changed("five parts, as of an encrypted token", lambda good: good + ".AAAA.AAAA"),
    _changed("a part in front", lambda good: "AAAA." + good),
    _changed("a dot in front", lambda good: "." + good),
    _changed("a dot at the end", lambda good: good + "."),
    _changed("two parts", lambda good: good.rpartition(".")[0]),
    _changed("an empty payload", lambda good: ".".join((good.split(".")[0], "", good.split(".")[2]))),
    _changed("an empty header", lambda good: "." + good.partition(".")[2]),
    _changed("cut in the middle", lambda good: good[: len(good) // 2]),
    _changed("twice", lambda good: good + good),
    _changed("quoted", lambda good: f'"{good}"'),
    _changed("with a space in it", lambda good: good.replace(".", ". ")),
    _changed("with a tab in it", lambda good: good.replace(".", ".\t")),
    _changed("in URL encoding", lambda good: good.replace(".", "%2E")),
    _changed("with letters beyond ASCII", lambda good: good + "é"),
    _changed("with a right-to-left mark", lambda good: "\u202e" + good),
    _changed("in full-width letters", lambda good: good.replace("e", "ｅ")),
    _changed("with a control character", lambda good: good + "\x1b[2J", "server"),
    _changed("in the other base64 alphabet", lambda good: good.replace("-", "+").replace("_", "/") + "+/"),
    _changed("in base64 twice", lambda good: base64.urlsafe_b64encode(good.encode()).decode()),
    _changed("with padding in the middle", lambda good: good.replace(".", "=====.")),
    _changed("with a NUL encoded in a part", lambda good: encoded(b"\0") + "." + good.partition(".")[2]),
    _payload("a payload that is no JSON", "sub=ada"),
    _payload("a payload that is a list", '["sub", "ada"]'),
    _payload("a payload that is a text", '"ada"'),
    _payload("a payload that is null", "null"),
    _payload("a payload that is a number", "1"),
    _payload("a payload cut off", '{"sub": "ada", "exp": 9999999999'),
    _payload("a payload in UTF-16", json.dumps({"sub": "ada"}).encode("utf-16") + b"\xff"),
    _payload("a payload that is no text", b"\xff\xfe\xfd"),
    _payload("a payload nested deep", "[" * 5000),
    _payload("claims nested deep", '{"sub": "ada", "exp": ' + "[" * 2500 + "]" * 2500 + "}"),
    _payload("a payload with a number of 5,000 digits", '{"sub": "ada", "exp": ' + "9" * 5000 + "}"),
    _header("a header that is no JSON", "alg=HS256"),
    _header("a header that is a list", ["HS256"]),
    _header("a header that is null", None),
    _header("a header nested deep", '{"alg": "HS256", "x": ' + "[" * 2500),
    _header("a header with alg twice", '{"alg": "HS256", "alg": "none"}'),
    _header("an encrypted token's header", {"alg": "RSA-OAEP", "enc": "A256GCM"}),
]  # fmt: skip

CLAIMS = [
    _claim("no exp", exp=...),
    _claim("exp of null", exp=None),
    _claim("exp in the past", "expired", exp=FromNow(-10)),
    _claim("exp a moment ago", "expired", exp=FromNow(-1)),
    _claim("exp of zero", "expired", exp=0),
    _claim("exp before 1970", "expired", exp=-1),
    _claim("exp of false", "expired", exp=False),
    _claim("exp of true", "expired", exp=True),
    _claim("exp of 1e308", exp=1e308),
    _claim("exp of -1e308", "expired", exp=-1e308),
    _claim("exp of 10 to the 400", exp=10**400),
    _claim("exp of NaN", exp=float("nan")),
    _claim("exp of Infinity", exp=float("inf")),
    _claim("exp as text", exp="9999999999"),
    _claim("exp as text that is no number", exp="tomorrow"),
    _claim("exp as full-width text", exp="９９９９９９９９９９"),
    _claim("exp in a list", exp=[9999999999]),
    _claim("exp in an object", exp={"at": 9999999999}),
    _claim("exp after the year 9999", exp=253_402_300_800, iat=253_402_300_800),
    _claim("exp further away than max_lifetime", exp=FromNow(7200)),
    _claim("a lifetime that began long ago", exp=FromNow(60), iat=FromNow(-7200)),
    _claim("nbf in the future", nbf=FromNow(60)),
    _claim("nbf as text", nbf="0"),
    _claim("nbf as text that is no number", nbf="now"),
    _claim("nbf of true", nbf=True),
    _claim("nbf of null", nbf=None),
    _claim("nbf of NaN", nbf=float("nan")),
    _claim("nbf in a list", nbf=[0]),
    _claim("nbf of 1e308", nbf=1e308),
    _claim("no iat", iat=...),
    _claim("iat in the future", iat=FromNow(60)),
    _claim("iat as text", iat="0"),
    _claim("iat of false", iat=False),
    _claim("iat of null", iat=None),
    _claim("iat of NaN", iat=float("nan")),
    _claim("iat before 1970", iat=-1),
    _claim("no aud", aud=...),
    _claim("aud of null", aud=None),
    _claim("another aud", aud="admin"),
    _claim("aud in another case", aud="Chat"),
    _claim("aud that begins like ours", aud="chat.evil"),
    _claim("aud as empty text", aud=""),
    _claim("aud as empty list", aud=[]),
    _claim("a list of other auds", aud=["admin", "chats"]),
    _claim("aud in a list with a number", aud=["chat", 1]),
    _claim("aud of true", aud=True),
    _claim("aud in an object", aud={"chat": True}),
    _claim("no iss", iss=...),
    _claim("iss of null", iss=None),
    _claim("another iss", iss="https://evil.example"),
    _claim("iss with a slash more", iss=ISSUER + "/"),
    _claim("iss in another case", iss=ISSUER.upper()),
    _claim("iss that begins like ours", iss=ISSUER + ".evil.example"),
    _claim("iss in a list", iss=[ISSUER]),
    _claim("iss of true", iss=True),
    _claim("no sub", sub=...),
    _claim("sub of null", sub=None),
    _claim("an empty sub", sub=""),
    _claim("sub that is a number", sub=7),
    _claim("sub of true", sub=True),
    _claim("sub in a list", sub=["ada"]),
    _claim("sub in an object", sub={"id": "ada"}),
    _claim("sub with a lone surrogate", sub="\ud800"),
    _claim("jti that is a number", jti=7),
    _typed("no typ", typ=...),
    _typed("another typ", typ="dpop+jwt"),
    _typed("typ of null", typ=None),
    _typed("typ that is a number", typ=1),
    _typed("typ in a list", typ=["JWT"]),
    _typed("crit that nobody understands", crit=["exp"], exp=1),
    _typed("crit of an extension that is missing", crit=["b64"]),
    _typed("crit as text", crit="b64", b64=True),
    _typed("an empty crit", crit=[]),
    _typed("crit with a number", crit=[1]),
    _typed("b64 of true, critical", crit=["b64"], b64=True),
    _typed("b64 of true", b64=True),
    _typed("b64 of false", b64=False),
    _typed("b64 of false, critical", crit=["b64"], b64=False),
    _typed("kid that is a number", kid=1),
]

KIDS = [
    Case("no kid", "/kids", "bad", lambda: token(RSA_KEY, "RS256")),
    *(
        _signed_by(f"kid {each!r}", "/kids", RSA_KEY, "RS256", kid=each)
        for each in ("unknown", "", "rsa ", "RSA", "../../etc/passwd", "' OR 1=1 --", "__proto__")
    ),
    *(
        _signed_by(f"kid {each!r}", "/kids", RSA_KEY, "RS256", kid=each)
        for each in _NO_TEXTS[1:]
    ),
    _signed_by("another key's kid", "/kids", RSA_KEY, "RS256", kid="ec"),
    _signed_by("the kid of a key for another algorithm", "/kids", EC_KEY, "ES256", kid="rsa"),
    _signed_by("a foreign key under a known kid", "/kids", OTHER_RSA_KEY, "RS256", kid="rsa"),
    _signed_by("an algorithm that the key's JWK does not name", "/kids", RSA_KEY, "PS256", kid="rsa"),
    _signed_by("a public key under a known kid as secret", "/kids", pem(RSA_KEY), "HS256", kid="rsa"),
]  # fmt: skip

PLACES = [
    _raw("nothing at all", "none"),
    _raw("two headers", "bad", ("Authorization", "Bearer {good}"), ("Authorization", "Bearer {good}")),
    _raw("a good and a bad header", "bad", ("Authorization", "Bearer {good}"), ("Authorization", "Bearer {bad}")),
    _raw("a header of another scheme", "bad", ("Authorization", "Basic YTpi"), ("Authorization", "Bearer {good}")),
    _raw("two tokens in one header", "bad", ("Authorization", "Bearer {good}, Bearer {good}")),
    _raw("two tokens after one scheme", "bad", ("Authorization", "Bearer {good} {good}")),
    _raw("a scheme without a token", "bad", ("Authorization", "Bearer")),
    _raw("a scheme with spaces for a token", "bad", ("Authorization", "Bearer   ")),
    _raw("a token as a parameter", "bad", ("Authorization", "Bearer token={good}")),
    _raw("a header without anything in it", "none", ("Authorization", "")),
    _raw("another scheme", "none", ("Authorization", "Basic YWRhOnNlY3JldA==")),
    _raw("a scheme of one letter more", "none", ("Authorization", "Bearers {good}")),
    _raw("a token without a scheme", "none", ("Authorization", "{good}")),
    _raw("a colon for a space", "none", ("Authorization", "Bearer:{good}")),
    _raw("a tab for a space", "none", ("Authorization", "Bearer\t{good}")),
    _raw("another header", "none", ("Proxy-Authorization", "Bearer {good}")),
    _raw("a header of a proxy that knows the user", "none", ("X-Forwarded-User", "ada"), ("Remote-User", "ada")),
    _raw("two cookies", "bad", ("Cookie", "session={good}; session={good}")),
    _raw("a good and a bad cookie", "bad", ("Cookie", "session={good}; other=1; session={bad}")),
    _raw("a cookie planted before the good one", "bad", ("Cookie", "session=x; session={good}")),
    _raw("cookies in two headers", "bad", ("Cookie", "session={good}"), ("Cookie", "session={good}")),
    _raw("an empty cookie", "bad", ("Cookie", "session=")),
    _raw("a cookie in quotes", "bad", ("Cookie", 'session="{good}"')),
    _raw("a cookie with a comma", "bad", ("Cookie", "session={good},session={good}")),
    _raw("a bad cookie", "bad", ("Cookie", "session={bad}")),
    _raw("a cookie in another case", "none", ("Cookie", "Session={good}")),
    _raw("a cookie that ends like ours", "none", ("Cookie", "xsession={good}")),
    _raw("a cookie without a value", "none", ("Cookie", "session")),
    _raw("a token without a cookie's name", "none", ("Cookie", "{good}")),
    _raw("a parameter twice", "bad", query="token={good}&token={good}"),
    _raw("a parameter good and bad", "bad", query="token={good}&x=1&token={bad}"),
    _raw("a parameter twice, spelled otherwise", "bad", query="token={good}&%74oken={good}"),
    _raw("an empty parameter", "bad", query="token="),
    _raw("a parameter without a value", "bad", query="token"),
    _raw("a bad parameter", "bad", query="token={bad}"),
    _raw("a parameter with a semicolon", "bad", query="token={good};token={good}"),
    _raw("a parameter that is an array", "none", query="token[]={good}"),
    _raw("a parameter in another case", "none", query="Token={good}"),
    _raw("a parameter encoded twice", "none", query="%2574oken={good}"),
    _raw("a parameter behind a semicolon", "none", query="x=1;token={good}"),
    _raw("a ticket that nobody issued", "bad", query="ticket=" + "A" * 43),
    _raw("an empty ticket", "bad", query="ticket="),
    _raw("a ticket too long", "bad", query="ticket=" + "A" * 4000),
    _raw("a ticket with other letters", "bad", query="ticket=" + "%00" * 43),
    _raw("a token for a ticket", "bad", query="ticket={good}"),
    _raw("two tickets", "bad", query="ticket=" + "A" * 43 + "&ticket=" + "A" * 43),
    _raw("a bad header before a good cookie", "bad", ("Authorization", "Bearer {bad}"), ("Cookie", "session={good}")),
    _raw("an empty header before a good query", "bad", ("Authorization", "Bearer"), query="token={good}"),
    _raw("a bad cookie before a good query", "bad", ("Cookie", "session={bad}"), query="token={good}"),
    _raw("a bad element before a good query", "bad", ("Sec-WebSocket-Protocol", "bearer.{bad}"), query="token={good}"),
    _raw("a bad query before a ticket", "bad", query="token={bad}&ticket=" + "A" * 43),
]  # fmt: skip

SUBPROTOCOLS = [
    _offered("no credential", "none", "wsrouter.v1"),
    _offered("a bad credential", "bad", "wsrouter.v1, bearer.{bad}"),
    _offered("a bad credential alone", "bad", "bearer.{bad}"),
    _offered("a bad credential in another case", "bad", "wsrouter.v1, BEARER.{bad}"),
    _offered("two credentials", "bad", "wsrouter.v1, bearer.{good}, bearer.{bad}"),
    _offered("the same credential twice", "bad", "bearer.{good}, bearer.{good}"),
    _offered("two credentials in two headers", "bad", "bearer.{good}", "wsrouter.v1, bearer.{good}"),
    _offered("two credentials in two cases", "bad", "bearer.{good}, Bearer.{good}"),
    _offered("a prefix without a credential", "bad", "wsrouter.v1, bearer."),
    _offered("a good one and a prefix without one", "bad", "bearer.{good}, bearer."),
    _offered("a bad credential among empty elements", "bad", "wsrouter.v1,, ,bearer.{bad},"),
    _offered("a prefix without a dot", "none", "wsrouter.v1, bearer"),
    _offered("a credential as an element of its own", "none", "bearer, {good}"),
    _offered("a prefix in the middle", "none", "wsrouter.v1.bearer.{good}"),
    _offered("a letter before the prefix", "none", "xbearer.{good}"),
    _offered("another separator", "none", "bearer-{good}"),
    _offered("a space in an element", "server", "bearer. {good}"),
    _offered("a space before the dot", "server", "bearer .{good}"),
    _offered("a parameter after an element", "server", "wsrouter.v1, bearer.{good};q=1"),
    _offered("an element in quotes", "server", 'wsrouter.v1, "bearer.{good}"'),
    _offered("an element with an equals sign", "server", "wsrouter.v1, bearer={good}"),
    _offered("letters beyond ASCII", "server", "wsrouter.v1, bearer.é{good}"),
]

CASES: Sequence[Case] = [*SIGNATURES, *PARTS, *CLAIMS, *KIDS, *PLACES, *SUBPROTOCOLS]
