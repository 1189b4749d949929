"""A map of a million trivial inputs: that its rate lasts, and that nobody keeps what is done."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of one map of a million inputs from an iterator, results in order; the slowest tenth of it, and memory."""
    count = context.times(1_000_000)
    numbers = context.program("calls.py", "map_million", count)
    also = {name: numbers[name] for name in ("took_s", "slowest_per_s", "client_mb", "server_mb", "guest_mb")}
    return Figure(numbers["inputs_per_s"], "inputs/s", f"{count:,} inputs in order, from an iterator", also)
