"""`RequireScopes` and `RequireSubprotocol`, over real sockets and on HTTP routes."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from tests.support import Server, connect, serve
from tests.wire import RawClient
from wsrouter import ConfigurationError, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.auth import Authenticator
from wsrouter.guards import RequireScopes, RequireSubprotocol


@dataclass
class User:
    id: str
    scopes: Any


class Account:
    """A user who knows nothing of scopes."""

    id = "ada"


USERS: dict[str, Any] = {
    "set": User("ada", frozenset({"chat:read", "chat:write"})),
    "list": User("ada", ["chat:write"]),
    "text": User("ada", "chat:read chat:write"),
    "part": User("ada", {"chat:writes", "chat"}),
    "part-text": User("ada", "chat:writes chat"),
    "none": User("ada", None),
    "account": Account(),
}


async def sign_in(connection: HTTPConnection, x_user: Annotated[str, Header()] = "") -> None:
    if x_user:
        connection.scope["user"] = USERS[x_user]


def application(*guards: Any, handler: type[WebSocketHandler] = WebSocketHandler) -> FastAPI:
    router = WebSocketRouter(guards=guards)
    router.add_handler("/", handler)
    app = FastAPI()
    app.include_router(router)
    return app


async def denied(server: Server, **options: Any) -> Response:
    with pytest.raises(InvalidStatus) as failure:
        await connect(server, **options)
    return failure.value.response


@pytest.mark.parametrize("user", ["set", "list", "text"])
async def test_a_user_with_the_scope_is_let_in(user: str) -> None:
    """Scopes may be a collection of texts, or one text with spaces."""
    app = application(sign_in, RequireScopes("chat:write"))
    async with serve(app) as server, connect(server, additional_headers={"x-user": user}):
        pass


@pytest.mark.parametrize("user", ["part", "part-text", "none", "account"])
async def test_a_user_without_the_scope_is_denied(user: str) -> None:
    """It is 403 with the challenge of RFC 6750; a scope that only begins alike is another."""
    async with serve(application(sign_in, RequireScopes("chat:write"))) as server:
        response = await denied(server, additional_headers={"x-user": user})
    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="chat:write"'


async def test_all_scopes_are_needed() -> None:
    """Of several scopes one is not enough, and the challenge names them in their order."""
    async with serve(application(sign_in, RequireScopes("chat:write", "chat:read"))) as server:
        response = await denied(server, additional_headers={"x-user": "list"})
        assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="chat:write chat:read"'
        async with connect(server, additional_headers={"x-user": "set"}):
            pass


async def test_nobody_is_asked_to_sign_in() -> None:
    """Without a user it is 401, with a challenge that says no error (RFC 6750, section 3.1)."""
    async with serve(application(sign_in, RequireScopes("chat:write"))) as server:
        response = await denied(server)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer scope="chat:write"'


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        scopes = conn.headers.get("x-scopes")
        return None if scopes is None else (AuthCredentials(scopes.split()), SimpleUser("ada"))


async def test_scopes_of_starlette_s_middleware() -> None:
    """The user and credentials of AuthenticationMiddleware count; its unauthenticated user is nobody."""
    app = application(RequireScopes("chat:write"))
    app.add_middleware(AuthenticationMiddleware, backend=Backend())
    async with serve(app) as server:
        async with connect(server, additional_headers={"x-scopes": "authenticated chat:write"}):
            pass
        assert (await denied(server, additional_headers={"x-scopes": "authenticated"})).status_code == 403
        assert (await denied(server)).status_code == 401


async def test_scopes_on_an_http_route() -> None:
    """The same object is a dependency of an HTTP route, after what finds the user."""
    app = FastAPI()

    @app.get("/", dependencies=[Depends(sign_in), Depends(RequireScopes("chat:write"))])
    async def read() -> str:
        return "read"

    async with (
        serve(app) as server,
        httpx.AsyncClient(trust_env=False, verify=server.trust or True, base_url=server.http()) as client,
    ):
        assert (await client.get("/", headers={"x-user": "set"})).json() == "read"
        lacking = await client.get("/", headers={"x-user": "part"})
        nobody = await client.get("/")
    assert lacking.status_code == 403
    assert lacking.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="chat:write"'
    assert nobody.status_code == 401


class Draft(Message):
    text: str


class Editor(WebSocketHandler):
    @on(guards=[RequireScopes("chat:write")])
    async def draft(self, message: Draft) -> str:
        return message.text


async def test_scopes_of_one_method() -> None:
    """On a method it answers an error frame, and the connection lives: forbidden, or unauthenticated for nobody."""
    frame = '{"type":"draft","id":1,"data":{"text":"hi"}}'
    async with serve(application(sign_in, handler=Editor)) as server:
        for user, expected in (("set", "$ok"), ("part", "forbidden"), ("", "unauthenticated")):
            async with connect(server, additional_headers={"x-user": user}) as ws:
                for _ in range(2):
                    await ws.send(frame)
                    reply = json.loads(await ws.recv())
                    assert reply["id"] == 1
                    assert (reply["error"]["code"] if reply["type"] == "$error" else reply["type"]) == expected


async def test_a_denial_quotes_nothing_of_the_client() -> None:
    """Neither the user's name nor their scopes are in the response."""
    USERS["evil"] = User("hunter2", "hunter2:write hunter2")
    async with serve(application(sign_in, RequireScopes("chat:write"))) as server, RawClient(server) as client:
        assert await client.handshake(headers=[("X-User", "evil")]) == 403
        assert b"hunter2" not in client.head + await client.end()


@pytest.mark.parametrize(
    "scopes", [(), ("",), ("chat:read chat:write",), ('a"b',), ("a\\b",), ("ä",), (["a"],), ("a\n",)]
)
def test_what_is_no_scope_is_refused(scopes: tuple[Any, ...]) -> None:
    """A scope that would break out of the header, or is several, is refused when the guard is made."""
    with pytest.raises(ConfigurationError, match=r"RequireScopes\(.*chat:write"):
        RequireScopes(*scopes)


def test_it_runs_again_when_the_user_changes() -> None:
    """The session goes by an attribute, so that a guard of the application's own can have it."""
    assert RequireScopes("chat:write").reads_user


@pytest.mark.logs_errors
async def test_before_the_authenticator_it_is_refused_at_start() -> None:
    """It would admit nobody there."""

    class Named(Authenticator):
        async def __call__(self) -> User:
            return User("ada", {"chat:write"})

    with pytest.raises(ConfigurationError, match=r"RequireScopes goes by the user, and is listed before .*Named"):
        async with serve(application(RequireScopes("chat:write"), Named())):
            pass
    async with serve(application(Named(), RequireScopes("chat:write"))) as server, connect(server):
        pass


@pytest.mark.parametrize("blank", ["\xa0", "\u2003", "\n", "\t"])
async def test_only_a_space_separates_scopes(blank: str) -> None:
    """Other white space does not make two scopes of what was granted as one."""
    USERS["odd"] = User("odd", f"read{blank}chat:write")
    USERS["even"] = User("even", " read  chat:write ")
    async with serve(application(sign_in, RequireScopes("chat:write"))) as server:
        assert (await denied(server, additional_headers={"x-user": "odd"})).status_code == 403
        async with connect(server, additional_headers={"x-user": "even"}):
            pass


class Raw(WebSocketHandler):
    subprotocols = ["chat.v1", "chat.v2"]

    async def on_message(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (["chat.v2"], "chat.v2"),
        (["chat.v3", "chat.v2"], "chat.v2"),
        (["chat.v2", "chat.v1"], "chat.v2"),
        (["chat.v1", "chat.v2"], None),
        (["chat.v1"], None),
        (["CHAT.V2"], None),
        (["chat.v2.1"], None),
        (["xchat.v2"], None),
        (None, None),
    ],
)
async def test_a_raw_handler_s_subprotocol(offered: list[Subprotocol] | None, agreed: str | None) -> None:
    """Who is let in speaks what is demanded and is told so; who offers it not, or not first, is denied with 400."""
    async with serve(application(RequireSubprotocol("chat.v2"), handler=Raw)) as server:
        if agreed is not None:
            async with connect(server, subprotocols=offered) as ws:
                assert ws.subprotocol == agreed
        else:
            response = await denied(server, subprotocols=offered)
            assert response.status_code == 400
            assert response.body == b'{"code": "invalid", "detail": "Offer the subprotocol chat.v2"}'


@pytest.mark.logs_errors
@pytest.mark.parametrize("handler", [Raw, WebSocketHandler])
async def test_a_subprotocol_that_nobody_speaks_is_refused_at_start(handler: type[WebSocketHandler]) -> None:
    """To demand what the handler does not speak would admit nobody; the error says what it does speak."""
    spoken = r"chat\.v1 and chat\.v2" if handler is Raw else r"wsrouter\.v1"
    with pytest.raises(ConfigurationError, match=rf"demands chat\.v9, and the handler speaks {spoken}"):
        async with serve(application(RequireSubprotocol("chat.v9"), handler=handler)):
            pass


async def test_the_subprotocol_of_the_envelope() -> None:
    """A handler that speaks the envelope agrees on what its codecs do, beside a credential in the same header."""
    async with serve(application(RequireSubprotocol("wsrouter.v1"))) as server:
        offered = [Subprotocol("bearer.secret"), Subprotocol("wsrouter.v1")]
        async with connect(server, subprotocols=offered) as ws:
            assert ws.subprotocol == "wsrouter.v1"
        for without in (None, [Subprotocol("bearer.secret")]):
            response = await denied(server, subprotocols=without)
            assert response.status_code == 400
            assert b"secret" not in (response.body or b"")


async def test_one_of_several_subprotocols() -> None:
    """Any of those that are listed will do, and the denial names all of them."""
    async with serve(application(RequireSubprotocol("chat.v2", "chat.v1"), handler=Raw)) as server:
        for name in ("chat.v1", "chat.v2"):
            async with connect(server, subprotocols=[Subprotocol(name)]) as ws:
                assert ws.subprotocol == name
        assert b"chat.v2 or chat.v1" in ((await denied(server)).body or b"")


@pytest.mark.parametrize("subprotocols", [(), ("",), ("chat.v1, chat.v2",), ("chat v1",), ("ä",), (1,)])
def test_what_is_no_subprotocol_is_refused(subprotocols: tuple[Any, ...]) -> None:
    """A subprotocol that no client can offer is refused when the guard is made."""
    with pytest.raises(ConfigurationError, match=r"RequireSubprotocol\(.*chat\.v2"):
        RequireSubprotocol(*subprotocols)
