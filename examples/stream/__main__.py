"""``python -m examples.stream``: serves the texts until Ctrl+C."""

from typing import Annotated

import typer

from examples.serving import fail, listen, origins, run
from examples.stream.app import create_app
from wsrouter import ConfigurationError

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Origin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin by which browsers reach the page, such as https://stream.example through a proxy;"
        " may be repeated.",
        show_default="127.0.0.1 and localhost, at the port",
    ),
]


def main(host: Host = "127.0.0.1", port: Port = 8002, origin: Origin = None) -> None:
    """Serve texts that appear word by word, until Ctrl+C."""
    # So small that a page that stops reading is felt by its generators within seconds.
    listener = listen(host, port, send_buffer=64 * 1024)
    try:
        app = create_app(origins=origins(listener, origin or ()))
    except ConfigurationError as error:
        fail(str(error))
    run(app, listener, "The texts are at")


if __name__ == "__main__":
    typer.run(main)
