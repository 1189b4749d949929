"""Following lines on the terminal."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from squall.cli import log, main
from squall.protocol.app import AppCreate
from squall.protocol.function import Definition, FunctionSpec
from squall.protocol.ids import function_id, new_id
from squall.protocol.log import LogEntry, LogRead
from squall.sdk import _client, _local_server
from squall.sdk._client import ConnectionLost
from tests.sdk.double import ServerDouble


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerDouble]:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    with ServerDouble(str(tmp_path / "server.sock")) as double:
        yield double
        _client.close()


def follow() -> None:
    log.show_logs(LogRead(is_following=True, tail=-1), False, container_id="ct-1")


def test_lines_are_followed_over_a_restart_and_shown_once(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.log_lines = [LogEntry(1.0, "stdout", "one"), LogEntry(1.0, "stdout", "two")]
    shown: list[str] = []
    has_two = threading.Event()

    def show(entry: LogEntry, is_timestamped: bool, is_shown: tuple[bool, ...]) -> None:
        shown.append(entry.text)
        if entry.text == "two":
            has_two.set()

    monkeypatch.setattr(log, "show_entry", show)

    def restart() -> None:
        has_two.wait(10)
        server.restart()
        server.log_lines.append(LogEntry(2.0, "stdout", "three"))
        server.stopped.append("")

    restarting = threading.Thread(target=restart)
    restarting.start()
    follow()
    restarting.join()

    assert shown == ["one", "two", "three"]


class Terminal(io.StringIO):
    """A person looks at it."""

    def isatty(self) -> bool:
        return True


def went_on(text: str, stage: str = "", *, source: str = "stdout") -> LogEntry:
    return LogEntry(1.0, source, text, "ct-1", "in-abc:0", stage=stage)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_line_that_goes_on_is_drawn_where_somebody_looks(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    out = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("COLUMNS", "20")
    server.log_lines = [
        went_on("5%", "standing"),
        went_on("10%", "passing"),
        went_on("20%", "standing"),
        went_on("0123456789" * 3, "passing"),
        went_on("30%", "passing", source="stderr"),
        went_on("100%"),
        went_on("and on", "passing"),
    ]
    server.stopped.append("")

    follow()

    cleared = "\x1b[2K\r"
    drawn = ["5%\n", "10%\r", cleared, "…234567890123456789\r", cleared, "100%\n", "and on\r", cleared]
    assert out.getvalue() == "".join(drawn if is_terminal else ["5%\n", "20%\n", "100%\n"])
    assert [read.has_passing for read in server.logs_read] == [is_terminal]


def test_server_that_does_not_come_back_is_not_waited_for_forever(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "SERVER_BACK_S", 0.1)
    threading.Timer(0.3, server.hang_up).start()

    with pytest.raises(ConnectionLost):
        follow()


@pytest.mark.parametrize("command", [["app", "logs", "x"], ["container", "logs", "ct-1"], ["server", "logs"]])
@pytest.mark.parametrize("count", ["-4", "some"])
def test_count_of_lines_that_is_none_is_wrong_usage(command: list[str], count: str) -> None:
    ended = CliRunner().invoke(main.squall, [*command, "-n", count])

    assert ended.exit_code == 2, ended.output
    assert count in ended.output


@pytest.mark.parametrize(
    ("options", "tail"),
    [([], 100), (["--all"], -1), (["-n", "0"], 0), (["--since", "1h"], -1), (["--since", "1h", "-n", "2"], 2)],
)
def test_lines_to_begin_with(options: list[str], tail: int) -> None:
    found: list[LogRead] = []

    @click.command()
    @log.log_options
    def command(query: LogRead, is_timestamped: bool) -> None:
        found.append(query)

    assert CliRunner().invoke(command, options).exit_code == 0
    assert [query.tail for query in found] == [tail]
    assert CliRunner().invoke(command, ["--all", "-n", "3"]).exit_code == 2


@pytest.mark.parametrize("text", ["-2h", "2 weeks", "2026-13-01", "nan"])
@pytest.mark.parametrize("option", ["--since", "--until"])
def test_time_that_is_none_is_wrong_usage(option: str, text: str) -> None:
    ended = CliRunner().invoke(main.squall, ["app", "logs", "x", option, text])

    assert ended.exit_code == 2, ended.output
    assert f"{text!r} is no time" in ended.output


IN_VARIANT = LogEntry(1.0, "stdout", "hi", "ct-9", "in-7:0", "ap-1", "fu-1", variant_id="fu-2")
OF_NOBODY = LogEntry(1.0, "stdout", "hi", "", "forged", "ap-1")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], ["hi", "hi"]),
        (["--show-function-id"], ["fu-2 hi", "- hi"]),
        (["--show-function-call-id"], ["fc-7 hi", "- hi"]),
        (["--show-container-id", "--show-function-id"], ["fu-2 ct-9 hi", "- - hi"]),
    ],
)
@pytest.mark.parametrize("noun", ["app", "function"])
def test_lines_begin_with_the_ids_asked_for(
    server: ServerDouble, noun: str, options: list[str], lines: list[str]
) -> None:
    app_id = new_id("ap")
    square = FunctionSpec(function_id(app_id, "square"), app_id, "square", Definition("file"), "im-1")
    server.apps[app_id], server.functions["square"] = AppCreate("hello"), square
    server.stopped.append(app_id)
    server.log_lines = [IN_VARIANT, OF_NOBODY]

    named = app_id if noun == "app" else square.function_id
    ended = CliRunner().invoke(main.squall, [noun, "logs", named, *options])

    assert ended.output.splitlines() == lines, ended.output
