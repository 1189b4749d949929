"""What a person sees of a run."""

from __future__ import annotations

import io
import itertools

import pytest

import squall
from squall.protocol.image import BuildEvent
from squall.protocol.log import LogEntry
from squall.sdk import _output
from squall.sdk._feed import Feed
from squall.sdk._map_view import MapState, MapView
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def far(name: str, *counts: tuple[float, int, int, int, bool]) -> MapState:
    """A map that got so far."""
    state = MapState(name, 0.0)
    for now, done, failed, total, is_total_known in counts:
        state.got_on(now, done, failed, total, is_total_known)
    return state


def test_progress_says_rate_total_and_failures() -> None:
    assert far("square", (2.0, 50_000, 0, 1_000_000, True)).text() == "square: 50,000 of 1,000,000 · 25,000/s"
    assert far("square", (4.0, 6, 2, 1_006, False)).text() == "square: 6 of 1,006+ · 1.5/s · 2 failed"
    assert far("square").text() == "square: 0 of 0+ · 0.0/s"
    # Of the last seconds, not of an hour.
    slowed = far("square", (3_600.0, 900_000, 0, 10**6, True), (3_605.0, 900_050, 0, 10**6, True))
    assert slowed.text() == "square: 900,050 of 1,000,000 · 10/s"


def test_progress_is_drawn_on_a_terminal_and_gone_at_the_end() -> None:
    terminal = Terminal()
    output = _output.PlainOutput(terminal, terminal)
    state = far("square", (1.0, 3, 0, 10, True))

    output.map_progress(state)
    drawn = terminal.getvalue()
    state.is_over = True
    output.map_progress(state)

    assert drawn == "\x1b[2msquare: 3 of 10 · 3.0/s\x1b[0m\r"
    assert terminal.getvalue() == drawn + "\x1b[2K\r"


def entry(text: str, source: str = "stdout", stage: str = "") -> LogEntry:
    return LogEntry(1.0, source, text, "ct-1", "in-abc:0", stage=stage)


def test_line_that_goes_on_is_drawn_on_a_terminal_until_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out, err = Terminal(), Terminal()
    output = _output.PlainOutput(out, err)

    output.unfinished(entry("10%", stage="passing"))
    output.unfinished(entry("\x1b]0;title\x07\x1b[31m20%", stage="passing"))
    output.unfinished(entry("0123456789" * 3, stage="passing"))
    output.log(entry("20%", stage="standing"))
    output.log(entry("100%"))

    cleared = "\x1b[2K\r"
    drawn = ["10%\r", cleared, "\x1b[31m20%\x1b[0m\r", cleared, "…234567890123456789\r", cleared, "100%\n"]
    assert out.getvalue() == "".join(drawn)
    assert err.getvalue() == ""
    assert output.is_live


def test_elsewhere_a_line_that_goes_on_is_shown_when_it_is_whole_and_now_and_then() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = _output.PlainOutput(out, err)

    output.unfinished(entry("10%", stage="passing"))
    output.log(entry("20%", stage="standing"))
    output.log(entry("100%"))

    assert out.getvalue() == "20%\n100%\n"
    assert not output.is_live


def test_maps_in_maps_are_drawn_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    output = _output.PlainOutput(terminal, terminal)
    outer, inner = far("outer", (1.0, 3, 0, 10, True)), far("inner", (1.0, 5, 0, 5, True))

    output.map_progress(outer)
    output.map_progress(inner)
    both = terminal.getvalue()
    inner.is_over = True
    output.map_progress(inner)

    assert "outer: 3 of 10 · 3.0/s | inner: 5 of 5 · 5.0/s" in both
    assert terminal.getvalue()[len(both) :] == "\x1b[2K\r\x1b[2mouter: 3 of 10 · 3.0/s\x1b[0m\r"


def test_elsewhere_a_map_that_takes_long_has_a_line_now_and_then() -> None:
    view = MapView()
    state = far("square", (1.0, 3, 0, 10, True))

    said = [view.line(state, now) for now in (100.0, 105.0, 110.0, 115.0, 119.9, 120.5)]
    state.is_over = True
    said.append(view.line(state, 121.0))

    line = "square: 3 of 10 · 3.0/s"
    assert said == ["", "", line, "", "", line, line]


def test_elsewhere_a_short_map_says_nothing() -> None:
    plain = io.StringIO()
    output = _output.PlainOutput(plain, plain)
    state = far("square", (1.0, 3, 0, 10, True))

    output.map_progress(state)
    state.is_over = True
    output.map_progress(state)

    assert plain.getvalue() == ""


def test_total_of_a_map_is_known_where_its_inputs_tell() -> None:
    def size(*iterables: object) -> int | None:
        return Feed("square.map()", iterables, is_star=False).size

    assert size(range(7)) == 7
    assert size([1, 2, 3], range(7)) == 3
    assert size([1, 2, 3], iter([1])) is None
    assert size(itertools.count()) is None


def test_end_of_a_map_tells_how_many_failed(server: ServerDouble) -> None:
    told: list[tuple[int, int, int, bool]] = []

    class Recorder(_output.Output):
        def map_progress(self, state: MapState) -> None:
            told.append((state.done, state.failed, state.total, state.is_total_known))

    server.callables["square"] = lambda x: 1 // x
    with _output.use(Recorder()), app.run():
        list(square.map(range(3), return_exceptions=True))

    assert told[-1] == (3, 1, 3, True)


def test_map_that_is_given_up_is_over(server: ServerDouble) -> None:
    told: list[bool] = []

    class Recorder(_output.Output):
        def map_progress(self, state: MapState) -> None:
            told.append(state.is_over)

    with _output.use(Recorder()), app.run():
        results = iter(square.map(itertools.count()))
        next(results)
        results.close()  # type: ignore[attr-defined]

    assert told[-1:] == [True]


def test_a_closed_terminal_does_not_stop_the_run() -> None:
    closed = io.StringIO()
    output = _output.PlainOutput(closed, closed)
    closed.close()

    output.log(LogEntry(1.0, "stdout", "into the void"))
