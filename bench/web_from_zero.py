"""A web function with no container, from its template."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """The first response."""
    numbers = context.program("web.py", "from_zero", context.times(50))
    return Figure(numbers["p50_ms"], "ms", "p50, from its snapshot", {"p99_ms": numbers["p99_ms"]})
