"""The first start anywhere, with nothing here and the store 2 ms away."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["untraced_s"], "s", f"{lazy_image.NOTE}, without a trace")
