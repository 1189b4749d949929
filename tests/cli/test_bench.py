"""`squall bench start`, as far as it needs no server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from squall.cli import bench, main
from squall.cli.cold_start import ColdStart, Subject
from squall.protocol.function import BY_FILE, Definition, FunctionSpec
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE
from squall.protocol.template import TemplateInfo
from squall.sdk import _output

SPEC = FunctionSpec("fu-1", "ap-1", "hello", Definition(BY_FILE, "greeter", "hello"), "im-1")


class Node:
    """Starts as it is told, and keeps what was asked of it."""

    def __init__(self, starts: Sequence[ColdStart | BaseException]) -> None:
        self.starts: Iterator[ColdStart | BaseException] = iter(starts)
        self.given: tuple[Any, ...] = ()
        self.is_left = False
        self.gone: list[str] = []
        self.is_template_made = True

    def prepare(self, spec: FunctionSpec, method: str, *given: Any) -> Subject:
        self.given = given
        return Subject("fu-2", "ap-1", spec.name, method, False, (), {})

    def measure(self, subject: Subject) -> ColdStart:
        one = next(self.starts)
        if isinstance(one, BaseException):
            raise one
        return one

    def wait_for_template(self, subject: Subject) -> bool:
        return self.is_template_made

    def leave(self, subject: Subject) -> None:
        self.is_left = True

    def ready_of_others(self, subject: Subject) -> list[TemplateInfo]:
        return []

    def gone_of_others(self, subject: Subject, before: list[TemplateInfo]) -> list[str]:
        return self.gone


def start(total_ms: float, path: str = PATH_PLAIN, cause: str = "") -> ColdStart:
    return ColdStart(total_ms, (("sandbox", total_ms),), path, cause, "ct-1")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(node: Node, *arguments: str) -> Result:
        for name in (
            "prepare",
            "measure",
            "leave",
            "wait_for_template",
            "ready_of_others",
            "gone_of_others",
        ):
            monkeypatch.setattr(bench, name, getattr(node, name))
        monkeypatch.setattr(bench, "require_server", lambda: None)
        monkeypatch.setattr(bench, "find_callable", lambda text: (SPEC, ""))
        return CliRunner().invoke(main.squall, ["bench", "start", "greeter.hello", *arguments])

    return run


def test_the_first_start_is_told_and_not_counted(command: Any) -> None:
    ended = command(Node([start(900), start(10), start(30), start(20)]), "-n", "3", "--json")

    told = json.loads(ended.stdout)
    assert (told["min_ms"], told["p50_ms"], told["max_ms"]) == (10, 20, 30)
    assert told["first"]["total_ms"] == 900
    assert [one["total_ms"] for one in told["starts"]] == [10, 30, 20]


@pytest.mark.parametrize(
    ("text", "expected"), [("[1, [2]]", ((1, [2]), {})), ('{"n": 3}', ((), {"n": 3})), ("[]", ((), {}))]
)
def test_arguments_are_a_list_or_names(command: Any, text: str, expected: object) -> None:
    node = Node([start(1), start(1)])

    assert command(node, "-n", "1", "--args", text, "--parameters", '{"size": 3}').exit_code == 0
    assert node.given == ('{"size":3}', *expected)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--args", "{"), "--args is no JSON"),
        (("--args", "3"), "--args must be a JSON list or object"),
        (("--parameters", "[]"), "--parameters must be a JSON object"),
        (("-n", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(command: Any, options: tuple[str, ...], said: str) -> None:
    ended = command(Node([]), *options)

    assert ended.exit_code == 2
    assert said in ended.stderr


def test_a_start_by_another_path_fails_with_its_cause_after_the_report(command: Any) -> None:
    starts = [start(900), start(10, PATH_FORK), start(40, PATH_PLAIN, "module watch started a thread")]

    ended = command(Node([*starts]), "-n", "2", "--path", PATH_FORK)

    assert ended.exit_code == 1
    assert "2 cold starts" in ended.stdout
    said = "of 2 starts 1 took the path plain, as module watch started a thread; asked for was fork"
    assert said in ended.stderr


def test_several_paths_may_do_and_each_other_one_has_its_own_cause(command: Any) -> None:
    starts = [start(900), start(10, PATH_FORK), start(4, PATH_PARKED), start(40, PATH_PLAIN, "it is"), start(5)]
    paths = ("--path", PATH_FORK, "--path", PATH_PARKED)

    assert command(Node(starts[:3]), "-n", "2", *paths).exit_code == 0
    other = command(Node([*starts, start(9, PATH_RESTORE)]), "-n", "5", *paths)

    assert other.exit_code == 1
    assert "of 5 starts 2 took the path plain, as it is; 1 took the path restore; asked for" in other.stderr
    assert other.stderr.strip().endswith("asked for was fork or parked")


def test_a_function_that_fails_at_first_is_told_how_it_is_given_arguments(command: Any) -> None:
    node = Node([TypeError("missing 1 required positional argument")])

    ended = command(node)

    assert ended.exit_code == 1
    assert "TypeError: missing 1 required" in ended.stderr
    assert "given by --args" in ended.stderr
    assert node.is_left


def test_why_a_call_waits_is_told(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node([start(900), start(10)])
    measure = node.measure

    def wait(subject: Subject) -> ColdStart:
        _output.current().notice("function hello: its containers do not start: no module named numpy; the call waits")
        return measure(subject)

    monkeypatch.setattr(node, "measure", wait)
    ended = command(node, "-n", "1", "--json")

    assert "no module named numpy; the call waits\n" in ended.stderr
    assert json.loads(ended.stdout)["p50_ms"] == 10


def test_an_error_has_a_line_of_its_own(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_show_progress", lambda text: click.echo(f"\r{text}|", err=True, nl=False))

    ended = command(Node([start(900), ConnectionError("boom"), start(10)]), "-n", "2")

    _, after = ended.stderr.split("may make a template now|")
    assert after.startswith("\r|"), "it is taken away before the error is told"


def test_an_interrupted_measurement_leaves_no_container(command: Any) -> None:
    node = Node([start(900), start(10), KeyboardInterrupt()])

    assert command(node).exit_code != 0
    assert node.is_left


def test_a_template_that_takes_too_long_to_make_is_told(command: Any) -> None:
    node = Node([start(900), start(10)])
    node.is_template_made = False

    ended = command(node, "-n", "1", "--json")

    assert "Its template is not there after 60 s" in ended.stderr
    assert json.loads(ended.stdout)["p50_ms"] == 10
    assert "template" not in command(Node([start(900), start(10)]), "-n", "1").stderr


def test_what_it_has_cost_others_is_told(command: Any) -> None:
    node = Node([start(900), start(10)])
    node.gone = ["greeter.Model", "other"]

    ended = command(node, "-n", "1", "--json")

    assert "Templates of others have gone meanwhile, perhaps" in ended.stderr
    assert "greeter.Model, other; their next starts are slower" in ended.stderr
    assert json.loads(ended.stdout)["p50_ms"] == 10
    assert "others" not in command(Node([start(900), start(10)]), "-n", "1").stderr


def test_the_picture_is_written(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "starts.svg"

    assert command(Node([start(900), start(10)]), "-n", "1", "--svg", str(path)).exit_code == 0
    assert "greeter.hello: 1 cold starts" in path.read_text()


def test_a_picture_that_cannot_be_written_is_refused_before_anything_runs(command: Any, tmp_path: Path) -> None:
    ended = command(Node([]), "--svg", str(tmp_path / "no" / "starts.svg"))

    assert ended.exit_code == 2
    assert f"--svg: cannot write {tmp_path}/no/starts.svg: there is no directory {tmp_path}/no" in ended.stderr


def test_a_picture_whose_directory_goes_meanwhile_costs_no_report(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    node = Node([start(900), start(10)])
    monkeypatch.setattr(node, "wait_for_template", lambda subject: folder.rmdir())

    ended = command(node, "-n", "1", "--svg", str(folder / "starts.svg"))

    assert ended.exit_code == 1
    assert "1 cold start, " in ended.stdout
    assert "No such file or directory" in ended.stderr
