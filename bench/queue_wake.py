"""A get that waits, until a put of another process wakes it."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """From the beginning of the put to the return of the get."""
    numbers = context.program("storage.py", "queue_wake", context.times(200))
    return Figure(
        numbers["p50_ms"],
        "ms",
        "p50, the put itself included",
        {"p99_ms": numbers["p99_ms"], "after_put_ms": numbers["after_put_ms"]},
    )
