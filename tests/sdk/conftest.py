"""The double of the server, and a client of the SDK that finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.sdk import _client, _local_server
from tests.sdk.double import ServerDouble
from tests.sdk.real_server import RealServer


@pytest.fixture(autouse=True)
def no_real_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test here starts a real server, or leaves its client to the next one.

    While the double is away, the client is to wait for it.
    """
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    yield
    _client.close()


@pytest.fixture
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerDouble]:
    """A double listening where the SDK looks for the local server."""
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with ServerDouble(str(data_dir / "server.sock")) as double:
        yield double
        _client.close()


@pytest.fixture
def real_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    """A real one, without nodes, in the place of the double."""
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    with RealServer(data_dir) as server:
        yield server
        _client.close()
