"""`squall call list`, as far as it needs no server."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from squall.cli import call, main


@pytest.fixture(autouse=True)
def without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a server would be started for it")

    monkeypatch.setattr(call, "is_list_empty", lambda: True)
    monkeypatch.setattr(call, "ask", never)
    monkeypatch.setattr(call, "find_name", never)


@pytest.mark.parametrize("function", ["greeter.hello", "greeter/hello", "hello", "fu-1"])
def test_without_a_server_nothing_is_asked_of_one(function: str) -> None:
    ended = CliRunner().invoke(main.squall, ["call", "list", "--function", function, "--json"])

    assert (ended.exit_code, ended.stdout.strip()) == (0, "[]")


def test_a_time_that_is_none_is_refused_before() -> None:
    assert CliRunner().invoke(main.squall, ["call", "list", "--since", "soon"]).exit_code == 2


@pytest.mark.parametrize(
    ("function", "app", "named"),
    [
        ("greeter/hello", "", ("greeter", "hello")),
        ("hello", "", ("", "hello")),
        ("hello", "greeter", ("", "hello")),
        ("greeter.hello", "greeter", ("", "hello")),
        ("my.app.hello", "my.app", ("", "hello")),
        ("Model.run", "greeter", ("", "Model.run")),
    ],
)
def test_a_name_is_read_without_a_server_where_it_can_be(function: str, app: str, named: tuple[str, str]) -> None:
    assert call._named(function, app) == named
