"""The table of docs/scaling.md is what the autoscaler says."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.protocol.function import Scaling
from squall.server.autoscaler import IdleContainer, Load, decide, desired

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "scaling.md"
NOW = 1_000.0


def rows() -> list[list[str]]:
    """The cells of each row of the table."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and line.endswith(("start |", "|"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == 9 and row[0].isdigit()]


def make_load(row: list[str]) -> Load:
    queued, running, busy, idle, starting, takes, parameters, *_ = row
    given = dict(one.split("=") for one in parameters.split(", ") if one)
    window = given.pop("scaledown_window", None)
    scaling = Scaling(**{key: int(value) for key, value in given.items()})  # type: ignore[arg-type]
    if window is not None:
        scaling = Scaling(scaledown_window_s=float(window))
    ages = [] if idle == "-" else [float(age) for age in idle.split(", ")]
    return Load(
        now=NOW, scaling=scaling, queued=int(queued), running=int(running), busy=int(busy), pending=0,
        starting=int(starting), idle=tuple(IdleContainer(f"ct-{age}", NOW - age) for age in ages),
        service_s=None if takes == "-" else float(takes.removesuffix(" s")),
    )  # fmt: skip


def happens(load: Load) -> str:
    decision = decide(load)
    for count, one, several in ((decision.start, "starts", "start"), (len(decision.stop), "stops", "stop")):
        if count:
            return f"{count} {one if count == 1 else several}"
    return "nothing"


def test_the_page_has_a_table() -> None:
    assert len(rows()) >= 15


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row[:7]))
def test_a_row_of_the_page_is_what_the_autoscaler_says(row: list[str]) -> None:
    load = make_load(row)

    assert [str(desired(load)), happens(load)] == row[7:]
