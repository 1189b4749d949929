"""`import squall` on the user's machine: paid by every program and by the shell's completion."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """By -X importtime, above an interpreter that imports nothing."""
    numbers = context.program("calls.py", "import_outside", context.times(20))
    return Figure(numbers["p50_ms"], "ms", "p50, import and first use of App", {"max_ms": numbers["max_ms"]})
