"""`squall template` with answers as a server gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from squall.cli import function_name, main, template
from squall.exception import NotFoundError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function import BY_FILE, Definition, FunctionGet, FunctionSpec, MethodSpec
from squall.protocol.records import replace
from squall.protocol.template import (
    NodeTemplate,
    SilentNode,
    TemplateDrop,
    TemplateDropped,
    TemplateInfo,
    TemplateList,
    TemplateListing,
)
from squall.sdk import _environment

READY = TemplateInfo(
    NodeTemplate(
        "tp-1", "ap-1", "fu-1", "function", "ready", memory_mib=512, shared_mib=480, clone_count=3, parked_count=2,
        cell_count=1, made_at=1_000.0, used_at=2_000.0,
    ),
    "nd-1", "greeter", "hello", "main",
)  # fmt: skip
UNFIT = TemplateInfo(
    NodeTemplate("tp-2", "ap-1", "fu-2", "function", "unfit", "module watch started a thread\x1b]0;x\x07"),
    "nd-1", "greeter", "watch",
)  # fmt: skip
APP = AppInfo("ap-1", "my.greeter", "deployed", 0.0, functions={"hello": "fu-1", "Model": "fu-00000003", "a.b": "fu-4"})

PREDICTING = Definition(BY_FILE, "greeter", "Model", is_class=True, methods=(MethodSpec("predict"),))
MODEL = FunctionSpec("fu-00000003", "ap-1", "Model", PREDICTING, "im-1")


class Server:
    """Answers, and keeps what it was asked."""

    def __init__(
        self,
        silent: tuple[SilentNode, ...] = (),
        dropped: tuple[TemplateInfo, ...] = (READY,),
        listed: TemplateInfo = READY,
    ) -> None:
        self.asked: list[Any] = []
        self._listed = listed
        self._silent = silent
        self._dropped = dropped

    def ask(self, method: str, record: Any, reply: Any) -> Any:
        if isinstance(record, AppGet):
            if record.app not in (APP.name, APP.app_id):
                raise NotFoundError(f"no app is called {record.app!r}")
            return APP
        if isinstance(record, FunctionGet):
            return MODEL
        self.asked.append(record)
        return TemplateDropped(self._dropped, self._silent)

    def ask_pages(self, method: str, record: Any, reply: Any) -> list[TemplateListing]:
        self.asked.append(record)
        return [TemplateListing((self._listed,), self._silent), TemplateListing((UNFIT,), self._silent)]


@pytest.fixture(autouse=True)
def _none_is_chosen() -> Iterator[None]:
    yield
    _environment.choose("")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(server: Server, *arguments: str) -> Result:
        monkeypatch.setattr(template, "ask", server.ask)
        monkeypatch.setattr(template, "ask_pages", server.ask_pages)
        monkeypatch.setattr(template, "is_list_empty", lambda: False)
        monkeypatch.setattr(template, "require_server", lambda: None)
        monkeypatch.setattr(function_name, "ask", server.ask)
        return CliRunner().invoke(main.squall, ["template", *arguments])

    return run


def test_list_says_what_there_is_and_why_one_is_none(command: Any) -> None:
    ended = command(Server(), "list")

    assert ended.exit_code == 0
    row = next(line for line in ended.stdout.splitlines() if line.startswith("tp-1"))
    assert row.split()[:8] == ["tp-1", "greeter.hello", "function", "ready", "537", "MB", "3", "2"]
    assert "module watch started a thread" in ended.stdout
    assert "nd-1" not in ended.stdout, "of one node its name says nothing"


def test_list_is_of_all_environments_and_says_which_where_one_is_not_meant(command: Any) -> None:
    server, elsewhere = Server(), Server(listed=replace(READY, environment="staging"))

    assert "Environment" not in command(server, "list").stdout
    shown = command(elsewhere, "list").stdout
    named = command(elsewhere, "list", "-e", "staging").stdout

    assert "tp-1         staging      greeter.hello" in shown
    assert "staging" not in named
    assert server.asked == [TemplateList()]
    assert elsewhere.asked == [TemplateList(), TemplateList(environment="staging")]


def test_list_for_programs_has_all_in_numbers(command: Any) -> None:
    told = json.loads(command(Server(), "list", "--json").stdout)

    assert (told[0]["memory_mib"], told[0]["shared_mib"]) == (512, 480)
    assert told[0]["node_id"] == "nd-1"
    assert (told[1]["state"], told[1]["used_at"]) == ("unfit", None)
    assert told[0]["environment"] == "main"


def test_list_names_each_node_that_did_not_answer_once(command: Any) -> None:
    ended = command(Server(silent=(SilentNode("nd-2", "no answer within 5 s"),)), "list")

    assert ended.exit_code == 0
    assert ended.stderr.count("Node nd-2 did not answer: no answer within 5 s") == 1
    assert "nd-1" in ended.stdout


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tp-0123456789", TemplateDrop(template_ids=("tp-0123456789",))),
        ("my.greeter", TemplateDrop(app="ap-1")),
        ("my.greeter.hello", TemplateDrop(app="ap-1", function="hello")),
        ("my.greeter.a.b", TemplateDrop(app="ap-1", function="a.b")),
        ("my.greeter.Model.predict", TemplateDrop(app="ap-1", function="Model")),
        ("my.greeter/hello", TemplateDrop(app="ap-1", function="hello")),
        ("fu-0123456789", TemplateDrop(app="ap-1", function="fu-0123456789")),
        ("--all", TemplateDrop(is_all=True)),
    ],
)
def test_drop_means_an_id_an_app_a_function_or_all(command: Any, target: str, expected: TemplateDrop) -> None:
    server = Server()

    ended = command(server, "drop", target)

    assert ended.exit_code == 0, ended.output
    assert server.asked == [expected]
    assert "Dropped tp-1: function template of greeter.hello on nd-1, 537 MB; 3 clones of it go on." in ended.stdout


def test_drop_of_all_keeps_to_the_environment(command: Any) -> None:
    server = Server()

    assert command(server, "drop", "--all", "-e", "staging").exit_code == 0
    assert server.asked == [TemplateDrop(is_all=True, environment="staging")]


@pytest.mark.parametrize("arguments", [(), ("--all", "my.greeter")])
def test_drop_wants_to_be_told_what(command: Any, arguments: tuple[str, ...]) -> None:
    server = Server()

    assert command(server, "drop", *arguments).exit_code == 2
    assert not server.asked


def test_with_a_wrong_name_among_them_nothing_is_dropped(command: Any) -> None:
    server = Server()

    ended = command(server, "drop", "my.greeter.hello", "my.greeter.hallo")

    assert ended.exit_code == 1
    assert "did you mean my.greeter.hello?" in ended.stderr
    assert not server.asked


def test_a_method_that_there_is_not_drops_nothing_of_its_class(command: Any) -> None:
    server = Server()

    ended = command(server, "drop", "my.greeter.Model.predct")

    assert ended.exit_code == 1
    assert "did you mean Model.predict?" in ended.stderr
    assert not server.asked


def test_drop_fails_where_a_node_may_have_more(command: Any) -> None:
    ended = command(Server(silent=(SilentNode("nd-2", "no answer within 5 s"),)), "drop", "my.greeter")

    assert ended.exit_code == 1
    assert "Node nd-2 did not answer" in ended.stderr
    assert "Dropped tp-1" in ended.stdout


def test_drop_of_nothing_says_so(command: Any) -> None:
    ended = command(Server(dropped=()), "drop", "my.greeter")

    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "There was none to drop." in ended.stderr
