"""A call to a running Ray actor: what a warm call must be quicker than."""

from __future__ import annotations

import os

from bench.figure import Absent, Context, Figure


def ray_numbers(context: Context, actor_calls: int, calls: int) -> dict[str, float]:
    """Both of Ray's figures from one start of it.

    Raises:
        Absent: Ray is not installed.
    """
    if not os.path.exists(context.peers_python):
        raise Absent("ray is not installed: make bench-peers")
    return context.program("ray_calls.py", actor_calls, calls, python=context.peers_python)


def run(context: Context) -> Figure:
    """Round trip of a trivial method."""
    numbers = ray_numbers(context, context.times(1_000), 10)
    return Figure(numbers["actor_p50_ms"], "ms", "p50, a method of a Ray actor", {"p99_ms": numbers["actor_p99_ms"]})
