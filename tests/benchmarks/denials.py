"""What a denial costs: ``python -m tests.benchmarks.denials``.

A handshake with a token whose signature is wrong, again and again: wsrouter with `JWTAuth` (mode ``http``) against
FastAPI endpoints that verify the same token with PyJWT and raise ``HTTPException(401)``. Both run on uvicorn in
processes of their own, side by side in one round; what is compared is CPU time per denial. A ratio above 1
means that wsrouter needs more.
"""

import asyncio
import os
import statistics
import time
from typing import Annotated

import jwt
import typer
import uvloop
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from rich.console import Console
from rich.table import Table
from starlette.requests import HTTPConnection

from tests.benchmarks.servers import Running, cores, serve
from wsrouter import WebSocketHandler, WebSocketRouter
from wsrouter.auth import JWTAuth

SECRET = "a secret of at least thirty-two bytes"
ALGORITHMS = ["HS256"]
TARGET = 1.3

router = WebSocketRouter(guards=[JWTAuth(key=SECRET, algorithms=ALGORITHMS)])
router.add_handler("/ws", WebSocketHandler)
app = FastAPI()
app.include_router(router)

plain = FastAPI()


def user_of(connection: HTTPConnection) -> str:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError
        claims = jwt.decode(token, SECRET, algorithms=ALGORITHMS, options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise HTTPException(401, "The token is not valid", {"WWW-Authenticate": "Bearer"}) from None
    subject: str = claims["sub"]
    return subject


async def user_of_it(connection: HTTPConnection) -> str:
    return user_of(connection)


@plain.websocket("/ws")
async def denied(websocket: WebSocket, user: Annotated[str, Depends(user_of_it)]) -> None:
    """The common way: a dependency that raises."""
    await websocket.accept()
    await websocket.close()


@plain.websocket("/ws-inside")
async def denied_inside(websocket: WebSocket) -> None:
    """The short way: the endpoint itself raises."""
    user_of(websocket)
    await websocket.accept()
    await websocket.close()


CONTENDERS = {
    "wsrouter": ("tests.benchmarks.denials:app", "/ws"),
    "FastAPI, a dependency": ("tests.benchmarks.denials:plain", "/ws"),
    "FastAPI, in the endpoint": ("tests.benchmarks.denials:plain", "/ws-inside"),
}


def handshake(path: str) -> bytes:
    """Return a handshake with a token that is good but for its signature."""
    token = jwt.encode({"sub": "ada", "exp": time.time() + 3600}, SECRET[::-1], "HS256")
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


async def denials(server: Running, path: str, count: int) -> float:
    """Return microseconds of the server's CPU for one denial, at most 20 handshakes at a time."""
    places = asyncio.Semaphore(20)
    request = handshake(path)

    async def one() -> None:
        async with places:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 401 "), answer
            writer.close()

    await asyncio.gather(*(one() for _ in range(count // 10)))  # a server is slower at first
    before = server.cpu()
    await asyncio.gather(*(one() for _ in range(count)))
    return (server.cpu() - before) / count * 1e6


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    count: Annotated[int, typer.Option(min=100, help="Denials in each round.")] = 3000,
) -> None:
    """Compare the CPU time of a denial, side by side on this machine."""
    console = Console()
    os.sched_setaffinity(0, {cores()[1]})
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, (application, path) in CONTENDERS.items():
            with serve(application) as server:
                costs[name].append(uvloop.run(denials(server, path, count)))
    table = Table("denial of a bad signature", "µs (median)", "wsrouter's ratio to it", "lowest to highest", "target")
    for name, measured in costs.items():
        ratios = [ours / theirs for ours, theirs in zip(costs["wsrouter"], measured, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        median = f"{statistics.median(ratios):.2f}"
        own = name == "wsrouter"
        table.add_row(
            name,
            f"{statistics.median(measured):.0f}",
            "" if own else median,
            "" if own else spread,
            "" if own else f"{TARGET:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
