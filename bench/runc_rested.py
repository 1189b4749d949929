"""Start of a container with runc on a machine that has rested as long as before a cold start of ours."""

from __future__ import annotations

from bench.figure import Context, Figure
from bench.oci_run import measure
from squall.cli.cold_start import IDLE_S


def run(context: Context) -> Figure:
    """Wall time of one run."""
    return measure(context, "runc", 15, rest_s=IDLE_S)
