"""`squall call replay`: the app it makes while the one of the call is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.cli import call_replay
from squall.cli.server_calls import ask
from squall.protocol.app import EPHEMERAL, AppCreate
from squall.sdk import _client, _local_server
from tests.sdk.double import ServerDouble
from tests.server.doubles import make_spec


@pytest.fixture
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerDouble]:
    """A double where the command looks for the server of this machine."""
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    with ServerDouble(str(data_dir / "server.sock")) as double:
        yield double
        _client.close()


def test_app_of_a_replay_outlives_the_server_that_is_lost_while_its_functions_are_made(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("ap-before")
    server.apps["ap-before"] = AppCreate("ap-before", "shop", EPHEMERAL)
    server.functions[spec.function_id] = spec
    server.stopped.append("ap-before")
    is_lost = False

    def lose_server_once(method: str, record: Any, answer: type[Any]) -> Any:
        nonlocal is_lost
        if method == "FunctionCreate" and not is_lost:
            is_lost = True
            server.restart()
        return ask(method, record, answer)

    monkeypatch.setattr(call_replay, "ask", lose_server_once)

    with call_replay._app_of(spec) as (app_id, function_id):
        assert is_lost
        assert app_id in server.apps, "the server that was started again has not heard of it"
        assert server.functions[function_id].app_id == app_id

    assert server.stopped == ["ap-before", app_id]
