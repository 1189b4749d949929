"""What is given a client uses that one, and not the program's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import squall
from squall.sdk import _client, _local_server
from squall.sdk._client import Client
from tests.sdk.double import ServerDouble

app = squall.App("elsewhere")


@app.cls()
class Adder:
    @squall.method()
    def add(self, x: int) -> int:
        return x + 1


@pytest.fixture
def other(make_data_dir: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ServerDouble, Client]]:
    """Another server, and a client of it; the program's own is one of no server."""
    folder = make_data_dir()
    monkeypatch.setenv("SQUALL_DATA_DIR", str(folder))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with ServerDouble(str(folder / "server.sock")) as double:
        client = Client(_local_server.find_endpoint())
        with app.run():
            own = _client.current()
            monkeypatch.setenv("SQUALL_DATA_DIR", str(make_data_dir()))
            # Not by monkeypatch: it would put back, for the next test, one that is closed.
            _client._current = None
            yield double, client
            _client.close()
            _client._current = own
        client.close()
        _client.close()


def test_a_class_is_asked_for_and_called_through_it(other: tuple[ServerDouble, Client]) -> None:
    server, client = other

    assert squall.Cls.from_name("elsewhere", "Adder", client=client)().add.remote(4) == 5
    assert server.looked_up


def test_an_app_is_stopped_through_it(other: tuple[ServerDouble, Client]) -> None:
    server, client = other

    app.stop(client=client)

    assert server.stopped == [app.app_id]
