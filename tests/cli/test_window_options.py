"""What a function did, for people."""

from __future__ import annotations

from squall.cli.window_options import by_path
from squall.protocol.function_window import FunctionWindow


def test_how_containers_came_about_is_told_the_most_first() -> None:
    window = FunctionWindow(0.0, 60.0, started_containers=14, started_by_path={"plain": 1, "parked": 10, "fork": 3})

    assert by_path(window) == " (10 parked, 3 fork, 1 plain)"


def test_that_all_were_loaded_as_ever_is_not_told() -> None:
    assert by_path(FunctionWindow(0.0, 60.0, started_containers=2, started_by_path={"plain": 2})) == ""
    assert by_path(FunctionWindow(0.0, 60.0, started_containers=2)) == ""
