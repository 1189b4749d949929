"""Autoscaler and scheduler in a cluster of a thousand nodes and ten thousand functions: what an event costs."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Median of the processor time of an event: an input comes or ends, and all that follows from it is decided."""
    numbers = context.program("decide.py", 2_000 if context.is_quick else 20_000)
    note = (
        f"p50 of processor time, {numbers['containers']:.0f} containers; p99 {numbers['p99_ms']:.2f} ms; when full "
        f"{numbers['full_ms']:.2f} ms, p99 {numbers['full_p99_ms']:.2f} ms; longest turn {numbers['stall_ms']:.1f} ms, "
        f"longest garbage collection {numbers['collect_ms']:.1f} ms"
    )
    names = ("p99_ms", "full_ms", "full_p99_ms", "tick_ms", "stall_ms", "collect_ms", "idle_ms")
    return Figure(numbers["p50_ms"], "ms", note, {name: numbers[name] for name in names})
