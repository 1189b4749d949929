"""The picture of a run has the cold starts that were measured in it, ours first, and nothing else."""

from __future__ import annotations

from xml.etree import ElementTree

from bench import chart
from bench.figure import Figure
from bench.run import BENCHMARKS


def test_every_row_is_of_a_benchmark() -> None:
    assert {*chart.OURS, *chart.PEERS} <= {one.name for one in BENCHMARKS}


def test_ours_come_first_and_figures_without_times_are_left_out() -> None:
    figures = {
        "runc_run": Figure(40.0, "ms", values_ms=(39.0, 40.0)),
        "start_torch_fork": Figure(30.0, "ms", values_ms=(30.0, 31.0)),
        "start_numpy_fork": Figure(10.0, "ms"),
        "warm_call": Figure(0.3, "ms", values_ms=(0.3,)),
    }

    root = ElementTree.fromstring(chart.draw(figures))

    paths = [one.attrib["class"] for one in root.iter("{http://www.w3.org/2000/svg}path")]
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert paths == ["ours", "peer"]
    assert texts.index(chart.OURS["start_torch_fork"]) < texts.index(chart.PEERS["runc_run"])
    assert chart.OURS["start_numpy_fork"] not in texts


def test_a_run_without_starts_draws_nothing() -> None:
    assert chart.draw({"warm_call": Figure(0.3, "ms")}) == ""
