"""Origins as clients may write them, and whether each gets in.

The table that `test_guards_origins.py` sends, over real servers. ``IN`` is let in; ``OUT`` is denied by the guard;
``REFUSED`` may be denied by the guard, or by the server before it, since it is no proper HTTP.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Outcome: TypeAlias = Literal["in", "out", "refused"]
IN: Final = "in"
OUT: Final = "out"
REFUSED: Final = "refused"

ALLOWED: Final = (
    "https://app.example",
    "https://app.example:8443",
    "HTTP://Dev.Example:3000",
    "https://*.wild.example",
    "https://*.ports.example:444",
    "https://bücher.example",
    "https://[2001:DB8:0:0::1]",
    "https://192.0.2.7",
    "capacitor://localhost",
)


@dataclass(frozen=True)
class Case:
    """The values of the ``Origin`` headers of one handshake, and what comes of it."""

    what: str
    values: tuple[str | bytes, ...]
    outcome: Outcome


def case(what: str, outcome: Outcome, *values: str | bytes) -> Case:
    return Case(what, values, outcome)


CASES: Final = (
    case("as it is listed", IN, "https://app.example"),
    case("with another case", IN, "HTTPS://APP.Example"),
    case("with the default port", IN, "https://app.example:443"),
    case("with a listed port", IN, "https://app.example:8443"),
    case("listed in another case", IN, "http://dev.example:3000"),
    case("a subdomain", IN, "https://a.wild.example"),
    case("a subdomain of a subdomain", IN, "https://a.b.wild.example"),
    case("a subdomain with the listed port", IN, "https://a.ports.example:444"),
    case("an international name as browsers send it", IN, "https://xn--bcher-kva.example"),
    case("IPv6", IN, "https://[2001:db8::1]"),
    case("IPv6 written out", IN, "https://[2001:0db8:0000:0000:0000:0000:0000:0001]:443"),
    case("IPv4", IN, "https://192.0.2.7"),
    case("a scheme of an app", IN, "capacitor://localhost"),
    case("white space around the value, which HTTP strips", IN, " https://app.example "),
    case("http for https", OUT, "http://app.example"),
    case("http on the port of https", OUT, "http://app.example:443"),
    case("https for http", OUT, "https://dev.example:3000"),
    case("wss for https", OUT, "wss://app.example"),
    case("another port", OUT, "https://app.example:444"),
    case("the port that is listed for another", OUT, "https://app.example:3000"),
    case("without the port that is listed", OUT, "http://dev.example"),
    case("a port with a leading zero", OUT, "https://app.example:0443"),
    case("a port beyond", OUT, "https://app.example:65979"),
    case("a port that is none", OUT, "https://app.example:https"),
    case("a port with a sign", OUT, "https://app.example:+443"),
    case("an empty port", OUT, "https://app.example:"),
    case("a longer top level", OUT, "https://app.example.evil"),
    case("a name that ends alike", OUT, "https://evil-app.example"),
    case("a name that ends alike, without a hyphen", OUT, "https://evilapp.example"),
    case("a subdomain where none is listed", OUT, "https://evil.app.example"),
    case("the parent", OUT, "https://example"),
    case("a name that begins alike", OUT, "https://app.exampl"),
    case("the domain of a wildcard", OUT, "https://wild.example"),
    case("a name that ends like a wildcard's", OUT, "https://evilwild.example"),
    case("a wildcard's domain below another", OUT, "https://a.wild.example.evil"),
    case("a subdomain over http", OUT, "http://a.wild.example"),
    case("a subdomain with another port", OUT, "https://a.wild.example:444"),
    case("a subdomain without the listed port", OUT, "https://a.ports.example"),
    case("the wildcard itself", OUT, "https://*.wild.example"),
    case("an empty subdomain", OUT, "https://.wild.example"),
    case("an empty label", OUT, "https://a..wild.example"),
    case("a trailing dot", OUT, "https://app.example."),
    case("a trailing dot below a wildcard", OUT, "https://a.wild.example."),
    case("user information", OUT, "https://user@app.example"),
    case("user information that looks like a host", OUT, "https://app.example@evil.example"),
    case("user and password", OUT, "https://app.example:443@evil.example"),
    case("empty user information", OUT, "https://@app.example"),
    case("a path", OUT, "https://app.example/path"),
    case("a slash", OUT, "https://app.example/"),
    case("a query", OUT, "https://app.example?x"),
    case("an empty query", OUT, "https://app.example?"),
    case("a fragment", OUT, "https://app.example#x"),
    case("a fragment that hides a host", OUT, "https://evil.example#.wild.example"),
    case("a query that hides a host", OUT, "https://evil.example?.wild.example"),
    case("a path that hides a host", OUT, "https://evil.example/.wild.example"),
    case("a backslash", OUT, "https://evil.example\\.wild.example"),
    case("backslashes for slashes", OUT, "https:\\\\app.example"),
    case("percent-encoding", OUT, "https://app%2eexample"),
    case("a percent-encoded slash", OUT, "https://evil.example%2f.wild.example"),
    case("a space within", OUT, "https://app. example"),
    case("a space that hides a host", OUT, "https://evil.example .wild.example"),
    case("a tab within", REFUSED, "https://app.\texample"),
    case("a NUL", REFUSED, b"https://app.example\x00"),
    case("a carriage return", REFUSED, b"https://app.example\rhttps://evil.example"),
    case("empty", OUT, ""),
    case("no host", OUT, "https://"),
    case("no scheme", OUT, "app.example"),
    case("no slashes", OUT, "https:app.example"),
    case("one slash", OUT, "https:/app.example"),
    case("three slashes", OUT, "https:///app.example"),
    case("an unknown scheme", OUT, "javascript://app.example"),
    case("an app's scheme with a port", OUT, "capacitor://localhost:443"),
    case("file", OUT, "file://"),
    case("null, which is not listed", OUT, "null"),
    case("null in another case", OUT, "NULL"),
    case("a wildcard for all", OUT, "*"),
    case("very long", OUT, "https://" + "a." * 3000 + "wild.example"),
    case("a label that is too long", OUT, "https://" + "a" * 64 + ".wild.example"),
    case("a name that is too long", OUT, "https://" + "a." * 130 + "wild.example"),
    case("a label that begins with a hyphen", OUT, "https://-a.wild.example"),
    case("bytes of UTF-8", OUT, "https://bücher.example".encode()),
    case("bytes of latin-1", OUT, "https://bücher.example".encode("latin-1")),
    case("a homograph in UTF-8", OUT, "https://аpp.example".encode()),
    case("a homograph in punycode", OUT, "https://xn--pp-6kc.example"),
    case("full-width letters", OUT, "https://ａpp.example".encode()),
    case("an ideographic full stop", OUT, "https://app。example".encode()),
    case("the Kelvin sign, whose lower case is k", OUT, "https://\u212a.wild.example".encode()),
    case("another IPv6 address", OUT, "https://[2001:db8::2]"),
    case("IPv6 without brackets", OUT, "https://2001:db8::1"),
    case("IPv6 with a zone", OUT, "https://[2001:db8::1%25eth0]"),
    case("IPv6 without its end", OUT, "https://[2001:db8::1"),
    case("half an IPv6 address", OUT, "https://[2001:db8]"),
    case("IPv4 as one number", OUT, "https://3221225991"),
    case("IPv4 in hexadecimal", OUT, "https://0xc0.0x0.0x2.0x7"),
    case("IPv4 with leading zeros", OUT, "https://192.0.02.7"),
    case("IPv4 in IPv6", OUT, "https://[::ffff:192.0.2.7]"),
    case("several origins in one header", OUT, "https://app.example https://evil.example"),
    case("the same origin twice in one header", OUT, "https://app.example https://app.example"),
    case("headers joined by a comma", OUT, "https://app.example, https://evil.example"),
    case("headers joined by a comma without a space", OUT, "https://app.example,https://app.example"),
    case("a comma at the end", OUT, "https://app.example,"),
    case("two headers", REFUSED, "https://app.example", "https://evil.example"),
    case("two headers, the listed one last", REFUSED, "https://evil.example", "https://app.example"),
    case("the same header twice", REFUSED, "https://app.example", "https://app.example"),
)
