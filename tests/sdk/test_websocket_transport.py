"""A server elsewhere: the same frames in WebSocket messages."""

from __future__ import annotations

import http
import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

import squall
from squall.exception import AuthError
from squall.sdk import _client
from tests.sdk.double import ServerDouble

app = squall.App("far", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def size(data: bytes) -> int:
    return len(data)


def bridge(double: ServerDouble) -> Server:
    """A WebSocket server in front of the double's socket."""

    def authorize(connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/api/v1/channel" or request.headers.get("Authorization") != "Bearer secret":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "send the token\n")
        return None

    def serve_one(connection: ServerConnection) -> None:
        behind = socket.socket(socket.AF_UNIX)
        behind.connect(double.socket_path)

        def back() -> None:
            while data := behind.recv(65_536):
                connection.send(data)
            connection.close()

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        for message in connection:
            assert isinstance(message, bytes)
            behind.sendall(message)
        behind.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        behind.close()

    return serve(serve_one, "127.0.0.1", 0, process_request=authorize, max_size=None, compression=None)


@pytest.fixture
def url(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The bridge's address, configured for the SDK."""
    with bridge(server) as front:
        thread = threading.Thread(target=front.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{front.socket.getsockname()[1]}"
        monkeypatch.setenv("SQUALL_SERVER_URL", address)
        monkeypatch.setenv("SQUALL_TOKEN", "secret")
        yield address
        _client.close()
        front.shutdown()
        thread.join(5)


@pytest.mark.usefixtures("url")
def test_calls_work_over_a_websocket() -> None:
    with app.run():
        assert square.remote(7) == 49
        assert list(square.map(range(1000))) == [x * x for x in range(1000)]
        assert size.remote(b"x" * 9_000_000) == 9_000_000


@pytest.mark.usefixtures("url")
def test_a_wrong_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_TOKEN", "wrong")

    with pytest.raises(AuthError, match="SQUALL_TOKEN"), app.run():
        pytest.fail("it must not start")
