"""What a person sees of a run."""

from __future__ import annotations

import io

import pytest

import squall
from squall.protocol.image import BuildEvent
from squall.protocol.log import LogEntry
from squall.sdk import _output
from tests.sdk.double import ServerDouble

app = squall.App("shown", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def test_nothing_is_printed_by_itself(server: ServerDouble, capsys: pytest.CaptureFixture[str]) -> None:
    server.log_lines = [LogEntry(1.0, "stdout", "hidden")]

    with app.run():
        square.remote(1)

    assert capsys.readouterr() == ("", "")


def test_enabled_output_shows_steps_and_every_line(server: ServerDouble, capsys: pytest.CaptureFixture[str]) -> None:
    server.build_events = [BuildEvent("step", 1, 1, "debian_slim 3.11"), BuildEvent("done", 1, 1, duration_s=1.5)]
    server.log_lines = [LogEntry(1.0, "stdout", "squaring 1")]

    with squall.enable_output(), app.run():
        square.remote(1)
        server.log_lines += [
            LogEntry(2.0, "stderr", "careful"),
            LogEntry(3.0, "system", "container was killed"),
            LogEntry(4.0, "stdout", "the last line"),
        ]

    out, err = capsys.readouterr()
    assert out == "squaring 1\nthe last line\n"
    assert "[1/1] debian_slim 3.11\n[1/1] done in 1.5 s\n" in err
    assert "careful\n[squall] container was killed\n" in err
    assert err.endswith("App completed.\n")


def test_lines_are_followed_over_a_reconnect_without_repeating_any(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    server.log_lines = [LogEntry(1.0, "stdout", "one"), LogEntry(1.0, "stdout", "two")]

    with squall.enable_output(), app.run():
        square.remote(1)
        while "two" not in capsys.readouterr().out:
            square.remote(1)
        # Before the restart: whoever comes back asks once, and is told what there is then.
        server.log_lines.append(LogEntry(2.0, "stdout", "three"))
        server.restart()
        square.remote(1)

    assert capsys.readouterr().out == "three\n"


def test_last_lines_are_shown_over_a_connection_that_breaks_while_the_run_waits_for_them(
    server: ServerDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    server.log_lines = [LogEntry(1.0, "stdout", "the last line")]
    server.breaks_at_last_lines = True

    with squall.enable_output(), app.run():
        square.remote(1)

    assert capsys.readouterr().out == "the last line\n"


def test_shown_lines_come_once_and_remember_their_last_moment_only() -> None:
    shown = _output.ShownLines()
    late = [LogEntry(5.0 - number / 1_000, "stdout", f"late {number}") for number in range(1, 1_000)]

    assert shown.is_new(LogEntry(5.0, "stdout", "one"))
    assert all(shown.is_new(entry) for entry in late)
    shown.is_repeating = True

    assert not shown.is_new(LogEntry(5.0, "stdout", "one"))
    assert shown.is_new(LogEntry(5.0, "stdout", "two"))
    assert shown.last_at == 5.0
    assert len(shown._of_last_moment) == 2


def test_a_richer_output_can_be_used() -> None:
    class Recorder(_output.Output):
        said: list[str] = []  # noqa: RUF012 - one test's

        def notice(self, text: str) -> None:
            self.said.append(text)

    with _output.use(Recorder()):
        assert _output.is_enabled()
        _output.current().notice("hello")

    assert Recorder.said == ["hello"]
    assert not _output.is_enabled()


def test_progress_is_shown_on_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()

    for stream in (plain, terminal):
        _output.PlainOutput(stream, stream).map_progress("square", 3, 10, True)

    assert plain.getvalue() == ""
    assert "square: 3 of 10" in terminal.getvalue()


def test_a_closed_terminal_does_not_stop_the_run() -> None:
    closed = io.StringIO()
    output = _output.PlainOutput(closed, closed)
    closed.close()

    output.log(LogEntry(1.0, "stdout", "into the void"))
