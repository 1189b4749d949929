"""The reference of whole images: the same files as plain directories, in memory."""

from __future__ import annotations

from bench import lazy_image
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """See `lazy_image`."""
    return Figure(lazy_image.numbers(context)["directory_s"], "s", f"{lazy_image.NOTE}, as directories")
