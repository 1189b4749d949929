"""Writes to a dict: each outlives the server when it returns."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Round trip of `Dict.put`, one after the other."""
    numbers = context.program("storage.py", "dict_put", context.times(1_000))
    return Figure(numbers["p50_ms"], "ms", "p50 of cache.put(key, value)", {"p99_ms": numbers["p99_ms"]})
