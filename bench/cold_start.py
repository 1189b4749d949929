"""From no container to the first result, with the image cached and no template."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """The first `.remote(x)` in a new run of an app."""
    numbers = context.program("calls.py", "cold_start", context.times(30))
    also = {"p95_ms": numbers["p95_ms"], "first_ms": numbers["first_ms"]}
    return Figure(numbers["p50_ms"], "ms", "p50 of the first call in a new app.run()", also)
