"""A cold start of a function that imports nothing, forked from the image template."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Interpreter and guest were there before."""
    return measure(context, "trivial", "fork")
