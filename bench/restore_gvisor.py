"""A cold start of a function that imports numpy under gVisor, restored from what was saved."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Nothing boots and nothing is imported."""
    return measure(context, "numpy", "restore", function="restored_gvisor")
