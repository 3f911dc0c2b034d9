"""``python -m examples.secure``: serves the board until Ctrl+C."""

import os
from typing import Annotated

import typer

from examples.secure.app import create_app
from examples.secure.settings import Settings, random_key
from examples.serving import fail, listen, origins, run
from wsrouter import ConfigurationError

KEY = "BOARD_KEY"

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Origin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin by which browsers reach the page, such as https://board.example through a proxy; may be repeated."
        " With https, cookies are Secure.",
        show_default="127.0.0.1 and localhost, at the port",
    ),
]
TokenSeconds = Annotated[int, typer.Option(min=1, max=3600, help="Seconds that an access token lives.")]
GraceSeconds = Annotated[float, typer.Option(min=0, max=60, help="Seconds that a connection may outlive its token.")]


def main(
    host: Host = "127.0.0.1",
    port: Port = 8001,
    origin: Origin = None,
    token_seconds: TokenSeconds = 60,
    grace_seconds: GraceSeconds = 5.0,
) -> None:
    """Serve the board until Ctrl+C.

    Access tokens are signed with the environment's BOARD_KEY (32 bytes or more), else with a new random key.
    """
    listener = listen(host, port)
    allowed = origins(listener, origin or ())
    try:
        settings = Settings(
            origins=allowed,
            key=os.environ.get(KEY) or random_key(),
            token_lifetime=token_seconds,
            expiry_grace=grace_seconds,
        )
        app = create_app(settings)
    except ConfigurationError as error:
        fail(str(error))
    run(app, listener, "The board is at")


if __name__ == "__main__":
    typer.run(main)
