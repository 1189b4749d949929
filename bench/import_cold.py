"""The reference of lazy starts: the whole image is here, and nothing of it in memory."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["cold_s"], "s", f"{lazy_image.NOTE}, whole, cold")
