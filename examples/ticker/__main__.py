"""``python -m examples.ticker``: serves the prices until Ctrl+C."""

from typing import Annotated

import typer

from examples.serving import fail, listen, origins, run
from examples.ticker.app import PATIENCE, create_app
from wsrouter import ConfigurationError

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Origin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin by which browsers reach the page, such as https://ticker.example through a proxy;"
        " may be repeated.",
        show_default="127.0.0.1 and localhost, at the port",
    ),
]
Patience = Annotated[
    float, typer.Option(min=1, max=60, help="Seconds after which a client is given up that takes nothing.")
]


def main(host: Host = "127.0.0.1", port: Port = 8003, origin: Origin = None, patience: Patience = PATIENCE) -> None:
    """Serve prices that change a thousand times a second, until Ctrl+C."""
    # So small that it does not hide from the server for long that a client does not read; and what lies there is old.
    listener = listen(host, port, send_buffer=16 * 1024)
    try:
        app = create_app(origins=origins(listener, origin or ()), patience=patience)
    except ConfigurationError as error:
        fail(str(error))
    run(app, listener, "The prices are at")


if __name__ == "__main__":
    typer.run(main)
