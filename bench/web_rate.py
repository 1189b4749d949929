"""A web function asked by wrk."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """One container, 32 connections that are kept."""
    numbers = context.program("web.py", "rate", context.times(10))
    return Figure(numbers["per_s"], "/s", "one container, 32 connections", {"p99_ms": numbers["p99_ms"]})
