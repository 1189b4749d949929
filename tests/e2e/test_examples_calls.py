"""The examples of calls do what they say, with the real command and server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.installation import Installation

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "calls"
PRINTS: dict[str, str] = {
    "classes": "exit at 10",
    "parameters": "['Hallo Ada!', 'Hello Ada?'] test nowhere",
    "autoscaling": "kept: 0 at most: None",
    "batched": "vectors [1, 2, 3, 4, 5, 6], in batches of up to 4",
    "limits": "all fresh: True",
    "looking": "succeeded: 8 failed: 0",
    "memory_snapshot": "loaded before the hook of each container: True",
    "map": "failures in their place: ['ZeroDivisionError', 'float', 'float']",
    "retries": "cancelled",
    "several_at_once": "20 pages by one container, 20 parts by at most two: True",
    "spawn": "cancelled",
    "variants": "in batches: [1, 2, 3]",
}
"""Of those that one command runs: the last line that each prints."""
ELSEWHERE: set[str] = {"deployed", "replay", "schedules", "versions"}
"""They have tests of their own, beside those of the feature."""


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == PRINTS.keys() | ELSEWHERE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_does_what_it_says(squall: Installation, name: str) -> None:
    ended = squall.command("run", str(EXAMPLES / f"{name}.py"), timeout_s=240)

    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line and not line.startswith("App completed")]
    assert lines[-1] == PRINTS[name]
