"""How flights are drawn and told."""

from __future__ import annotations

import io
import itertools
import sys

import pytest

from squall.cli import call_view, container_view
from squall.cli.timeline import Span, bar, shown
from squall.protocol.call import Failure
from squall.protocol.container import ContainerInfo
from squall.protocol.flight import AttemptFlight, CallFlight, CallSummary, ContainerFlight, InputFlight
from squall.protocol.records import replace


def container(**phases: float) -> ContainerInfo:
    named = {name.replace("__", "."): at for name, at in phases.items()}
    return ContainerInfo("ct-1", "ap-1", "app", "fu-1", "f", "nd-1", "idle", 0.0, phase_ms=named)


def flight(*attempts: AttemptFlight, containers: tuple[ContainerFlight, ...] = ()) -> CallFlight:
    summary = CallSummary("fc-1", "fu-1", "f", "ap-1", "app", "remote", 0.0, attempts[-1].status, 1)
    one = InputFlight(0, "in-1:0", attempts[-1].status, attempts, is_kept=True)
    return CallFlight(summary, {attempts[-1].status: 1}, (one,), 1, containers)


def test_bar_shows_each_stretch_even_the_shortest() -> None:
    spans = [Span("queue", 0, 500), Span("start", 500, 999.9), Span("run", 999.9, 1_000)]

    drawn = bar(spans, 1_000, 10)

    assert len(drawn) == 10
    assert list(dict.fromkeys(drawn)) == ["·", "▒", "█"]


@pytest.mark.parametrize("whole_ms", [0.0, -1.0, 1e-9, 1e18])
def test_bar_of_an_impossible_length_stays_within_its_columns(whole_ms: float) -> None:
    assert len(bar([Span("run", -5, 1e9), Span("queue", 7, 3)], whole_ms, 10)) == 10


def test_output_that_has_no_such_characters_gets_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))

    assert bar([Span("run", 0, 10)], 10, 4) == "####"


def test_start_of_its_container_is_taken_from_the_queue() -> None:
    began = ContainerFlight(container(ready=800.0), asked_ms=100.0)
    attempt = AttemptFlight(0, "succeeded", 0.0, 1_000.0, 1_500.0, "ct-1")

    text = "\n".join(call_view.lines_of(flight(attempt, containers=(began,))))

    assert "succeeded: queue 200 ms, start 800 ms, run 500 ms in ct-1" in text


def test_how_its_container_came_about_is_told_with_the_call() -> None:
    attempt = AttemptFlight(0, "succeeded", 0.0, 1_000.0, 1_500.0, "ct-1")
    forked = ContainerFlight(replace(container(ready=8.0), path="fork"))

    text = "\n".join(call_view.lines_of(flight(attempt, containers=(forked,))))

    assert "  ct-1  idle, ready in 8.0 ms (fork)" in text


def test_container_that_was_ready_before_takes_nothing_from_the_queue() -> None:
    began = ContainerFlight(container(ready=100.0), asked_ms=-5_000.0)
    attempt = AttemptFlight(0, "succeeded", 0.0, 1_000.0, 1_500.0, "ct-1")

    text = "\n".join(call_view.lines_of(flight(attempt, containers=(began,))))

    assert "succeeded: queue 1.00 s, run 500 ms" in text


def test_failure_cannot_command_the_terminal() -> None:
    failure = Failure("user", "\x1b]0;title\x07bad", "ValueError")
    attempt = AttemptFlight(0, "failed", 0.0, 1.0, 2.0, "ct-1", failure)

    text = "\n".join(call_view.lines_of(flight(attempt)))

    assert "\x1b]" not in text
    assert "ValueError: bad" in text
    assert "squall call replay fc-1" in text


def test_phases_of_a_start_follow_each_other() -> None:
    phases = container_view.phases_of(
        ContainerFlight(
            container(
                placed=5.0, start__files=10.0, start__runtime=40.0, start__runtime_fork=1.0, process=56.0,
                connected=90.0, ready=130.0, enter=10.0, first_input=131.0, **{"import": 25.0},
            )
        )
    )  # fmt: skip

    assert [name for name, _, _ in phases] == [
        "queued", "files", "sandbox", "process", "boot", "import", "enter hooks", "first input",
    ]  # fmt: skip
    assert all(begin <= end for _, begin, end in phases)
    assert all(before[2] <= after[1] + 1e-6 for before, after in itertools.pairwise(phases))


def test_a_quicker_path_that_came_to_nothing_is_a_phase_of_its_own() -> None:
    marks = container(placed=1.0, start__failed_parked=4.0, start__failed_fork=2.0, start__runtime=3.0)

    phases = container_view.phases_of(ContainerFlight(marks))

    assert [name for name, _, _ in phases] == ["queued", "failed parked", "failed fork", "sandbox"]


def test_phases_of_a_copy_that_took_longer_to_load_than_it_was_connected_follow_each_other() -> None:
    marks = container(
        placed=1.0, start__runtime=2.0, process=3.0, connected=4.0, ready=6.0, enter=5.0, **{"import": 9.0}
    )

    phases = container_view.phases_of(ContainerFlight(marks))

    assert all(begin <= end for _, begin, end in phases)
    assert all(before[2] <= after[1] + 1e-6 for before, after in itertools.pairwise(phases))
    assert phases[-1][2] == 6


@pytest.mark.parametrize("more", [{"ready": 1.2, "first_input": 1.3}, {"ready": 30.0, "import": 25.0}])
def test_phases_of_a_parked_copy_that_is_connected_before_it_is_woken_follow_each_other(more: dict[str, float]) -> None:
    marks = container(placed=1.0, start__template=0.1, start__runtime=3.0, connected=1.1, process=4.2, **more)

    phases = container_view.phases_of(ContainerFlight(marks))

    assert all(begin <= end for _, begin, end in phases)
    assert all(before[2] <= after[1] + 1e-6 for before, after in itertools.pairwise(phases))
    assert {name: end - begin for name, begin, end in phases}["sandbox"] == pytest.approx(3.0)


def test_path_of_a_start_is_told_with_its_cause() -> None:
    info = replace(
        container(placed=1.0, ready=9.0), path="plain", path_cause="module watch started a thread\x1b]0;x\x07"
    )

    text = "\n".join(container_view.lines_of(ContainerFlight(info)))

    assert "  path       plain: module watch started a thread\n" in text


def test_container_that_waits_says_so() -> None:
    text = "\n".join(container_view.lines_of(ContainerFlight(container())))

    assert "waits for a node with room" in text


@pytest.mark.parametrize(
    ("ms", "text"),
    [(None, "-"), (0.04, "0.0 ms"), (9.96, "10.0 ms"), (12.3, "12 ms"), (2_340, "2.34 s"), (3e5, "5.0 min")],
)
def test_durations_for_people(ms: float | None, text: str) -> None:
    assert shown(ms) == text
