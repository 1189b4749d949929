"""How functions are named on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from squall.cli import function_name
from squall.cli.function_name import find_function, split
from squall.exception import NotFoundError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function import FunctionGet

APPS = {
    "greeter": AppInfo("ap-1", "greeter", "deployed", 0.0, functions={"hello": "fu-1", "Model": "fu-2", "a.b": "fu-3"}),
    "my.greeter": AppInfo("ap-2", "my.greeter", "deployed", 0.0, functions={"hello": "fu-4"}),
}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(method: str, record: Any, reply: Any) -> Any:
        if isinstance(record, AppGet):
            if record.app not in APPS:
                raise NotFoundError(f"no app is called {record.app!r}")
            return APPS[record.app]
        assert isinstance(record, FunctionGet)
        return record.function_id

    monkeypatch.setattr(function_name, "ask", ask)


@pytest.mark.parametrize(
    ("text", "function_id"),
    [
        ("greeter/hello", "fu-1"),
        ("greeter.hello", "fu-1"),
        ("greeter.a.b", "fu-3"),
        ("greeter/a.b", "fu-3"),
        ("my.greeter.hello", "fu-4"),
        ("my.greeter/hello", "fu-4"),
        ("fu-0123456789", "fu-0123456789"),
    ],
)
def test_with_a_slash_or_a_dot_the_same_is_meant(text: str, function_id: str) -> None:
    assert find_function(text) == function_id  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("greeter/helo", "did you mean greeter/hello?"),
        ("greeter.helo", "did you mean greeter.hello?"),
        ("greeter.Model.run", "write greeter.Model, without 'run'"),
        ("greeter/Model.run", "write greeter/Model, without 'run'"),
        ("greeter", "names an app; write app/function"),
        ("greeter/", "names no function: write app/function"),
        ("", "names no function: write app/function"),
    ],
)
def test_what_names_none_says_what_may_have_been_meant(text: str, said: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        find_function(text)

    assert said in refused.value.message


def test_an_app_that_there_is_not_is_named() -> None:
    with pytest.raises(NotFoundError, match="no app is called 'nobody'"):
        find_function("nobody.hello")


def test_where_an_app_may_have_ended_names_are_not_looked_up() -> None:
    assert split("gone/a.b") == ("gone", "a.b")
    assert split("gone.hello") == ("gone", "hello")
    with pytest.raises(click.UsageError, match="write app/function"):
        split("which.is.it")
