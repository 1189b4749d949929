"""What packing costs a start: the whole image is here, and in memory."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["warm_s"], "s", f"{lazy_image.NOTE}, whole, cached")
