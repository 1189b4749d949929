"""Reads of a dict: the server answers what was used lately from memory."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Round trip of `Dict.get`, one after the other."""
    numbers = context.program("storage.py", "dict_get", context.times(2_000))
    return Figure(numbers["p50_ms"], "ms", "p50 of cache.get(key)", {"p99_ms": numbers["p99_ms"]})
