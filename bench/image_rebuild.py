"""A rebuild that has nothing to do: `squall run` of an app whose image has ten steps, all cached."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from bench.figure import PROGRAMS, Absent, Context, Figure, p50

STEPS = 10
_REACHED = re.compile(r"^reached=([0-9.]+)$", re.MULTILINE)


def run(context: Context) -> Figure:
    """From the command to the app's entrypoint; what ten steps cost over one is measured in turns."""
    for steps in (1, STEPS):
        reached_ms(context, steps)
    pairs = [(reached_ms(context, STEPS), reached_ms(context, 1)) for _ in range(context.times(10))]
    ten_ms, one_ms = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    also = {"min_ms": min(ten_ms), "over_one_step_ms": p50(ten_ms) - p50(one_ms)}
    return Figure(p50(ten_ms), "ms", "p50 from `squall run` to the entrypoint, ten cached steps", also)


def reached_ms(context: Context, steps: int) -> float:
    """How long `squall run` takes until the entrypoint of an app is reached whose image has so many steps."""
    program = str(PROGRAMS / "image_steps.py")
    given = replace(context, more_env={"BENCH_STEPS": str(steps)})
    started_s = time.monotonic()
    ended = given.squall("run", "--quiet", program)
    found = _REACHED.search(ended.stdout)
    if found is None:
        raise Absent(f"squall run {program}: {(ended.stderr.strip().splitlines() or ['?'])[-1]}")
    return (float(found[1]) - started_s) * 1000
