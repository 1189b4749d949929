"""How functions are named on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from squall.cli import bench, function, function_name, main, template
from squall.cli.function_name import find_function, find_name
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
        ("greeter/", "names none: write app/function"),
        ("", "names none: write app/function"),
    ],
)
def test_what_names_none_says_what_may_have_been_meant(text: str, said: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        find_function(text)

    assert said in refused.value.message


def test_an_app_that_there_is_not_is_named() -> None:
    with pytest.raises(NotFoundError, match="no app is called 'nobody'"):
        find_function("nobody.hello")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("greeter/a.b", ("greeter", "a.b")),
        ("greeter.hello", ("greeter", "hello")),
        ("my.greeter.hello", ("my.greeter", "hello")),
        ("greeter.of_an_earlier_run", ("greeter", "of_an_earlier_run")),
    ],
)
def test_names_of_all_runs_are_read_the_same_way_and_not_looked_for(text: str, named: tuple[str, str]) -> None:
    assert find_name(text) == named


@pytest.mark.parametrize("read", [find_function, find_name])
def test_an_app_with_a_dot_is_no_function_of_another_one(read: Callable[[str], object]) -> None:
    with pytest.raises(click.UsageError, match=r"'my\.greeter' names an app; write app/function"):
        read("my.greeter")


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (("function", "calls"), "write app/function, or its id"),
        (("bench", "start"), "write APP.FUNCTION\n"),
        (("template", "drop"), "write APP, APP.FUNCTION, or the id of a template"),
    ],
)
def test_what_is_no_name_is_told_what_that_command_takes(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], advice: str
) -> None:
    for module in (bench, function, template):
        monkeypatch.setattr(module, "require_server", lambda: None)

    ended = CliRunner().invoke(main.squall, [*command, "greeter/"])

    assert ended.exit_code == 2
    assert f"'greeter/' names none: {advice}" in ended.stderr
