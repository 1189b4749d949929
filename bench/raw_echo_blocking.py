"""The wire without Squall and without an event loop: the floor for two Python processes on this machine."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Round trip of 100 bytes between two Python processes that block."""
    numbers = context.program("echo_blocking.py", context.times(20_000))
    return Figure(numbers["p50_us"] / 1e3, "ms", "p50, blocking unix sockets", {"p99_ms": numbers["p99_us"] / 1e3})
