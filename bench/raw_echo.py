"""The wire without Squall, as fast as asyncio makes it: what a warm call is compared with."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Round trip of a frame between two Python processes with uvloop."""
    numbers = context.program("echo_asyncio.py", context.times(5_000))
    return Figure(
        numbers["p50_us"] / 1e3,
        "ms",
        "p50, asyncio + uvloop over a unix socket",
        {"p99_ms": numbers["p99_us"] / 1e3, "frames_per_s": numbers["frames_per_s"]},
    )
