"""The application of the web rows under uvicorn, asked by wrk."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """With uvloop and httptools; 32 connections that are kept."""
    numbers = context.program("web.py", "uvicorn_rate", context.times(10))
    return Figure(numbers["per_s"], "/s", "uvicorn[standard], 32 connections", {"p99_ms": numbers["p99_ms"]})
