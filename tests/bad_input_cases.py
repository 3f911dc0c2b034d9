"""Everything a client may send that is not a message, and the one answer that each has.

The table that `test_bad_input.py` sends, over a real server. A case is sent to the handler of its class (`PATHS`,
by default ``/envelope``), and answered in one of four ways:

- `Error`: an ``$error`` frame with that code, and the connection lives;
- `Closed`: a close frame with that code;
- `Reply`: that very frame, where the input looks odd and is in order;
- `IGNORED`: nothing, and the connection lives.

No error frame repeats a value of its input: `SECRET` is in many of them, and in no answer.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

SECRET: Final = "hunter2"
LIMIT: Final = 64 * 1024
"""Bytes of one message, `Limits.message_size` as it is by default."""

Frame: TypeAlias = str | bytes | Sequence[str]
"""A text frame, a binary frame, or the fragments of a text message."""


@dataclass(frozen=True)
class Error:
    """An ``$error`` frame."""

    code: str
    id: str | int | None = None
    loc: Sequence[str | int] | None = None
    """Where the first of ``details`` points; ``None`` where there are none."""


@dataclass(frozen=True)
class Closed:
    """A close frame."""

    code: int


@dataclass(frozen=True)
class Reply:
    """A frame that is no error."""

    frame: Mapping[str, Any]


@dataclass(frozen=True)
class Ignored:
    """Nothing at all."""


Answer: TypeAlias = Error | Closed | Reply | Ignored
IGNORED: Final = Ignored()
INVALID: Final = Error("invalid")
UNKNOWN: Final = Error("unknown_type")


@dataclass(frozen=True)
class Case:
    """One frame and its answer."""

    what: str
    frame: Frame
    answer: Answer


def message(type: str, data: Any, id: Any = 1) -> str:
    """Return a frame with an id, and with whatever Python's own encoder makes of the data."""
    return json.dumps({"type": type, "id": id, "data": data})


def literal(type: str, data: str) -> str:
    """Return a frame with an id, whose data is given as it is written."""
    return f'{{"type": "{type}", "id": 1, "data": {data}}}'


def without_id(type: str, data: str) -> str:
    """Return a frame without an id, whose data is given as it is written."""
    return f'{{"type": "{type}", "data": {data}}}'


def of_size(size: int, character: str = "x") -> str:
    """Return an echo of so many bytes, filled with one character as far as it fits."""
    head, tail = '{"type":"echo","data":{"text":"', '"}}'
    room = size - len(head) - len(tail)
    width = len(character.encode())
    return head + "y" * (room % width) + character * (room // width) + tail


def answer_to(frame: str) -> Reply:
    """Return the echo of a frame."""
    return Reply(json.loads(frame))


NOT_JSON = [
    Case("nothing", "", INVALID),
    Case("blanks", " \n\t ", INVALID),
    Case("a word", SECRET, INVALID),
    Case("a command", "PING", INVALID),
    Case("undefined", "undefined", INVALID),
    Case("None of Python", "None", INVALID),
    Case("True of Python", "True", INVALID),
    Case("single quotes", "{'type': 'echo', 'data': {'text': 'hunter2'}}", INVALID),
    Case("a key without quotes", '{type: "echo"}', INVALID),
    Case("a trailing comma", '{"type": "echo",}', INVALID),
    Case("a comma too many", '{"type": "anything", "data": [1,,2]}', INVALID),
    Case("a comment", '{"type": "echo" /* hunter2 */}', INVALID),
    Case("no closing brace", '{"type": "echo", "data": {"text": "hunter2"}', INVALID),
    Case("no closing quote", '{"type": "echo', INVALID),
    Case("a brace too many", '{"type": "anything"}}', INVALID),
    Case("two objects", '{"type": "anything"} {"type": "anything"}', INVALID),
    Case("two lines", '{"type": "anything"}\n{"type": "anything"}', INVALID),
    Case("a byte order mark", '\ufeff{"type": "anything"}', INVALID),
    Case("a line break in a string", '{"type": "echo", "data": {"text": "a\nb"}}', INVALID),
    Case("a zero character in a string", '{"type": "echo", "data": {"text": "\0"}}', INVALID),
    Case("a zero character", "\0", INVALID),
    Case("an unknown escape", '{"type": "echo", "data": {"text": "\\x41"}}', INVALID),
    Case("half an escape", '{"type": "echo", "data": {"text": "\\u00"}}', INVALID),
    Case("a hexadecimal number", literal("anything", "0x10"), INVALID),
    Case("a leading zero", literal("anything", "007"), INVALID),
    Case("a leading plus", literal("anything", "+1"), INVALID),
    Case("a number that ends in a point", literal("anything", "1."), INVALID),
    Case("a lone minus", literal("anything", "-"), INVALID),
    Case("XML", "<message type='echo'/>", INVALID),
    Case("a frame of Socket.IO", '42["echo",{"text":"hunter2"}]', INVALID),
]

WRONG_JSON_TYPE = [
    Case("null", "null", INVALID),
    Case("true", "true", INVALID),
    Case("false", "false", INVALID),
    Case("zero", "0", INVALID),
    Case("an integer", "-17", INVALID),
    Case("a float", "1.5", INVALID),
    Case("a text", f'"{SECRET}"', INVALID),
    Case("an empty text", '""', INVALID),
    Case("the type alone", '"echo"', INVALID),
    Case("a frame in a text", json.dumps('{"type": "echo", "data": {"text": "hi"}}'), INVALID),
    Case("an empty array", "[]", INVALID),
    Case("an array of a frame", '[{"type": "anything", "id": 1}]', INVALID),
    Case("an array as in Phoenix", '["1", "1", "room", "echo", {"text": "hunter2"}]', INVALID),
    Case("an array of pairs", '[["type", "anything"], ["id", 1]]', INVALID),
]

MISSING_TYPE = [
    Case("an empty object", "{}", INVALID),
    Case("data alone", '{"data": {"text": "hunter2"}}', INVALID),
    Case("an id alone", '{"id": 1}', Error("invalid", 1)),
    Case("an id and data", '{"id": "a", "data": 1}', Error("invalid", "a")),
    Case("null", '{"type": null, "id": 1}', Error("invalid", 1)),
    Case("a number", '{"type": 1, "id": 1}', Error("invalid", 1)),
    Case("a float", '{"type": 1.5, "id": 1}', Error("invalid", 1)),
    Case("true", '{"type": true, "id": 1}', Error("invalid", 1)),
    Case("an array", '{"type": ["echo"], "id": 1}', Error("invalid", 1)),
    Case("an object", '{"type": {"echo": "hunter2"}, "id": 1}', Error("invalid", 1)),
    Case("in capitals", '{"TYPE": "echo", "id": 1}', Error("invalid", 1)),
    Case("a blank in the key", '{"type ": "echo", "id": 1}', Error("invalid", 1)),
    Case("in the data", '{"data": {"type": "echo", "text": "hi"}, "id": 1}', Error("invalid", 1)),
    Case("another name for it", '{"event": "echo", "id": 1}', Error("invalid", 1)),
    Case("twice, the second null", '{"type": "anything", "type": null, "id": 1}', Error("invalid", 1)),
]

UNKNOWN_TYPE = [
    Case("a type nobody has", message(SECRET, None), Error("unknown_type", 1)),
    Case("without an id", '{"type": "nobody"}', UNKNOWN),
    Case("empty", message("", None), Error("unknown_type", 1)),
    Case("in capitals", message("ECHO", {"text": "hi"}), Error("unknown_type", 1)),
    Case("the class name", message("Echo", {"text": "hi"}), Error("unknown_type", 1)),
    Case("a blank before", message(" echo", {"text": "hi"}), Error("unknown_type", 1)),
    Case("a blank after", message("echo ", {"text": "hi"}), Error("unknown_type", 1)),
    Case("a zero character after", message("echo\0", {"text": "hi"}), Error("unknown_type", 1)),
    Case("a letter that looks like another", message("еcho", {"text": "hi"}), Error("unknown_type", 1)),
    Case("a hook", message("on_connect", {}), Error("unknown_type", 1)),
    Case("a method that is for another type", message("total", [1]), Error("unknown_type", 1)),
    Case("a shortcut of the handler", message("broadcast", {"room": "hall"}), Error("unknown_type", 1)),
    Case("a special attribute", message("__class__", {}), Error("unknown_type", 1)),
    Case("markup", message("<script>alert(1)</script>", {}), Error("unknown_type", 1)),
    Case("as long as a message may be", message(SECRET * 9000, None), Error("unknown_type", 1)),
    Case("and data that is a message", message("nobody", {"type": "echo"}), Error("unknown_type", 1)),
    Case("twice, the second unknown", '{"type": "echo", "type": "nobody", "id": 1}', Error("unknown_type", 1)),
]

BINARY_FOR_TEXT = [
    Case("nothing", b"", INVALID),
    Case("one byte", b"\0", INVALID),
    Case("a valid message", b'{"type":"echo","id":1,"data":{"text":"hi"}}', INVALID),
    Case("a valid message without an id", b'{"type":"anything"}', INVALID),
    Case("a cancel", b'{"type":"$cancel","id":1}', INVALID),
    Case("UTF-16", '{"type":"anything"}'.encode("utf-16"), INVALID),
    Case("UTF-8 with a byte order mark", b'\xef\xbb\xbf{"type":"anything"}', INVALID),
    Case("no UTF-8", b"\xff\xfe\xfd", INVALID),
    Case("MessagePack", b"\x82\xa4type\xa8anything\xa2id\x01", INVALID),
    Case("CBOR", b"\xa2dtypehanythingbid\x01", INVALID),
    Case("gzip", gzip.compress(b'{"type":"anything"}'), INVALID),
    Case("the head of a picture", b"\x89PNG\r\n\x1a\n", INVALID),
    Case("what a WebSocket frame looks like", b"\x81\x05Hello", INVALID),
    Case("as long as a message may be", b"\x55" * LIMIT, INVALID),
]

DEEP_NESTING = [
    Case(
        "150 arrays, which is not deep",
        literal("anything", "[" * 150 + "]" * 150),
        Reply({"type": "$ok", "id": 1, "data": json.loads("[" * 150 + "]" * 150)}),
    ),
    Case("300 arrays", literal("anything", "[" * 300 + "]" * 300), Error("invalid", 1)),
    Case("1,000 arrays", without_id("anything", "[" * 1000 + "]" * 1000), INVALID),
    Case("30,000 arrays", without_id("anything", "[" * 30000 + "]" * 30000), INVALID),
    Case("60,000 arrays that are never closed", "[" * 60000, INVALID),
    Case("300 objects", literal("anything", '{"a":' * 300 + "1" + "}" * 300), Error("invalid", 1)),
    Case("10,000 objects", without_id("anything", '{"a":' * 10000 + "1" + "}" * 10000), INVALID),
    Case("13,000 objects that are never closed", '{"a":' * 13000, INVALID),
    Case("arrays and objects in turn", without_id("anything", '[{"a":' * 5000 + "1" + "}]" * 5000), INVALID),
    Case("in a typed payload", without_id("echo", "[" * 1000 + "]" * 1000), INVALID),
    Case("in a field", without_id("echo", '{"text":' + "[" * 1000 + "]" * 1000 + "}"), INVALID),
    Case("in a key that is nobody's", '{"type":"anything","x":' + "[" * 1000 + "]" * 1000 + "}", INVALID),
    Case("as the id", '{"type":"anything","id":' + "[" * 1000 + "]" * 1000 + "}", INVALID),
    Case("as the type", '{"type":' + "[" * 1000 + "]" * 1000 + "}", INVALID),
    Case("in a tree of models", literal("tree", '{"children":[' * 150 + "]}" * 150), Error("invalid", 1)),
    Case(
        "brackets in a text, which nest nothing",
        message("echo", {"text": "[" * 20000}),
        Reply({"type": "echo", "id": 1, "data": {"text": "[" * 20000}}),
    ),
]

HUGE_NUMBERS = [
    Case(
        "an integer of 30 digits for an int",
        message("count", 10**30 - 1),
        Reply({"type": "$ok", "id": 1, "data": 10**30 - 1}),
    ),
    Case(
        "an integer of 4,000 digits, untyped",
        literal("anything", "9" * 4000),
        Reply({"type": "$ok", "id": 1, "data": int("9" * 4000)}),
    ),
    Case("an integer of 5,000 digits, untyped", literal("anything", "9" * 5000), INVALID),
    Case("an integer of 5,000 digits for an int", literal("count", "9" * 5000), INVALID),
    Case("an integer of 60,000 digits", literal("count", "9" * 60000), INVALID),
    Case("a negative one of 60,000 digits", literal("count", "-" + "9" * 60000), INVALID),
    Case("60,000 digits as a text", message("count", "9" * 60000), Error("invalid", 1, ())),
    Case("an integer of 400 digits for a float", literal("ratio", "9" * 400), Error("invalid", 1, ())),
    Case("an integer of 5,000 digits for a float", literal("ratio", "9" * 5000), INVALID),
    Case("1e999 for a float", literal("ratio", "1e999"), Error("invalid", 1, ())),
    Case("-1e999 for a float", literal("ratio", "-1e999"), Error("invalid", 1, ())),
    Case("1e999 as a text for a float", message("ratio", "1e999"), Error("invalid", 1, ())),
    Case("1e999 for an int", literal("count", "1e999"), Error("invalid", 1, ())),
    Case("1e999 in a field", literal("order", '{"lines": [], "price": 1e999}'), Error("invalid", 1, ("price",))),
    Case("1e999 in a decimal", literal("order", '{"lines": [], "fee": 1e999}'), Error("invalid", 1, ("fee",))),
    Case("1e999, untyped", literal("anything", "1e999"), Reply({"type": "$ok", "id": 1, "data": None})),
    Case(
        "1e999 in a list, untyped",
        literal("anything", "[1, -1e999]"),
        Reply({"type": "$ok", "id": 1, "data": [1, None]}),
    ),
    Case("1e-999 for a float", literal("ratio", "1e-999"), Reply({"type": "$ok", "id": 1, "data": 0.0})),
    Case(
        "an exponent of 20,000 digits",
        literal("anything", "1e" + "9" * 20000),
        Reply({"type": "$ok", "id": 1, "data": None}),
    ),
    Case("20,000 decimals", literal("ratio", "0." + "3" * 20000), Reply({"type": "$ok", "id": 1, "data": 1 / 3})),
    Case("an unknown type with one of 5,000 digits", literal(SECRET, "9" * 5000), INVALID),
    Case("for a date", literal("order", '{"lines": [], "due": 1e300}'), Error("invalid", 1, ("due",))),
    Case("for a duration", literal("order", '{"lines": [], "within": 1e300}'), Error("invalid", 1, ("within",))),
]

NAN = [
    Case("NaN, untyped", literal("anything", "NaN"), Error("invalid", 1)),
    Case("Infinity, untyped", literal("anything", "Infinity"), Error("invalid", 1)),
    Case("-Infinity, untyped", literal("anything", "-Infinity"), Error("invalid", 1)),
    Case("NaN for a float", literal("ratio", "NaN"), Error("invalid", 1)),
    Case("Infinity for a float", literal("ratio", "Infinity"), Error("invalid", 1)),
    Case("-Infinity for a float", literal("ratio", "-Infinity"), Error("invalid", 1)),
    Case("NaN in a list", literal("anything", "[1, NaN, 3]"), Error("invalid", 1)),
    Case("NaN in an object", literal("anything", '{"a": NaN}'), Error("invalid", 1)),
    Case("NaN for an int", literal("count", "NaN"), Error("invalid", 1)),
    Case("NaN in a field", literal("order", '{"lines": [], "price": NaN}'), Error("invalid", 1)),
    Case("NaN in a key that is nobody's", '{"type": "anything", "id": 1, "x": NaN}', Error("invalid", 1)),
    Case("NaN as the id", '{"type": "anything", "id": NaN}', INVALID),
    Case("NaN as the type", '{"type": NaN, "id": 1}', Error("invalid", 1)),
    Case("NaN alone", "NaN", INVALID),
    Case("nan in small letters", literal("anything", "nan"), INVALID),
    Case("NaN as a text for a float", message("ratio", "NaN"), Error("invalid", 1, ())),
    Case("inf as a text for a float", message("ratio", "inf"), Error("invalid", 1, ())),
    Case("-Infinity as a text for a float", message("ratio", "-Infinity"), Error("invalid", 1, ())),
    Case("NaN as a text in a field", message("order", {"lines": [], "price": "nan"}), Error("invalid", 1, ("price",))),
    Case("sNaN for a decimal", message("order", {"lines": [], "fee": "sNaN"}), Error("invalid", 1, ("fee",))),
    Case("NaN as a text for an int", message("count", "NaN"), Error("invalid", 1, ())),
    Case(
        "NaN in a text, which is a word",
        message("echo", {"text": "NaN"}),
        Reply({"type": "echo", "id": 1, "data": {"text": "NaN"}}),
    ),
    Case(
        "Infinity as an untyped text",
        message("anything", "Infinity"),
        Reply({"type": "$ok", "id": 1, "data": "Infinity"}),
    ),
]

LONE_SURROGATES = [
    Case("a high one", literal("echo", '{"text": "\\ud800"}'), Error("invalid", 1)),
    Case("a low one", literal("echo", '{"text": "\\udc00"}'), Error("invalid", 1)),
    Case("the last one", literal("echo", '{"text": "\\udfff"}'), Error("invalid", 1)),
    Case("in capitals", literal("echo", '{"text": "\\uDBFF"}'), Error("invalid", 1)),
    Case("in reverse order", literal("echo", '{"text": "\\udc00\\ud800"}'), Error("invalid", 1)),
    Case("two high ones", literal("echo", '{"text": "\\ud800\\ud800"}'), Error("invalid", 1)),
    Case("a high one and a letter", literal("echo", '{"text": "\\ud800a"}'), Error("invalid", 1)),
    Case("a high one and a line break", literal("echo", '{"text": "\\ud83d\\n"}'), Error("invalid", 1)),
    Case("in the middle", literal("echo", '{"text": "hunter2 \\ud800 hunter2"}'), Error("invalid", 1)),
    Case("untyped", literal("anything", '["\\ud800"]'), Error("invalid", 1)),
    Case("in a key", literal("anything", '{"\\ud800": 1}'), Error("invalid", 1)),
    Case("in the type", '{"type": "\\ud800", "id": 1}', Error("invalid", 1)),
    Case("in the id", '{"type": "anything", "id": "\\ud800"}', INVALID),
    Case("in a key that is nobody's", '{"type": "anything", "x": "\\udfff"}', INVALID),
    Case("after a whole pair", literal("echo", '{"text": "\\ud83d\\ude00\\ud83d"}'), Error("invalid", 1)),
    Case(
        "a whole pair, which is a character",
        literal("echo", '{"text": "\\ud83d\\ude00"}'),
        Reply({"type": "echo", "id": 1, "data": {"text": "😀"}}),
    ),
]

OVER_THE_LIMIT = [
    Case("as much as is allowed", of_size(LIMIT), answer_to(of_size(LIMIT))),
    Case("one byte more", of_size(LIMIT + 1), Closed(1009)),
    Case("two bytes a character, as much as is allowed", of_size(LIMIT, "é"), answer_to(of_size(LIMIT, "é"))),
    Case("two bytes a character, one byte more", of_size(LIMIT + 1, "é"), Closed(1009)),
    Case("three bytes a character, as much as is allowed", of_size(LIMIT, "€"), answer_to(of_size(LIMIT, "€"))),
    Case("three bytes a character, one byte more", of_size(LIMIT + 1, "€"), Closed(1009)),
    Case("four bytes a character, as much as is allowed", of_size(LIMIT, "😀"), answer_to(of_size(LIMIT, "😀"))),
    Case("four bytes a character, one byte more", of_size(LIMIT + 1, "😀"), Closed(1009)),
    Case("one character over the edge", "x" * (LIMIT - 1) + "é", Closed(1009)),
    Case("fewer characters than bytes allowed", "€" * (LIMIT // 3 + 1), Closed(1009)),
    Case("twice as much", of_size(2 * LIMIT), Closed(1009)),
    Case("a million bytes", of_size(1_000_000), Closed(1009)),
    Case("a million times the same, well compressed", "0" * 1_000_000, Closed(1009)),
    Case("binary, one byte more", b"\0" * (LIMIT + 1), Closed(1009)),
    Case("blanks around a message", '{"type": "anything"}' + " " * LIMIT, Closed(1009)),
    Case("in fragments, as much as is allowed", ["x" * (LIMIT // 2)] * 2, INVALID),
    Case("in fragments, one byte more", [*["x" * (LIMIT // 4)] * 4, "x"], Closed(1009)),
    Case("a cancel", f'{{"type": "$cancel", "id": 1, "data": "{"x" * LIMIT}"}}', Closed(1009)),
]

IDS = [
    Case("null", '{"type": "anything", "id": null}', INVALID),
    Case("true", '{"type": "anything", "id": true}', INVALID),
    Case("false", '{"type": "anything", "id": false}', INVALID),
    Case("a float", '{"type": "anything", "id": 1.5}', INVALID),
    Case("a float that is whole", '{"type": "anything", "id": 1.0}', INVALID),
    Case("an exponent", '{"type": "anything", "id": 1e3}', INVALID),
    Case("1e999", '{"type": "anything", "id": 1e999}', INVALID),
    Case("an array", '{"type": "anything", "id": [1]}', INVALID),
    Case("an empty array", '{"type": "anything", "id": []}', INVALID),
    Case("an object", '{"type": "anything", "id": {"id": 1}}', INVALID),
    Case("2^53", '{"type": "anything", "id": 9007199254740992}', INVALID),
    Case("-2^53", '{"type": "anything", "id": -9007199254740992}', INVALID),
    Case("2^64", '{"type": "anything", "id": 18446744073709551616}', INVALID),
    Case("4,000 digits", f'{{"type": "anything", "id": {"9" * 4000}}}', INVALID),
    Case("5,000 digits", f'{{"type": "anything", "id": {"9" * 5000}}}', INVALID),
    Case("65 characters", message("anything", None, SECRET + "x" * 58), INVALID),
    Case("60,000 characters", message("anything", None, "x" * 60000), INVALID),
    Case("wrong on an unknown type", '{"type": "nobody", "id": [1]}', INVALID),
    Case("wrong without a type", '{"id": {}}', INVALID),
    Case("wrong beside a wrong payload", '{"type": "echo", "id": null, "data": 1}', INVALID),
    Case("twice, the second null", '{"type": "anything", "id": 1, "id": null}', INVALID),
    Case("zero", message("anything", None, 0), Reply({"type": "$ok", "id": 0})),
    Case("negative", message("anything", None, -1), Reply({"type": "$ok", "id": -1})),
    Case("2^53-1", message("anything", None, 2**53 - 1), Reply({"type": "$ok", "id": 2**53 - 1})),
    Case("-(2^53-1)", message("anything", None, 1 - 2**53), Reply({"type": "$ok", "id": 1 - 2**53})),
    Case("an empty text", message("anything", None, ""), Reply({"type": "$ok", "id": ""})),
    Case("a digit as a text", message("anything", None, "1"), Reply({"type": "$ok", "id": "1"})),
    Case("64 characters", message("anything", None, "x" * 64), Reply({"type": "$ok", "id": "x" * 64})),
    Case("64 characters of four bytes", message("anything", None, "😀" * 64), Reply({"type": "$ok", "id": "😀" * 64})),
    Case("quotes and zeros", message("anything", None, '"\\\0'), Reply({"type": "$ok", "id": '"\\\0'})),
]

TYPES_OF_OURS = [
    Case("$ok", message("$ok", None), Error("unknown_type", 1)),
    Case("$ok without an id", '{"type": "$ok"}', UNKNOWN),
    Case("$item", message("$item", 1), Error("unknown_type", 1)),
    Case("$error", message("$error", {"code": SECRET}), Error("unknown_type", 1)),
    Case("$gap", message("$gap", {"dropped": 1}), Error("unknown_type", 1)),
    Case("$skip", message("$skip", None), Error("unknown_type", 1)),
    Case("$joined", message("$joined", {}), Error("unknown_type", 1)),
    Case("$presence", message("$presence", {}), Error("unknown_type", 1)),
    Case("$presence_diff", message("$presence_diff", {}), Error("unknown_type", 1)),
    Case("a type nobody has", message("$hunter2", None), Error("unknown_type", 1)),
    Case("a dollar", message("$", None), Error("unknown_type", 1)),
    Case("two dollars", message("$$cancel", None), Error("unknown_type", 1)),
    Case("cancel in capitals", message("$CANCEL", None), Error("unknown_type", 1)),
    Case("cancel and a blank", message("$cancel ", None), Error("unknown_type", 1)),
    Case("one of the application's with a dollar", message("$echo", {"text": "hi"}), Error("unknown_type", 1)),
    Case("with a wrong id", '{"type": "$ok", "id": null}', INVALID),
]

CANCELS = [
    Case("an integer that is nobody's", '{"type": "$cancel", "id": 7}', IGNORED),
    Case("a text that is nobody's", '{"type": "$cancel", "id": "hunter2"}', IGNORED),
    Case("zero", '{"type": "$cancel", "id": 0}', IGNORED),
    Case("an empty text", '{"type": "$cancel", "id": ""}', IGNORED),
    Case("the largest id", '{"type": "$cancel", "id": 9007199254740991}', IGNORED),
    Case("no id", '{"type": "$cancel"}', IGNORED),
    Case("the id in the data", '{"type": "$cancel", "data": {"id": 1}}', IGNORED),
    Case("the id as the data", '{"type": "$cancel", "data": 1}', IGNORED),
    Case("data that is a text", '{"type": "$cancel", "id": 1, "data": "hunter2"}', IGNORED),
    Case("data that is large", f'{{"type": "$cancel", "id": 1, "data": "{"x" * 60000}"}}', IGNORED),
    Case("a room", '{"type": "$cancel", "id": 1, "room": "hall"}', IGNORED),
    Case("keys that are nobody's", '{"type": "$cancel", "id": 1, "ids": [1], "x": {}}', IGNORED),
    Case("the id twice", '{"type": "$cancel", "id": 1, "id": 2}', IGNORED),
    Case("null as the id", '{"type": "$cancel", "id": null}', INVALID),
    Case("true as the id", '{"type": "$cancel", "id": true}', INVALID),
    Case("an array of ids", '{"type": "$cancel", "id": [1, 2]}', INVALID),
    Case("an object as the id", '{"type": "$cancel", "id": {"id": 1}}', INVALID),
    Case("a float as the id", '{"type": "$cancel", "id": 1.0}', INVALID),
    Case("an id that is too long", f'{{"type": "$cancel", "id": "{"x" * 65}"}}', INVALID),
    Case("NaN in the data", '{"type": "$cancel", "id": 1, "data": NaN}', Error("invalid", 1)),
]

LINE = {"sku": "a", "count": 1}
PAYLOADS = [
    Case("null for a model", message("echo", None), Error("invalid", 1, ())),
    Case("a text for a model", message("echo", SECRET), Error("invalid", 1, ())),
    Case("an array for a model", message("echo", ["text", SECRET]), Error("invalid", 1, ())),
    Case("no data for a model", '{"type": "echo", "id": 1}', Error("invalid", 1, ("text",))),
    Case("a missing field", message("echo", {}), Error("invalid", 1, ("text",))),
    Case("null in a field", message("echo", {"text": None}), Error("invalid", 1, ("text",))),
    Case("a number in a text", message("echo", {"text": 7}), Error("invalid", 1, ("text",))),
    Case("an object in a text", message("echo", {"text": {"text": SECRET}}), Error("invalid", 1, ("text",))),
    Case("an array in a text", message("echo", {"text": [SECRET]}), Error("invalid", 1, ("text",))),
    Case("no data for an int", '{"type": "count", "id": 1}', Error("invalid", 1, ())),
    Case("a text for an int", message("count", SECRET), Error("invalid", 1, ())),
    Case("a fraction for an int", message("count", 1.5), Error("invalid", 1, ())),
    Case("an object for a list", message("sum", {"0": 1}), Error("invalid", 1, ())),
    Case("a text in a list of ints", message("sum", [1, 2, SECRET]), Error("invalid", 1, (2,))),
    Case("a list in a list of ints", message("sum", [[1]]), Error("invalid", 1, (0,))),
    Case("200 wrong items", message("sum", ["x"] * 200), Error("invalid", 1, (0,))),
    Case("12,000 wrong items", message("sum", ["x"] * 12000), Error("invalid", 1, (0,))),
    Case("a list for a nested list", message("order", {"lines": SECRET}), Error("invalid", 1, ("lines",))),
    Case("a text for a nested model", message("order", {"lines": [SECRET]}), Error("invalid", 1, ("lines", 0))),
    Case(
        "a missing field of a nested model",
        message("order", {"lines": [LINE, {"count": 1}]}),
        Error("invalid", 1, ("lines", 1, "sku")),
    ),
    Case(
        "below the minimum in a nested model",
        message("order", {"lines": [{"sku": "a", "count": 0}]}),
        Error("invalid", 1, ("lines", 0, "count")),
    ),
    Case("too many lines", message("order", {"lines": [LINE] * 11}), Error("invalid", 1, ("lines",))),
    Case("no date", message("order", {"lines": [], "due": SECRET}), Error("invalid", 1, ("due",))),
    Case("the 13th month", message("order", {"lines": [], "due": "2026-13-01"}), Error("invalid", 1, ("due",))),
    Case("the 30th of February", message("order", {"lines": [], "due": "2026-02-30"}), Error("invalid", 1, ("due",))),
    Case(
        "a date with a time", message("order", {"lines": [], "due": "2026-02-03T04:05"}), Error("invalid", 1, ("due",))
    ),
    Case("no duration", message("order", {"lines": [], "within": SECRET}), Error("invalid", 1, ("within",))),
    Case("no member of an enum", message("order", {"lines": [], "state": SECRET}), Error("invalid", 1, ("state",))),
    Case("a name of an enum", message("order", {"lines": [], "state": "OPEN"}), Error("invalid", 1, ("state",))),
    Case("no UUID", message("order", {"lines": [], "key": SECRET}), Error("invalid", 1, ("key",))),
    Case(
        "a text that is too long", message("order", {"lines": [], "note": SECRET * 9}), Error("invalid", 1, ("note",))
    ),
    Case("no match of a pattern", message("order", {"lines": [], "code": SECRET}), Error("invalid", 1, ("code",))),
    Case("a shape without a kind", message("shape", {"side": 1}), Error("invalid", 1, ())),
    Case("a kind of shape nobody knows", message("shape", {"kind": SECRET}), Error("invalid", 1, ())),
    Case("a kind that is no text", message("shape", {"kind": [SECRET]}), Error("invalid", 1, ())),
    Case("a wrong field of a shape", message("shape", {"kind": "square"}), Error("invalid", 1, ("square", "side"))),
    Case("a field too many where none may be", message("strict", {"a": 1, "b": SECRET}), Error("invalid", 1, ("b",))),
    Case(
        "a field of 60,000 characters too many",
        message("strict", {"a": 1, "b" * 60000: 1}),
        Error("invalid", 1, ("b" * 64,)),
    ),
    Case("a text where only an int may be", message("strict", {"a": "1"}), Error("invalid", 1, ("a",))),
    Case("a wrong value of a mapping", message("ages", {"ann": SECRET}), Error("invalid", 1, ("ann",))),
    Case("a validator's own refusal", message("even", 3), Error("invalid", 1, ())),
    Case(
        "a field too many elsewhere, which is passed over",
        message("echo", {"text": "hi", "x": 1}),
        Reply({"type": "echo", "id": 1, "data": {"text": "hi"}}),
    ),
]

OPEN_HANDLER = [
    Case("any type", message("nobody", [1]), Reply({"type": "$ok", "id": 1, "data": ["nobody", [1]]})),
    Case("any type without data", '{"type": "nobody"}', Reply({"type": "$ok", "data": ["nobody", None]})),
    Case("an empty type", message("", None), Error("unknown_type", 1)),
    Case("a type of ours", message("$ok", None), Error("unknown_type", 1)),
    Case("a dollar", message("$", None), Error("unknown_type", 1)),
    Case("no type", '{"id": 1}', Error("invalid", 1)),
    Case("not JSON", SECRET, INVALID),
    Case("an array", "[]", INVALID),
    Case("a binary frame", b'{"type": "nobody"}', INVALID),
    Case("a wrong id", '{"type": "nobody", "id": null}', INVALID),
    Case("300 arrays", literal("nobody", "[" * 300 + "]" * 300), Error("invalid", 1)),
    Case("NaN", literal("nobody", "NaN"), Error("invalid", 1)),
    Case("a lone surrogate", literal("nobody", '"\\ud800"'), Error("invalid", 1)),
    Case("too long", message("nobody", "x" * LIMIT), Closed(1009)),
]

RAW_JSON = [
    Case("nothing", "", Closed(1007)),
    Case("not JSON", SECRET, Closed(1007)),
    Case("no closing bracket", "[1, 2", Closed(1007)),
    Case("an object", '{"type": "echo", "id": 1}', Closed(1007)),
    Case("a cancel, which is a frame as any other", '{"type": "$cancel", "id": 1}', Closed(1007)),
    Case("a text", f'"{SECRET}"', Closed(1007)),
    Case("null", "null", Closed(1007)),
    Case("a wrong item", f'[1, "{SECRET}"]', Closed(1007)),
    Case("300 arrays", "[" * 300 + "]" * 300, Closed(1007)),
    Case("60,000 arrays that are never closed", "[" * 60000, Closed(1007)),
    Case("NaN", "[NaN]", Closed(1007)),
    Case("Infinity", "[Infinity]", Closed(1007)),
    Case("1e999", "[1e999]", Closed(1007)),
    Case("5,000 digits", f"[{'9' * 5000}]", Closed(1007)),
    Case("a lone surrogate", '["\\ud800"]', Closed(1007)),
    Case("a binary frame", b"[1, 2]", Closed(1003)),
    Case("an empty binary frame", b"", Closed(1003)),
    Case("a binary frame that is too long", b"\0" * (LIMIT + 1), Closed(1009)),
    Case("one byte too long", "[" + " " * (LIMIT - 1) + "]", Closed(1009)),
    Case("as much as is allowed", "[1" + " " * (LIMIT - 3) + "]", Reply({"sum": 1.0})),
]

RAW_TEXT = [
    Case("a binary frame", b"hi", Closed(1003)),
    Case("an empty binary frame", b"", Closed(1003)),
    Case("no UTF-8 in a binary frame", b"\xff", Closed(1003)),
    Case("one byte too long", "x" * (LIMIT + 1), Closed(1009)),
    Case("one byte too long, two bytes a character", "é" * (LIMIT // 2) + "x", Closed(1009)),
    Case("one byte too long, four bytes a character", "😀" * (LIMIT // 4) + "x", Closed(1009)),
    Case("one byte too long, in fragments", ["x" * LIMIT, "x"], Closed(1009)),
    Case("a binary frame that is too long", b"\0" * (LIMIT + 1), Closed(1009)),
    Case("a cancel, which is a text as any other", '{"type":"$cancel","id":1}', Reply({"length": 25})),
    Case("as much as is allowed", "😀" * (LIMIT // 4), Reply({"length": LIMIT // 4})),
    Case("nothing, which is a text", "", Reply({"length": 0})),
]

RAW_BYTES = [
    Case("a text frame", "hi", Closed(1003)),
    Case("an empty text frame", "", Closed(1003)),
    Case("a text frame of two bytes a character", "é", Closed(1003)),
    Case("a text frame in fragments", ["h", "i"], Closed(1003)),
    Case("a cancel", '{"type": "$cancel", "id": 1}', Closed(1003)),
    Case("one byte too long", b"\0" * (LIMIT + 1), Closed(1009)),
    Case("a million bytes", b"\0" * 1_000_000, Closed(1009)),
    Case("a text frame that is too long", "x" * (LIMIT + 1), Closed(1009)),
    Case("as much as is allowed", b"\xff" * LIMIT, Reply({"length": LIMIT})),
    Case("nothing, which is a binary frame", b"", Reply({"length": 0})),
]

CASES: Mapping[str, Sequence[Case]] = {
    "not JSON": NOT_JSON,
    "wrong JSON type": WRONG_JSON_TYPE,
    "missing type": MISSING_TYPE,
    "unknown type": UNKNOWN_TYPE,
    "binary for text": BINARY_FOR_TEXT,
    "deep nesting": DEEP_NESTING,
    "huge numbers": HUGE_NUMBERS,
    "NaN": NAN,
    "lone surrogates": LONE_SURROGATES,
    "over the limit": OVER_THE_LIMIT,
    "ids": IDS,
    "types of ours": TYPES_OF_OURS,
    "cancels": CANCELS,
    "payloads": PAYLOADS,
    "open handler": OPEN_HANDLER,
    "raw JSON": RAW_JSON,
    "raw text": RAW_TEXT,
    "raw bytes": RAW_BYTES,
}
"""Every case, by class; each class has ten or more."""

PATHS: Mapping[str, str] = {
    "open handler": "/open",
    "raw JSON": "/raw/json",
    "raw text": "/raw/text",
    "raw bytes": "/raw/bytes",
}
"""Mapping of a class of cases to the path of the handler that it is sent to."""

INVALID_UTF8: Mapping[str, bytes] = {
    "a byte that is never used": b"\xff",
    "another one": b"\xfe\xfe\xff\xff",
    "a continuation without a beginning": b"\x80",
    "a beginning without an end": b"abc\xc3",
    "a beginning and a letter": b"\xe2\x82a",
    "an overlong slash": b"\xc0\xaf",
    "an overlong zero": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "in a message": b'{"type":"echo","data":{"text":"\xff"}}',
    "after a message": b'{"type":"anything"}\xff',
}
"""Payloads of text frames that are no UTF-8: the server itself ends such a connection (RFC 6455, section 8.1)."""
