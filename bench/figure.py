"""What a benchmark is: a module with `run(context) -> Figure`, and what it hands back."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "bench" / "programs"
PROGRAM_TIMEOUT_S = 300.0
END_S = 120.0
"""How long a program that is not to go on has for what it has started."""
COMMAND = "import sys; from squall.cli.entry import main; sys.argv[0] = 'squall'; main()"
"""The `squall` command of the interpreter that measures, wherever its script was installed."""


class Absent(Exception):
    """What would be measured is not on this machine; the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. Lower is better for times and sizes, higher for rates (`/s`)."""

    value: float
    unit: str
    note: str = ""
    """One line about how it was measured, for the table."""
    also: Mapping[str, float] = field(default_factory=dict)
    """Other numbers of the same run, names with their units."""
    values_ms: tuple[float, ...] = ()
    """Of times that are drawn, each of them."""

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")


@dataclass(frozen=True, slots=True)
class Context:
    """Where and how much to measure."""

    data_dir: Path
    """SQUALL_DATA_DIR of everything started; images are cached in it."""
    python: str = sys.executable
    peers_python: str = str(ROOT / ".venv-peers" / "bin" / "python")
    more_env: Mapping[str, str] = field(default_factory=dict)
    """Variables of what is started, besides those of this process."""
    is_quick: bool = False
    """A tenth of the repetitions: to see whether the benchmarks work, not for figures."""

    def times(self, count: int) -> int:
        """How often to repeat what a full run does `count` times."""
        return max(count // 10, 3) if self.is_quick else count

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.more_env, "SQUALL_DATA_DIR": str(self.data_dir), "PYTHONPATH": str(ROOT)}

    def squall(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the command; the caller looks at how it ended."""
        command = [self.python, "-c", COMMAND, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=self.env, check=False)

    def program(
        self, name: str, *arguments: object, python: str | None = None, timeout_s: float = PROGRAM_TIMEOUT_S
    ) -> dict[str, Any]:
        """Run a program of bench/programs and return the numbers in its last line, a JSON object.

        Raises:
            Absent: it cannot run here; with the last line of its error.
        """
        command = [python or self.python, str(PROGRAMS / name), *map(str, arguments)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.env, cwd=ROOT) as program:
            try:
                out, err = program.communicate(timeout=timeout_s)
            except BaseException:
                _end(program)
                raise
        if program.returncode != 0:
            last = (err.strip().splitlines() or [f"ended with status {program.returncode}"])[-1]
            raise Absent(f"{name}: {last[:160]}")
        numbers: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return numbers


def _end(program: subprocess.Popen[str]) -> None:
    """Let it stop what it has started; by force when it does not."""
    program.terminate()
    try:
        program.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        program.kill()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
