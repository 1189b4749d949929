"""A map of trivial inputs: what batching and the wire allow when user code takes no time."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of one map of 50,000 inputs, results in order."""
    count = context.times(50_000)
    numbers = context.program("calls.py", "map_trivial", count)
    return Figure(numbers["inputs_per_s"], "inputs/s", f"{count:,} inputs in order", {"took_s": numbers["took_s"]})
