"""What the commands of the examples say of their address: what is printed, and which origins are the page's own."""

import socket

import pytest

from examples.serving import address, listen, origins


@pytest.mark.parametrize(
    ("host", "printed", "own"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/", ["http://127.0.0.1:{port}", "http://localhost:{port}"]),
        ("0.0.0.0", "http://localhost:{port}/", ["http://127.0.0.1:{port}", "http://localhost:{port}"]),
        ("127.0.0.2", "http://127.0.0.2:{port}/", ["http://127.0.0.2:{port}"]),
        ("::1", "http://[::1]:{port}/", ["http://[::1]:{port}"]),
    ],
)
def test_the_origins_are_those_by_which_this_machine_reaches_the_page(host: str, printed: str, own: list[str]) -> None:
    """They name the port that was taken, also where it was left to the system."""
    if ":" in host and not socket.has_ipv6:
        pytest.skip("This machine has no IPv6.")
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == printed.format(port=port)
        assert origins(listener) == [each.format(port=port) for each in own]
        assert origins(listener, ["https://board.example"]) == ["https://board.example"]
