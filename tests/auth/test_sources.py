"""Each place of a credential with two real clients, and what handlers see of it."""

import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import aiohttp
import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol as Offered

from tests.auth.handshakes import handshake, request
from tests.auth.tokens import SECRET, token
from tests.support import Server, connect, serve
from wsrouter import ConfigurationError, Connection, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import BadCredential, Cookie, Header, JWTAuth, Principal, Query, Source, Subprotocol, Ticket
from wsrouter.guards import AllowOrigins
from wsrouter.messages import Message

BARE = "Bearer"
INVALID = 'Bearer error="invalid_token"'
MISSING: dict[str, Any] = {"code": "unauthenticated", "detail": "A token is needed"}
WRONG: dict[str, Any] = {"code": "unauthenticated", "detail": "The token is not valid"}


class Look(Message):
    pass


class Mirror(WebSocketHandler):
    """Tells what a handler sees of its handshake, from every side."""

    built = 0

    def __init__(self, websocket: WebSocket, again: HTTPConnection) -> None:
        type(self).built += 1
        self.websocket, self.again = websocket, again

    @on
    async def look(self, message: Look) -> dict[str, Any]:
        every = (self.connection, self.connection.http, self.websocket, self.again)
        return {
            "user": self.user.id,
            "headers": [sorted(map(list, each.headers.items())) for each in every],
            "offered": self.connection.scope["subprotocols"],
            "chosen": self.connection.subprotocol,
            "scope": repr(self.connection.scope),
        }


def application(*guards: Any, first: Any = None) -> FastAPI:
    Mirror.built = 0
    router = WebSocketRouter(prefix="/ws", guards=guards)
    router.add_handler("/mirror", Mirror)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(first)] if first is not None else None)
    return app


@dataclass(frozen=True)
class Outcome:
    """What a client saw: what the handler told, or how it was denied."""

    status: int
    challenge: str | None
    body: Any
    subprotocol: str | None = None


@dataclass(frozen=True)
class Sent:
    """What a client sends along."""

    headers: Mapping[str, str]
    query: str = ""
    subprotocols: tuple[str, ...] = ()


async def with_websockets(server: Server, sent: Sent) -> Outcome:
    offered = [Offered(each) for each in sent.subprotocols]
    try:
        async with connect(
            server, "/ws/mirror" + sent.query, additional_headers=dict(sent.headers), subprotocols=offered or None
        ) as ws:
            await ws.send('{"type":"look","id":1}')
            return Outcome(101, None, json.loads(await ws.recv())["data"], ws.subprotocol)
    except InvalidStatus as denied:
        answer = denied.response
        return Outcome(answer.status_code, answer.headers.get("WWW-Authenticate"), json.loads(answer.body or b"null"))


async def with_aiohttp(server: Server, sent: Sent) -> Outcome:
    async with aiohttp.ClientSession() as session:
        url = server.http("/ws/mirror" + sent.query)
        try:
            async with session.ws_connect(url, headers=dict(sent.headers), protocols=sent.subprotocols) as ws:
                await ws.send_str('{"type":"look","id":1}')
                return Outcome(101, None, (await ws.receive_json())["data"], ws.protocol)
        except aiohttp.WSServerHandshakeError as denied:
            challenge = None if denied.headers is None else denied.headers.get("WWW-Authenticate")
            # aiohttp does not read the body of a refused handshake.
            return Outcome(denied.status, challenge, MISSING if challenge == BARE else WRONG)


Client: TypeAlias = Callable[[Server, Sent], Coroutine[Any, Any, Outcome]]
each_client = pytest.mark.parametrize("client", [with_websockets, with_aiohttp])
each_server = pytest.mark.parametrize("server_name", ["uvicorn", "hypercorn"])
ServerName = Literal["uvicorn", "hypercorn"]

WAYS: dict[str, tuple[Source, Callable[[str], Sent]]] = {
    "header": (Header(), lambda text: Sent({"Authorization": f"Bearer {text}"})),
    "cookie": (Cookie("session"), lambda text: Sent({"Cookie": f"theme=dark; session={text}"})),
    "subprotocol": (Subprotocol(), lambda text: Sent({}, "", ("wsrouter.v1", f"bearer.{text}"))),
    "query": (Query("token"), lambda text: Sent({}, f"?room=1&token={text}")),
}
each_way = pytest.mark.parametrize("way", list(WAYS))


@each_server
@each_client
@each_way
async def test_a_good_credential_is_let_in_and_a_bad_one_is_not(
    way: str, client: Client, server_name: ServerName
) -> None:
    """In every place, with two clients and on two servers: in with a good one, 401 before accept with a bad one."""
    source, sent = WAYS[way]
    app = application(
        AllowOrigins("https://app.example", missing=True), JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source])
    )
    async with serve(app, server=server_name) as server:
        outcome = await client(server, sent(token()))
        assert (outcome.status, outcome.body["user"]) == (101, "ada")
        assert Mirror.built == 1
        assert await client(server, sent(token(SECRET[::-1]))) == Outcome(401, INVALID, WRONG)
        assert await client(server, Sent({})) == Outcome(401, BARE, MISSING)
        expired = await client(server, sent(token(exp=1)))
        assert (expired.status, expired.challenge) == (401, f'{INVALID}, error_description="The token has expired"')
    assert Mirror.built == 1


@each_client
async def test_a_ticket_is_let_in_once(client: Client) -> None:
    """A ticket from an HTTP route opens one connection; the second try and a made-up one are denied."""
    tickets = Ticket()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Header(), tickets])
    app = application(auth)

    @app.post("/tickets")
    async def issue(user: Annotated[Principal, Depends(auth)]) -> str:
        return await tickets.issue(user, path="/ws/mirror")

    async with serve(app) as server, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {token()}"}
        async with session.post(server.http("/tickets"), headers=headers) as answer:
            ticket = await answer.json()
        outcome = await client(server, Sent({}, f"?ticket={ticket}"))
        assert (outcome.status, outcome.body["user"]) == (101, "ada")
        assert await client(server, Sent({}, f"?ticket={ticket}")) == Outcome(401, INVALID, WRONG)
        assert await client(server, Sent({}, "?ticket=" + "A" * 43)) == Outcome(401, INVALID, WRONG)


@each_way
async def test_an_http_route_reads_the_same_places(way: str) -> None:
    """The same object as a dependency gives the user, and answers 401 with WWW-Authenticate; a route has no
    subprotocols."""
    source, sent = WAYS[way]
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source], realm="chat")
    app = FastAPI()

    @app.get("/me")
    async def me(user: Annotated[Principal, Depends(auth)]) -> str:
        return user.id

    async with serve(app) as server:
        answers: list[tuple[int, str | None]] = []
        for each in (sent(token()), sent("nonsense"), Sent({})):
            headers = list(each.headers.items())
            if each.subprotocols:
                headers.append(("Sec-WebSocket-Protocol", ", ".join(each.subprotocols)))
            answer = await request(server, "/me" + each.query, headers)
            answers.append((answer.status, answer.headers.get("www-authenticate")))
    bare, invalid = 'Bearer realm="chat"', 'Bearer realm="chat", error="invalid_token"'
    if way == "subprotocol":
        assert answers == [(401, bare)] * 3
    else:
        assert answers == [(200, None), (401, invalid), (401, bare)]


class Counting(Source):
    """A place that counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    def find(self, connection: HTTPConnection) -> str | None:
        self.looks += 1
        return token()


async def test_it_looks_once_wherever_it_is_asked_from() -> None:
    """An outer FastAPI dependency, two guards, the constructor and a method share one look."""
    source = Counting()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source])

    async def depends_on_it(user: Annotated[Principal, Depends(auth)]) -> str:
        return user.id

    class Asking(WebSocketHandler):
        def __init__(self, user: Annotated[Principal, Depends(auth)]) -> None:
            self.first = user

        @on
        async def look(self, message: Look, user: Annotated[Principal, Depends(auth)]) -> bool:
            return self.first is user is self.user

    router = WebSocketRouter(prefix="/ws", guards=[depends_on_it, auth])
    router.add_handler("/mirror", Asking)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(auth)])
    async with serve(app) as server, connect(server, "/ws/mirror") as ws:
        await ws.send('{"type":"look","id":1}')
        assert json.loads(await ws.recv())["data"] is True
    assert source.looks == 1


async def test_a_ticket_is_spent_once_by_everything_that_asks() -> None:
    """An outer dependency and a guard both ask; the ticket would be gone the second time."""
    tickets = Ticket()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[tickets])
    ticket = await tickets.issue(Principal("ada"), path="/ws/mirror")
    async with serve(application(auth, first=auth)) as server:
        outcome = await with_websockets(server, Sent({}, f"?ticket={ticket}"))
    assert outcome.body["user"] == "ada"


def reads_headers(connection: Connection) -> None:
    assert "host" in connection.headers


def reads_another_view(websocket: WebSocket, http: HTTPConnection) -> None:
    assert "host" in websocket.headers
    assert "host" in http.headers


@pytest.mark.parametrize("before", [(), (reads_headers,), (reads_another_view,), (reads_headers, reads_another_view)])
@pytest.mark.parametrize("way", ["subprotocol", "header"])
async def test_a_handler_does_not_see_a_bearer_subprotocol(way: str, before: tuple[Any, ...]) -> None:
    """It is gone from the list, from the headers and from the scope, whichever source decided and whoever had
    looked before; nothing but what was offered is chosen."""
    secret = "S3cret" + token().replace(".", "")
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Header(), Subprotocol()])
    good = token()
    headers = {"Authorization": f"Bearer {good}"} if way == "header" else {}
    offered = ("other", f"bearer.{secret if way == 'header' else good}", "wsrouter.v1")
    async with serve(application(*before, auth)) as server:
        outcome = await with_websockets(server, Sent(headers, "", offered))
    assert outcome.subprotocol == outcome.body["chosen"] == "wsrouter.v1"
    assert outcome.body["offered"] == ["other", "wsrouter.v1"]
    for seen in outcome.body["headers"]:  # wsproto leaves the header out
        assert dict(seen).get("sec-websocket-protocol", "other, wsrouter.v1") == "other, wsrouter.v1"
    text = json.dumps(outcome.body)
    assert "bearer." not in text
    assert secret not in text


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["bearer.{good}"], None),
        (["bearer.{good}", "wsrouter.v1"], "wsrouter.v1"),
        (["other", "bearer.{good}"], None),
        (["WSROUTER.V1", "bearer.{good}"], None),
    ],
)
async def test_nothing_is_chosen_that_was_not_offered(offered: list[str], chosen: str | None) -> None:
    """The credential is never echoed, alone or in company; subprotocols are compared with case."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Subprotocol()])
    async with serve(application(auth)) as server:
        filled = [each.replace("{good}", token()) for each in offered]
        outcome = await with_websockets(server, Sent({}, "", tuple(filled)))
    assert (outcome.status, outcome.subprotocol) == (101, chosen)


async def test_a_raw_handler_never_echoes_a_credential() -> None:
    """Not even one whose class names it among its subprotocols."""
    good = token()

    class Raw(WebSocketHandler):
        subprotocols = (f"bearer.{good}", "chat.v2")

        async def on_message(self, text: str) -> None: ...

    router = WebSocketRouter(guards=[JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Subprotocol()])])
    router.add_handler("/ws/mirror", Raw)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        for offered, chosen in (([f"bearer.{good}"], None), ([f"bearer.{good}", "chat.v2"], "chat.v2")):
            async with connect(server, "/ws/mirror", subprotocols=[Offered(each) for each in offered]) as ws:
                assert ws.subprotocol == chosen


@asynccontextmanager
async def only_http(auth: JWTAuth) -> AsyncGenerator[Server]:
    app = FastAPI()

    @app.get("/me")
    async def me(user: Annotated[Principal, Depends(auth)]) -> str:
        return user.id

    async with serve(app, http="httptools") as server:
        yield server


@pytest.mark.parametrize(("size", "status"), [(8192, 200), (8193, 401), (9000, 401), (10_000_000, 401)])
async def test_a_token_over_8_kib_is_not_looked_at(size: int, status: int) -> None:
    """A valid token of 8,192 bytes is let in, one of a byte more is not; one of 10 MB is refused as fast."""
    base = len(token(pad=""))
    text = token(pad="x" * ((size - base) * 3 // 4))
    while len(text) < size:
        text = token(pad="x" * ((size - base) * 3 // 4 + size - len(text)))
    assert len(text) == size
    async with only_http(JWTAuth(key=SECRET, algorithms=["HS256"])) as server:
        answer = await request(server, "/me", [("Authorization", f"Bearer {text}")])
    assert answer.status == status


async def test_a_token_too_large_is_denied_on_a_websocket() -> None:
    """wsproto takes headers of that size, and the denial is the usual one."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"])
    async with serve(application(auth), ws="wsproto", http="h11", h11_max_incomplete_event_size=65536) as server:
        outcome = await with_websockets(server, Sent({"Authorization": f"Bearer {token(pad='x' * 9000)}"}))
    assert outcome == Outcome(401, INVALID, WRONG)


def test_a_cookie_source_is_ambient() -> None:
    """Whoever binds a chain can see that a browser sends the credential by itself."""
    assert JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Header(), Cookie("session")]).ambient
    assert not JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Subprotocol(), Query("token"), Ticket()]).ambient


@each_way
async def test_a_denial_by_close_frame_says_nothing_of_the_credential(way: str) -> None:
    """With reject="close" the codes are 4401, and 4519 for an expired token; the chosen subprotocol is ours."""
    source, sent = WAYS[way]
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[source])
    router = WebSocketRouter(
        prefix="/ws", guards=[AllowOrigins("https://app.example", missing=True), auth], reject="close"
    )
    router.add_handler("/mirror", Mirror)
    app = FastAPI()
    app.include_router(router)
    closings: list[tuple[int, str]] = []
    async with serve(app) as server:
        for each in (sent(token(SECRET[::-1])), sent(token(exp=1)), Sent({})):
            offered = [Offered(name) for name in each.subprotocols]
            async with connect(
                server, "/ws/mirror" + each.query, additional_headers=dict(each.headers), subprotocols=offered or None
            ) as ws:
                assert ws.subprotocol == ("wsrouter.v1" if offered else None)
                with pytest.raises(ConnectionClosed) as closing:
                    await ws.recv()
                assert closing.value.rcvd is not None
                closings.append((closing.value.rcvd.code, closing.value.rcvd.reason))
    assert closings == [
        (4401, "The token is not valid"),
        (4519, "The token has expired"),
        (4401, "A token is needed"),
    ]


@pytest.mark.parametrize("blank", [b"\xa0", b"\x85"])
@pytest.mark.parametrize("place", ["before the name", "behind the name", "before the value", "behind the value"])
async def test_what_only_unicode_takes_for_white_space_is_part_of_a_cookie(blank: bytes, place: str) -> None:
    """A page of a subdomain may set ``\\xa0__Host-session``: that is another cookie, and no token has such a value."""
    name, value = b"__Host-session", token().encode()
    pair = {
        "before the name": blank + name + b"=" + value,
        "behind the name": name + blank + b"=" + value,
        "before the value": name + b"=" + blank + value,
        "behind the value": name + b"=" + value + blank,
    }[place]
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Cookie("__Host-session")])
    async with only_http(auth) as server:
        refused = INVALID if place.endswith("value") else BARE
        for cookies in (pair, b"theme=dark; " + pair, b"theme=dark;\t" + pair + b"; other=1"):
            answer = await request(server, "/me", [("Cookie", cookies)])
            assert (answer.status, answer.headers["www-authenticate"]) == (401, refused)
        good = b"theme=dark;\t __Host-session \t=\t" + value + b" ; " + pair.replace(name, b"x")
        assert (await request(server, "/me", [("Cookie", good)])).status == 200


@pytest.mark.parametrize("blank", [b"\xa0", b"\x85"])
async def test_what_only_unicode_takes_for_white_space_is_no_part_of_a_bearer(blank: bytes) -> None:
    """In ``Authorization`` it makes another scheme, or a bad token; among subprotocols it makes another element."""
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Header(), Subprotocol()])
    value = token().encode()
    async with only_http(auth) as server:
        for given, challenge in (
            (blank + b"Bearer " + value, BARE),
            (b"Bearer" + blank + value, BARE),
            (b"Bearer" + blank, BARE),
            (b"Bearer " + blank + value, INVALID),
            (b"Bearer " + value + blank, INVALID),
        ):
            answer = await request(server, "/me", [("Authorization", given)])
            assert (answer.status, answer.headers["www-authenticate"]) == (401, challenge)
    # On wsproto, uvicorn itself hangs up on such a header.
    async with serve(application(auth), ws="websockets-sansio") as server:
        for given in (blank + b"bearer." + value, b"bearer." + value + blank):
            answer = await handshake(server, "/ws/mirror", [("Sec-WebSocket-Protocol", b"wsrouter.v1, " + given)])
            assert answer.status in (400, 401)


async def test_a_ticket_for_a_mounted_application_has_the_whole_path() -> None:
    """The path is the one that the client connects to, with the prefixes of mounts and routers."""
    tickets = Ticket()
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[tickets])
    outer = FastAPI()
    outer.mount("/mounted", application(auth))
    async with serve(outer) as server:
        for path, status in (("/mounted/ws/mirror", 101), ("/ws/mirror", 401)):
            ticket = await tickets.issue(Principal("ada"), path=path)
            answer = await handshake(server, f"/mounted/ws/mirror?ticket={ticket}")
            assert answer.status == status


async def test_a_source_of_ones_own() -> None:
    """A subclass of Source is asked in its turn, and may say that there is a credential that can't be right."""

    class Custom(Source):
        def find(self, connection: HTTPConnection) -> str | None:
            text = connection.headers.get("x-token")
            if text == "twice":
                raise BadCredential("it is there twice")
            return text

    auth = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Custom(), Header()])
    async with serve(application(auth)) as server:
        assert (await with_websockets(server, Sent({"X-Token": token()}))).status == 101
        both = {"X-Token": "twice", "Authorization": f"Bearer {token()}"}
        assert await with_websockets(server, Sent(both)) == Outcome(401, INVALID, WRONG)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cookie(""),
        lambda: Cookie("a b"),
        lambda: Cookie("session="),
        lambda: Query(""),
        lambda: Ticket(ttl=0),
        lambda: Ticket(ttl=float("nan")),
        lambda: Ticket(parameter=""),
        lambda: Ticket(per_user=0),
    ],
)
def test_a_place_that_can_not_be_is_refused(make: Callable[[], Source]) -> None:
    """The error says what was expected."""
    with pytest.raises(ConfigurationError, match="expected"):
        make()
