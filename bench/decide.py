"""Autoscaler and scheduler in a cluster of a thousand nodes and ten thousand functions: what an event costs."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Median of the processor time of an event: an input comes or ends, and all that follows from it is decided."""
    numbers = context.program("decide.py", 2_000 if context.is_quick else 20_000)
    note = (
        f"p50 of processor time, {numbers['containers']:.0f} containers; {numbers['full_ms']:.2f} ms when all is full"
    )
    return Figure(numbers["p50_ms"], "ms", note, {name: numbers[name] for name in ("p99_ms", "full_ms", "idle_ms")})
