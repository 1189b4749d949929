"""A cold start of a class that imports torch and loads 500 MB, parked before it is called."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """By a clone that was forked ahead and is told who it is."""
    return measure(context, "torch", "parked", function="Model")
