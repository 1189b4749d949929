"""A start with nothing here but the trace of an earlier one in the store, 2 ms away."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["traced_s"], "s", f"{lazy_image.NOTE}, with a trace")
