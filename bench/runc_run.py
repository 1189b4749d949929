"""Start of a container with runc, to its end: what a cold start is compared with."""

from __future__ import annotations

from bench.figure import Context, Figure
from bench.oci_run import measure


def run(context: Context) -> Figure:
    """Wall time of one run."""
    return measure(context, "runc", 30)
