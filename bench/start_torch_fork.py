"""A cold start of a class that imports torch and loads 500 MB, forked when it is called."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """From the function template, which the first start has made."""
    return measure(context, "torch", "fork", function="Model")
