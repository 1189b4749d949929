"""A cold start of a function that imports numpy, without a template: what the others save."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Everything is loaded anew."""
    return measure(context, "numpy", "plain")
