"""What a container printed while it ran an input is shown before that input's result is handed out."""

from __future__ import annotations

import pytest

from tests.e2e import flows
from tests.e2e.installation import Installation


@pytest.mark.parametrize(
    ("entrypoint", "count"),
    [("remote", 300), ("mapped", 600), ("generated", 300), ("others", 90), ("threads", 300), ("in_a_loop", 300)],
)
def test_lines_come_before_the_result_they_led_to(
    session_installation: Installation, entrypoint: str, count: int
) -> None:
    ended = flows.command_ok(session_installation, "run", f"ordered.py::{entrypoint}")

    shown = ended.out.splitlines()
    place = {text: number for number, text in enumerate(shown)}
    late = [x for x in range(count) if place[f"line {x}"] > place[f"result {x}"]]
    assert len(shown) == 2 * count, ended.out[-2_000:]
    assert not late, f"{len(late)} of {count} lines came after their result, the first of {late[0]}"


@pytest.mark.timeout(300)
def test_endless_output_does_not_hold_results_back(session_installation: Installation) -> None:
    # A million lines take a busy machine longer than a minute.
    ended = flows.command_ok(session_installation, "run", "ordered.py::flooded", timeout_s=240)

    results = [line for line in ended.out.splitlines() if line.startswith("result ")]
    assert results == [*[f"result {x}" for x in range(20)], "result 1000000"]
