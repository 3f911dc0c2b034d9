"""What servers log of credentials: nothing, from the first request on, however they are started."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.auth.handshakes import handshake, request
from tests.auth.tokens import SECRET, token
from tests.ports import free_port
from tests.support import Server, connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter
from wsrouter.auth import JWTAuth, Query, Ticket
from wsrouter.redaction import HIDDEN, LOGGERS, redact_frames, redact_header, redact_parameter

ROOT = Path(__file__).parents[2]


class Output:
    """All that a process has written."""

    def __init__(self) -> None:
        self.text = ""


@asynccontextmanager
async def command(*arguments: str, env: Mapping[str, str] | None = None) -> AsyncGenerator[tuple[Server, Output]]:
    """Run a server in a process of its own; its output is complete when the block has ended."""
    port = free_port()
    filled = [argument.replace("PORT", str(port)) for argument in arguments]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *filled,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = Output()
    try:
        async with asyncio.timeout(50):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    break
        yield Server(port), output
    finally:
        process.terminate()
        output.text = (await asyncio.wait_for(process.communicate(), 50))[0].decode()


UVICORN = ("uvicorn", "tests.auth.logged_app:app", "--port", "PORT")
HYPERCORN = (
    "hypercorn",
    "tests.auth.logged_app:app",
    "--bind",
    "127.0.0.1:PORT",
    "--access-logfile",
    "-",
    "--access-logformat",
    "%(R)s | %(q)s | %(Uq)s | %({cookie}i)s | %({authorization}i)s | %({sec-websocket-protocol}i)s | %(s)s",
)
COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "uvicorn": (UVICORN, {}),
    "uvicorn at debug": ((*UVICORN, "--log-level", "debug"), {}),
    "uvicorn at trace": ((*UVICORN, "--log-level", "trace"), {}),
    "uvicorn without access log": ((*UVICORN, "--no-access-log"), {}),
    "uvicorn on h11 and wsproto": ((*UVICORN, "--http", "h11", "--ws", "wsproto", "--log-level", "trace"), {}),
    "uvicorn in colours": ((*UVICORN, "--use-colors"), {}),
    "uvicorn, log configuration after the import": (UVICORN, {"LOG_CONFIG_AFTER_IMPORT": "1"}),
    "hypercorn": (HYPERCORN, {}),
}


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("name", list(COMMANDS))
async def test_a_server_of_the_command_line_logs_no_credential(name: str) -> None:
    """Query, headers, cookies and subprotocols, of WebSockets and HTTP routes, let in, denied by the authenticator or
    by a guard before it, with names spelled oddly: the lines are there, the tokens are not."""
    arguments, env = COMMANDS[name]
    good, bad = token(), token(SECRET[::-1])
    async with command(*arguments, env=env) as (server, output):
        for path in ("/denied", "/ws", "/me"):  # the guard that denies comes first
            send = request if path == "/me" else handshake
            for text in (good, bad):
                for query in (
                    f"access%20token={text}",
                    f"access+token={text}&x=1",
                    f"x=1&%61ccess%20token={text}",
                    f"access_token={text}",
                    f"Access%20Token[]={text}",
                    f"ticket={text[:43]}",
                ):
                    await send(server, f"{path}?{query}")
                await send(server, f"{path}?room=lobby", [("Authorization", f"Bearer {text}")])
                await send(server, path, [("Cookie", f"session={text}")])
                if path != "/me":
                    await send(server, path, [("Sec-WebSocket-Protocol", f"wsrouter.v1, bearer.{text}")])
    for text in (good, bad):
        for part in text.split("."):
            assert part not in output.text
    assert "/denied" in output.text
    assert HIDDEN in output.text
    assert "room=lobby" in output.text
    assert "Logging error" not in output.text


async def test_a_filter_that_was_dropped_is_put_back_at_start(caplog: pytest.LogCaptureFixture) -> None:
    """Before the first request is logged, where the application says that it starts."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Query("token"), Ticket()])
    for name in LOGGERS:
        logging.getLogger(name).filters.clear()
    auth.started()
    caplog.set_level(logging.INFO)
    router = WebSocketRouter(guards=[auth])
    router.add_handler("/ws", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        await handshake(server, f"/ws?token={token()}")
        await handshake(server, "/ws?ticket=" + "A" * 43)
    assert "eyJ" not in caplog.text
    assert "AAAA" not in caplog.text


async def test_a_query_source_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """At start, with what to use instead; a ticket does not."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Query("token"), Ticket()])
    assert caplog.records == []
    for _ in range(3):
        auth.started()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("wsrouter", logging.WARNING)
    assert "Ticket" in record.getMessage()


class Opaque:
    def __str__(self) -> str:
        return "path?token=SECRET"


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        ("%s", ("/ws?token=SECRET",), "/ws?token=***"),
        ("%s", ("/ws?a=1&token=SECRET&b=2",), "/ws?a=1&token=***&b=2"),
        ("%s", ("/ws?token=SECRET&token=SECRET",), "/ws?token=***&token=***"),
        ("%s", ("/ws?TOKEN=SECRET",), "/ws?TOKEN=***"),
        ("%s", ("/ws?%74%6F%6b%65%6E=SECRET",), "/ws?%74%6F%6b%65%6E=***"),
        ("%s", ("/ws?%2574oken=SECRET",), "/ws?%2574oken=***"),
        ("%s", ("/ws?token[]=SECRET",), "/ws?token[]=***"),
        ("%s", ("/ws?a;token=SECRET;b=2",), "/ws?a;token=***;b=2"),
        ("%s", ("/ws??token=SECRET",), "/ws??token=***"),
        ("%s", ("token=SECRET",), "token=***"),
        ("%s", ("/ws?token=a=SECRET",), "/ws?token=***"),
        ("%s", ("/ws?token=SECRET#SECRET",), "/ws?token=***"),
        ("%s", ("/ws?token=",), "/ws?token="),
        ("%s", ("/ws?tokens=1&mytoken=2",), "/ws?tokens=1&mytoken=2"),
        ("%s %d", ("/ws?token=SECRET", 200), "/ws?token=*** 200"),
        ("/ws?token=SECRET done", (), "/ws?token=*** done"),
        ('"GET /ws?token=SECRET HTTP/1.1"', (), '"GET /ws?token=*** HTTP/1.1"'),
        ("%(q)s %(s)s", ({"q": "token=SECRET", "s": 200},), "token=*** 200"),
        ("%({authorization}i)s", ({"{authorization}i": "Bearer SECRET"},), "***"),
        ("< %s: %s", ("authorization", "Bearer SECRET"), "< authorization: ***"),
        ("< %s: %s", ("Authorization", "Bearer SECRET"), "< Authorization: ***"),
        ("< %s: %s", ("host", "app.example"), "< host: app.example"),
        ("%s", ({"subprotocols": ["bearer.SECRET", "wsrouter.v1"]},), "['bearer.***', 'wsrouter.v1']"),
        ("%s", (Opaque(),), "path?token=***"),
        ("%s", (b"/ws?token=SECRET",), "b'/ws?token=***"),
        ("100%", (), "100%"),
    ],
)
def test_a_line_is_rewritten(
    message: str, arguments: tuple[Any, ...], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what stands for the credential is replaced; numbers and the shape of arguments stay."""
    redact_parameter("token")
    redact_header("authorization")
    redact_header("sec-websocket-protocol")
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        logging.getLogger("uvicorn.error").info(message, *arguments)
    line = caplog.records[-1].getMessage()
    assert "SECRET" not in line
    assert text in line


TOKEN = "S3CRET-opaque-token"
FRAMES: list[tuple[str, ...]] = [
    ('{"type":"$auth","data":{"token":"%s"}}',),
    ('{"type":"$auth","id":"1","data":{"token":"%s"}}',),
    ('{ "type" : "$auth" , "data" : { "token" : "%s" } }',),
    ('{\n\t"type":\t"$auth",\n\t"data": {"token":\n"%s"}\n}',),
    ('{"data":{"token":"%s"},"type":"$auth"}',),
    ('{"data":{"token":"%s"},"id":"123e4567-e89b-12d3-a456-426614174000","type":"$auth"}',),
    ('{"id":"123e4567-e89b-12d3-a456-426614174000","type":"$auth","data":{"token":"%s"}}',),
    ('{"type":"$auth","data":{"token":"it\'s \\"%s\\""}}',),
    ('{"type":"\\u0024auth","data":{"t\\u006fken":"%s"}}',),
    ('{"type":"$auth","data":{"token":', '"%s"}}'),
    ('{"type":"$auth","data":{"tok', 'en":"%s"}', "}"),
    ('{"type":"$auth","data":{"token":"S3', "CRET-opaque-", 'token"}}'),
]
"""Messages that carry the token, in one frame or in several."""


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio"])
async def test_a_server_at_debug_logs_no_token_of_an_open_connection(ws: str) -> None:
    """What clients send with ``$auth`` is hidden, whole, cut short by the log, or in pieces; other messages stay."""
    arguments = (*UVICORN, "--log-level", "debug", "--ws", ws)
    async with command(*arguments) as (server, output):
        headers = {"Authorization": f"Bearer {token()}"}
        async with connect(server, "/ws", additional_headers=headers) as client:
            for pieces in FRAMES:
                filled = [piece.replace("%s", TOKEN) for piece in pieces]
                await client.send(filled if len(filled) > 1 else filled[0])
                assert json.loads(await client.recv())["type"] == "$error"
            await client.send(b'{"type":"$auth","data":{"token":"%s"}}' % TOKEN.encode())
            await client.send('{"type":"hello","id":7}')
            while json.loads(await client.recv()).get("id") != 7:
                pass
    # The key of a handshake and the answer to it are random text, in which two letters may be found by chance.
    logged = "\n".join(
        line for line in output.text.splitlines() if not re.search("Sec-WebSocket-(Key|Accept)", line, re.I)
    )
    for piece in ("S3", "CRET", "opaque", TOKEN):
        assert piece not in logged
    assert output.text.count("< TEXT ***") == len(FRAMES)
    assert """< TEXT '{"type":"hello","id":7}' [""" in output.text
    assert "Logging error" not in output.text


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        ("< %s", ("""TEXT '{"type":"$auth","data":{"token":"SECRET"}}' [45 bytes]""",), "< TEXT *** [45 bytes]"),
        ("< %s", ("""BINARY '{"type":"$auth","data":{"token":"SECRET"}}' [45 bytes, text]""",), "< BINARY *** [45"),
        ("< %s", ("CONT 'SECRET' [6 bytes, text, continued]",), "< CONT *** [6 bytes, text, continued]"),
        ("< %s", ("TEXT 'SECRET' [6 bytes, continued]",), "< TEXT *** [6 bytes, continued]"),
        ("< %s", ("PING '' [0 bytes]",), "< PING '' [0 bytes]"),
        ("> %s", ("""TEXT '{"type":"$ok","id":1}' [24 bytes]""",), "> TEXT '{"),
        ("%s", ("""{"type":"$auth","data":{"token":"SECRET"}}""",), "***"),
        ("%s", ("""got {"data":{"token":"SECRET"},"type":"$auth"}""",), "got ***"),
        ("%s", (r"""got {\"data\":{\"token\":\"SECRET\"},\"type\":\"$auth\"}""",), "got ***"),
        ("%s", ("$auth with SECRET",), "***"),
        ("%r", ({"type": "$auth", "data": {"token": "SECRET"}},), "***"),
        ("%s", ("an author's token",), "an author's token"),
    ],
)
def test_a_line_about_a_frame_is_rewritten(
    message: str, arguments: tuple[Any, ...], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever there is a `JWTAuth`, with whatever sources; what can't carry a token stays."""
    JWTAuth(key=SECRET, algorithms=["HS256"])
    with caplog.at_level(logging.DEBUG, "uvicorn.error"):
        record = logging.LogRecord("uvicorn.error", logging.DEBUG, "", 0, message, as_given(message, arguments), None)
        logging.getLogger("uvicorn.error").handle(record)
    line = caplog.records[-1].getMessage()
    assert "SECRET" not in line
    assert text in line


def as_given(message: str, arguments: tuple[Any, ...]) -> Any:
    """Return the arguments of a record; websockets gives a frame, which is written when the line is."""

    class Frame:
        def __str__(self) -> str:
            return str(arguments[0])

    return (Frame(),) if message[0] in "<>" else arguments


LONG = 60 * 1024


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/ws?" + "%25=b&" * (LONG // 6), "/ws?***"),
        ("/ws?" + "%25=b&" * 650 + "token=SECRET", "/ws?***"),
        ("/ws?" + "a=b&" * 33 + "token=SECRET", "/ws?***"),
        ("/ws?" + "%25" * 257 + "=b&token=SECRET", "/ws?***"),
        ("/ws?" + "a=b&" * 31 + "token=SECRET", "/ws?" + "a=b&" * 31 + "token=***"),
        ("/ws?token=SECRET&" + "a" * LONG, "/ws?***"),
        ("/ws?" + "a" * LONG + "&token=SECRET", "/ws?***"),
        ("token=SECRET&" + "x" * LONG, "token=***"),
        ("{'query_string': b'token=SECRET?" + "x" * LONG, "{'query_string': b'token=***"),
        ("/ws?" + "a" * 200_000 + "&" + "%74" * 100_000 + "=x", "/ws?***"),
        ("?" * LONG, "?***"),
        ("bearer." * (LONG // 7), "bearer.***"),
        ("/" * LONG, "/" * LONG),
        ("< TEXT " + "[" * LONG, "< TEXT " + "[" * LONG),
        ("{$auth" * (LONG // 6), "***"),
        ("?{$auth" * (LONG // 7), "?***"),
        ("""< TEXT '{"data":{"token":"SECRET""" + "=" * 99 + """"}}' [130 bytes]""", "< TEXT *** [130 bytes]"),
    ],
)
def test_a_long_line_is_rewritten_in_no_time(text: str, left: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a client sends does not make it slow: of a long text all parameters are hidden without a look at each."""
    redact_parameter("token")
    redact_header("sec-websocket-protocol")
    redact_frames()
    record = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "%s %d", (text, 200), None)
    with caplog.at_level(logging.INFO, "uvicorn.error"):
        before = time.thread_time()
        logging.getLogger("uvicorn.error").handle(record)
        spent = time.thread_time() - before
    assert record.getMessage() == f"{left} 200"
    assert spent < 0.02
