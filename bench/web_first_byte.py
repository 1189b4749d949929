"""The first byte of a stream."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """From the application's first piece to the client."""
    numbers = context.program("web.py", "first_byte", context.times(200))
    return Figure(numbers["p50_ms"], "ms", "p50, after the first yield", {"p99_ms": numbers["p99_ms"]})
