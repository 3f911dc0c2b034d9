"""What can be injected, and into what: parameters of the handshake, scopes of security, and types that are given."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Path, Query, Response, Security, WebSocket
from fastapi.security import SecurityScopes
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from typing_extensions import TypeAliasType
from websockets.exceptions import InvalidStatus

from tests.injecting import app_of, call
from tests.support import connect, serve
from wsrouter import CloseInfo, Connection, Deny, Hub, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import Denied, WebSocketTestClient


class Page(BaseModel):
    limit: int = Field(10, le=100)
    tags: list[str] = []


async def page_of(page: Annotated[Page, Query()]) -> Page:
    return page


async def beneath(
    room: int,
    q: str,
    x_token: Annotated[str, Header()],
    session_id: Annotated[str, Cookie()],
) -> list[Any]:
    return [room, q, x_token, session_id]


async def between(values: Annotated[list[Any], Depends(beneath)]) -> list[Any]:
    return [*values, "between"]


EXPECTED = [7, "hello", "t0ken", "s3ssion"]
seen: list[tuple[str, Any]] = []


async def guard(
    room: int,
    q: str,
    x_token: Annotated[str, Header()],
    session_id: Annotated[str, Cookie()],
    values: Annotated[list[Any], Depends(between)],
) -> None:
    seen.append(("guard", [room, q, x_token, session_id]))
    seen.append(("guard's dependency", values))


class Everywhere(WebSocketHandler):
    guards = [guard]

    def __init__(
        self,
        room: Annotated[int, Path(ge=1)],
        q: str,
        x_token: Annotated[str, Header()],
        session_id: Annotated[str, Cookie()],
        page: Annotated[Page, Depends(page_of)],
        values: Annotated[list[Any], Depends(between)],
        missing: int = 5,
        optional: Annotated[str | None, Query()] = None,
    ) -> None:
        seen.append(("constructor", [room, q, x_token, session_id]))
        seen.append(("constructor's dependency", values))
        assert (page.limit, page.tags, missing, optional) == (20, ["a", "b"], 5, None)

    async def on_connect(
        self,
        room: int,
        q: str,
        x_token: Annotated[str, Header()],
        session_id: Annotated[str, Cookie()],
        values: Annotated[list[Any], Depends(between)],
    ) -> None:
        seen.append(("on_connect", [room, q, x_token, session_id]))
        seen.append(("on_connect's dependency", values))

    @on("use")
    async def use(
        self,
        message: None,
        room: int,
        q: str,
        x_token: Annotated[str, Header()],
        session_id: Annotated[str, Cookie()],
        page: Annotated[Page, Depends(page_of)],
        values: Annotated[list[Any], Depends(between)],
    ) -> list[Any]:
        seen.append(("method's dependency", values))
        assert (page.limit, page.tags) == (20, ["a", "b"])
        return [room, q, x_token, session_id]

    async def on_disconnect(
        self,
        close: CloseInfo,
        room: int,
        q: str,
        x_token: Annotated[str, Header()],
        session_id: Annotated[str, Cookie()],
        values: Annotated[list[Any], Depends(between)],
    ) -> None:
        seen.append(("on_disconnect", [room, q, x_token, session_id]))
        seen.append(("on_disconnect's dependency", values))


async def test_parameters_of_the_handshake_reach_every_callable() -> None:
    """Path, query, header and cookie parameters come to guards, constructor, hooks, methods and their dependencies."""
    seen.clear()
    headers = {"X-Token": "t0ken", "Cookie": "session_id=s3ssion"}
    async with (
        serve(app_of(Everywhere, "/ws/{room}")) as server,
        connect(server, "/ws/7?q=hello&limit=20&tags=a&tags=b", additional_headers=headers) as ws,
    ):
        await ws.send('{"type":"use","id":1}')
        assert await ws.recv() == '{"type":"$ok","id":1,"data":[7,"hello","t0ken","s3ssion"]}'
    assert seen == [
        (place, EXPECTED if "dependency" not in place else [*EXPECTED, "between"])
        for place in (
            "guard",
            "guard's dependency",
            "constructor",
            "constructor's dependency",
            "on_connect",
            "on_connect's dependency",
            "method's dependency",
            "on_disconnect",
            "on_disconnect's dependency",
        )
    ]


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("/ws/seven?q=a", ["path", "room"]),
        ("/ws/0?q=a", ["path", "room"]),
        ("/ws/7", ["query", "q"]),
        ("/ws/7?q=a&limit=1000", ["query", "limit"]),
    ],
)
async def test_parameters_that_do_not_validate_are_a_denial(path: str, loc: list[str]) -> None:
    """A parameter that FastAPI would refuse is a 422 that names the place and does not repeat the input."""
    headers = {"X-Token": "t0ken", "Cookie": "session_id=s3ssion"}
    async with WebSocketTestClient(app_of(Everywhere, "/ws/{room}")) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect(path, headers=headers):
                pass
    assert denied.value.status == 422
    assert denied.value.json()["detail"][0]["loc"] == loc
    assert "input" not in denied.value.json()["detail"][0]


@pytest.mark.parametrize("included", [True, False], ids=["included", "own prefix"])
async def test_a_path_parameter_with_a_convertor_is_never_read_from_the_query(included: bool) -> None:
    """`{doc:int}` is the path parameter `doc`, as in FastAPI: a guard that goes by it sees what the route matched."""
    path = "/docs/{doc:int}/{tail:path}"
    seen: list[tuple[str, int, str]] = []

    async def may_read(doc: int, tail: str) -> None:
        seen.append(("guard", doc, tail))
        if doc != 7:
            raise Deny(403)

    class Document(WebSocketHandler):
        def __init__(self, doc: int, tail: str) -> None:
            seen.append(("constructor", doc, tail))

        @on("read")
        async def read(self, payload: None, doc: int, tail: str) -> list[Any]:
            return [doc, tail, self.connection.path_params["doc"]]

    router = WebSocketRouter(prefix="" if included else path, guards=[may_read])
    router.add_handler("", Document)
    app = FastAPI()
    app.include_router(router, prefix=path if included else "")
    async with serve(app) as server:
        async with connect(server, "/docs/7/a/b?doc=1&tail=c") as ws:
            await ws.send('{"type":"read","id":1}')
            assert await ws.recv() == '{"type":"$ok","id":1,"data":[7,"a/b",7]}'
        assert seen == [("guard", 7, "a/b"), ("constructor", 7, "a/b")]
        with pytest.raises(InvalidStatus) as denied:
            await connect(server, "/docs/1/a?doc=7")
        assert denied.value.response.status_code == 403


async def test_a_path_parameter_may_have_the_name_of_a_close_code() -> None:
    """What is refused in `on_disconnect` is what a client could fill in with its query, and nothing else."""
    left: list[tuple[str, int]] = []

    class Leaving(WebSocketHandler):
        async def on_disconnect(self, code: str, reason: Annotated[int, Query()]) -> None:
            left.append((code, reason))

    async with WebSocketTestClient(app_of(Leaving, "/ws/{code}")) as client:
        async with client.connect("/ws/a?code=b&reason=1"):
            pass
        assert left == [("a", 1)]


async def test_what_on_disconnect_reads_is_checked_before_accept() -> None:
    """Else a client that leaves a parameter out would be let in, and keep `on_disconnect` from being called."""
    left: list[tuple[str, int]] = []

    async def limit_of(limit: int) -> int:
        return limit

    class Leaving(WebSocketHandler):
        async def on_disconnect(self, tenant: str, limit: Annotated[int, Depends(limit_of)]) -> None:
            left.append((tenant, limit))

    async with WebSocketTestClient(app_of(Leaving, "/ws")) as client:
        for query, missing in (("?limit=1", "tenant"), ("?tenant=a", "limit"), ("?tenant=a&limit=x", "limit")):
            with pytest.raises(Denied) as denied:
                async with client.connect(f"/ws{query}"):
                    pass
            assert (denied.value.status, denied.value.json()["detail"][0]["loc"]) == (422, ["query", missing])
        async with client.connect("/ws?tenant=a&limit=1"):
            pass
        assert left == [("a", 1)]


async def test_a_methods_own_parameters_are_read_when_it_is_called() -> None:
    """A query parameter that only a method needs is missed in an answer to its message, not in the handshake."""

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, q: str) -> str:
            return q

    async with WebSocketTestClient(app_of(Handler)) as client:
        async with client.connect("/ws?q=a") as ws:
            assert await call(ws) == "a"
        async with client.connect("/ws") as ws:
            await ws.send_json({"type": "use", "id": 1})
            error = (await ws.receive())["error"]
    assert (error["code"], error["details"][0]["loc"]) == ("invalid", ["query", "q"])


async def test_security_scopes_add_up_from_the_outside() -> None:
    """SecurityScopes holds the scopes of all Security() around it; calls with other scopes are other values."""

    async def checked(scopes: SecurityScopes) -> list[str]:
        return scopes.scopes

    async def writing(scopes: Annotated[list[str], Security(checked, scopes=["write"])]) -> list[str]:
        return scopes

    class Handler(WebSocketHandler):
        @on("use")
        async def use(
            self,
            message: None,
            outer: Annotated[list[str], Security(writing, scopes=["admin"])],
            alone: Annotated[list[str], Security(checked, scopes=["read", "write"])],
            none: Annotated[list[str], Depends(checked)],
        ) -> list[list[str]]:
            return [outer, alone, none]

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        assert await call(ws) == [["admin", "write"], ["read", "write"], []]


async def checking(q: str, scopes: SecurityScopes) -> str:
    """A guard in FastAPI's way: it looks at the scopes that are demanded of it."""
    checks.append(scopes.scope_str)
    if not set(scopes.scopes) <= set(q.split(",")):
        raise Deny(403)
    return f"checked {scopes.scope_str}"


checks: list[str] = []


async def test_a_guards_value_answers_for_no_more_than_it_was_asked() -> None:
    """A method that demands scopes of a guard which was listed without them has it run again; others get its value."""

    class Handler(WebSocketHandler):
        guards = [Security(checking, scopes=["read"])]

        @on("equal")
        async def equal(self, message: None, value: Annotated[str, Security(checking, scopes=["read"])]) -> str:
            return value

        @on("less")
        async def less(self, message: None, value: Annotated[str, Depends(checking)]) -> str:
            return value

        @on("more")
        async def more(self, message: None, value: Annotated[str, Security(checking, scopes=["write"])]) -> str:
            return value

    async with WebSocketTestClient(app_of(Handler)) as client:
        async with client.connect("/ws?q=read,write") as ws:
            checks.clear()
            assert await call(ws, "equal") == "checked read"
            assert await call(ws, "less") == "checked read"
            assert checks == []
            assert await call(ws, "more") == "checked write"
            assert checks == ["write"]
        async with client.connect("/ws?q=read") as ws:
            await ws.send_json({"type": "more", "id": 1})
            assert (await ws.receive())["error"]["code"] == "forbidden"


async def test_a_guard_listed_again_with_more_scopes_runs_again() -> None:
    """A router lists a guard, and a class lists it with a scope: both are checked, whoever depends on them before."""

    async def depending(value: Annotated[str, Depends(checking)]) -> None: ...

    class Handler(WebSocketHandler):
        guards = [depending, Security(checking, scopes=["admin"])]

    app = app_of(Handler, guards=[checking])
    async with WebSocketTestClient(app) as client:
        checks.clear()
        async with client.connect("/ws?q=admin"):
            assert checks == ["", "admin"]
        with pytest.raises(Denied):
            async with client.connect("/ws?q=nothing"):
                pass


async def test_given_types_need_no_depends() -> None:
    """Connection, Hub, WebSocket and HTTPConnection come by their type, in every place and at every depth."""
    hub = Hub()
    got: list[tuple[Connection, Hub, WebSocket, HTTPConnection]] = []

    async def deep(connection: Connection, hub: Hub, websocket: WebSocket, http: HTTPConnection) -> None:
        got.append((connection, hub, websocket, http))

    async def guard(
        connection: Connection,
        hub: Hub,
        websocket: WebSocket,
        http: HTTPConnection,
        deep: Annotated[None, Depends(deep)],
    ) -> None:
        got.append((connection, hub, websocket, http))

    class Handler(WebSocketHandler):
        guards = [guard]

        def __init__(
            self,
            own: Annotated[Connection, "documented"],
            hub: Hub,
            websocket: WebSocket,
            http: HTTPConnection,
            deep: Annotated[None, Depends(deep)],
        ) -> None:
            assert own is self.connection
            got.append((own, hub, websocket, http))

        @on("use")
        async def use(
            self,
            message: None,
            connection: Connection,
            hub: Hub,
            websocket: WebSocket,
            http: HTTPConnection,
            deep: Annotated[None, Depends(deep)],
        ) -> str:
            got.append((connection, hub, websocket, http))
            notes: str = websocket.state.note + connection.state.note
            return websocket.headers["x-name"] + http.headers["x-name"] + notes

        async def on_disconnect(
            self, connection: Connection, hub: Hub, websocket: WebSocket, http: HTTPConnection
        ) -> None:
            got.append((connection, hub, websocket, http))

        async def on_connect(self, websocket: WebSocket) -> None:
            websocket.state.note = "n"

    async with (
        WebSocketTestClient(app_of(Handler, hub=hub)) as client,
        client.connect("/ws", headers={"x-name": "a"}) as ws,
    ):
        assert await call(ws) == "aann"
        (connection,) = hub.connections.values()
    assert len(got) == 7
    for received, of, websocket, http in got:
        assert received is connection
        assert of is hub
        assert websocket.scope is http.scope is connection.scope


READING: list[tuple[str, Callable[[WebSocket], Any], str]] = [
    ("accept", lambda ws: ws.accept(), "the session accepts"),
    ("receive", lambda ws: ws.receive(), "@on methods and on_message"),
    ("receive_text", lambda ws: ws.receive_text(), "@on methods and on_message"),
    ("receive_bytes", lambda ws: ws.receive_bytes(), "@on methods and on_message"),
    ("receive_json", lambda ws: ws.receive_json(), "@on methods and on_message"),
    ("iter_text", lambda ws: anext(ws.iter_text()), "@on methods and on_message"),
    ("iter_bytes", lambda ws: anext(ws.iter_bytes()), "@on methods and on_message"),
    ("iter_json", lambda ws: anext(ws.iter_json()), "@on methods and on_message"),
    ("send", lambda ws: ws.send({"type": "websocket.send", "text": ""}), "self.send(message)"),
    ("send_text", lambda ws: ws.send_text(""), "self.send(message)"),
    ("send_bytes", lambda ws: ws.send_bytes(b""), "self.send(message)"),
    ("send_json", lambda ws: ws.send_json({}), "self.send(message)"),
    ("send_denial_response", lambda ws: ws.send_denial_response(Response()), "raise Deny"),
    ("close", lambda ws: ws.close(), "self.close(code, reason)"),
]


@pytest.mark.parametrize(
    ("wrong", "instead"), [(wrong, instead) for _, wrong, instead in READING], ids=[name for name, _, _ in READING]
)
async def test_an_injected_websocket_is_for_reading(wrong: Callable[[WebSocket], Any], instead: str) -> None:
    """What would get between the session and its socket raises, with the method to use in its place."""
    raised: list[str] = []

    class Handler(WebSocketHandler):
        def __init__(self, websocket: WebSocket) -> None:
            self.websocket = websocket

        @on("use")
        async def use(self, message: None, websocket: WebSocket) -> None:
            for each in (self.websocket, websocket):
                with pytest.raises(RuntimeError) as refused:
                    await wrong(each)
                raised.append(str(refused.value))

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws") as ws:
        await call(ws)
    assert len(raised) == 2
    assert all(instead in text for text in raised)


async def found(q: str) -> str:
    return f"found {q}"


Aliased = TypeAliasType("Aliased", Annotated[str, Depends(found)])


async def test_an_annotation_can_have_a_name() -> None:
    """A dependency behind a type alias (`type Aliased = Annotated[...]`) is a dependency, as for FastAPI."""

    class Handler(WebSocketHandler):
        @on("use")
        async def use(self, message: None, value: Aliased) -> str:
            return value

    async with WebSocketTestClient(app_of(Handler)) as client, client.connect("/ws?q=hi&value=x") as ws:
        assert await call(ws) == "found hi"
