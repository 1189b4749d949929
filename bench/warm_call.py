"""A call to a function whose container is there: the price of going through Squall at all."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Round trip of `.remote(x)`, one after the other."""
    numbers = context.program("calls.py", "warm_call", context.times(2_000))
    return Figure(numbers["p50_ms"], "ms", "p50 of identity.remote(1)", {"p99_ms": numbers["p99_ms"]})
