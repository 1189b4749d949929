"""Trivial Ray calls, all at once: what a map must be ten times as fast as."""

from __future__ import annotations

from bench.figure import Context, Figure
from bench.ray_actor_call import ray_numbers


def run(context: Context) -> Figure:
    """Rate of remote functions that return their argument."""
    numbers = ray_numbers(context, 10, context.times(5_000))
    return Figure(numbers["calls_per_s"], "calls/s", "Ray remote functions on two cores")
