"""The examples of cold starts do what they say, whichever path their containers take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.installation import Installation

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "cold_starts"
PRINTS = {
    "numpy_function": ["4 containers drew 4 different pairs"],
    "snap_hooks": ["translated: two three two", "3 containers, each with files of its own: True"],
}
"""The last lines of each."""


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == PRINTS.keys()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_does_what_it_says(squall: Installation, name: str) -> None:
    ended = squall.command("run", str(EXAMPLES / f"{name}.py"), timeout_s=240)

    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line and not line.startswith("App completed")]
    assert lines[-len(PRINTS[name]) :] == PRINTS[name], ended
