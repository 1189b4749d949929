"""How much of an image a lazy start has fetched when its import is done."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["bytes_percent"], "%", "of a 300 MB image, the most of all starts")
