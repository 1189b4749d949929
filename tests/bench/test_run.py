"""A figure is judged by its limit and its ratios, and one that cannot be measured has not been reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from bench import figure, run
from bench.figure import Absent, Context, Figure
from bench.run import BENCHMARKS, Benchmark, Session, judge, table
from tests.tree import ROOT

ECHO = Figure(1.0, "ms")


@pytest.mark.parametrize(("value_ms", "expected"), [(2.9, True), (3.1, False)])
def test_time_must_stay_below_its_ratio(value_ms: float, expected: bool) -> None:
    row = judge(Benchmark("warm", ratios={"echo": 3.0}), Figure(value_ms, "ms"), {"echo": ECHO})

    assert row["is_reached"] is expected
    assert row["ratios"] == {"echo": value_ms}


@pytest.mark.parametrize(("value", "expected"), [(21_000, True), (19_000, False)])
def test_rate_must_stay_above_its_limit(value: float, expected: bool) -> None:
    row = judge(Benchmark("map", limit=20_000), Figure(value, "inputs/s"), {})

    assert row["is_reached"] is expected


@pytest.mark.parametrize(("server_mb", "expected"), [(400.0, True), (401.0, False)])
def test_other_numbers_of_a_run_are_judged_with_it(server_mb: float, expected: bool) -> None:
    million = next(one for one in BENCHMARKS if one.name == "map_million")
    measured = Figure(21_000, "inputs/s", also={"client_mb": 20.0, "server_mb": server_mb})

    row = judge(million, measured, {})

    assert row["is_reached"] is expected
    assert "server_mb <= 400" in table([row])


def test_absent_reference_leaves_the_limit_to_judge() -> None:
    row = judge(Benchmark("map", limit=10, ratios={"peer": 10.0}), Figure(12, "inputs/s"), {"peer": Absent("none")})

    assert row["is_reached"] is True
    assert row["ratios"] == {}


def test_figure_of_which_all_references_are_absent_is_missed() -> None:
    row = judge(Benchmark("restored", ratios={"booted": 0.5}), ECHO, {"booted": Absent("not done after 900 s")})

    assert row["is_reached"] is False


def test_figure_that_cannot_be_measured_is_missed_and_a_peer_is_not() -> None:
    ours = judge(Benchmark("map", limit=10), Absent("it broke"), {})
    peer = judge(Benchmark("peer"), Absent("not installed"), {})

    assert ours["is_reached"] is False
    assert peer["is_reached"] is None
    assert "MISS  it broke" in table([ours, peer])


def test_benchmark_that_fails_costs_no_other_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Context) -> Figure:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setitem(sys.modules, "bench.broken", cast(ModuleType, SimpleNamespace(run=fail)))
    session = Session(Context(data_dir=tmp_path))

    row = session.row(Benchmark("broken"))

    assert (row["is_reached"], row["absent"]) == (False, "ProcessLookupError: [Errno 3] No such process")
    assert "in fail" in capsys.readouterr().err
    compared = {"broken": session.measure("broken")}
    assert judge(Benchmark("ours", ratios={"broken": 2.0}), ECHO, compared)["is_reached"] is False
    assert judge(Benchmark("ours", ratios={"broken": None}), ECHO, compared)["is_reached"] is None


def test_each_figure_is_kept_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", tmp_path)

    run.keep("first")
    run.keep("second")

    assert (tmp_path / "bench" / "results" / "figures.jsonl").read_text() == "first\nsecond\n"


def test_every_benchmark_has_its_module_and_known_references() -> None:
    names = {benchmark.name for benchmark in BENCHMARKS}

    assert not [name for name in names if not (ROOT / "bench" / f"{name}.py").is_file()]
    assert all(set(benchmark.ratios) <= names for benchmark in BENCHMARKS)


@pytest.mark.long
def test_program_that_is_not_to_go_on_may_stop_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure, "PROGRAMS", tmp_path)
    (tmp_path / "starts.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path(__file__).with_name('stopped').touch()))\n"
        "time.sleep(60)\n"
    )

    with pytest.raises(subprocess.TimeoutExpired):
        Context(data_dir=tmp_path).program("starts.py", timeout_s=1.5)

    assert (tmp_path / "stopped").exists()
