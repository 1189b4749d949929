"""Start of a container with runc on a machine that has rested as before a cold start of ours."""

from __future__ import annotations

from bench.figure import Context, Figure
from bench.oci_run import measure
from squall.cli.cold_start import PAUSE_S


def run(context: Context) -> Figure:
    """Wall time of one run."""
    return measure(context, "runc", 30, rest_s=PAUSE_S)
