"""`import squall` in a container: paid by every cold start of a function that uses it."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """By -X importtime, above an interpreter that imports nothing."""
    numbers = context.program("calls.py", "import_inside", context.times(20))
    return Figure(numbers["p50_ms"], "ms", "p50, import and first use of App", {"max_ms": numbers["max_ms"]})
