"""A cold start of a function that imports numpy under gVisor, whose kernel boots: what restoring is compared with."""

from __future__ import annotations

from bench.cold_starts import measure
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Kernel, interpreter and module begin anew."""
    return measure(context, "numpy", "plain", function="plain_gvisor")
