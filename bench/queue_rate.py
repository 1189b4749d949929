"""Items through a queue, a hundred with each request."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of items that were put and taken."""
    numbers = context.program("storage.py", "queue_rate", context.times(10_000))
    return Figure(numbers["items_per_s"], "items/s", "4 processes, put_many and get_many of 100")
