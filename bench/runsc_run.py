"""Start of a container with runsc, to its end: what a cold start is compared with."""

from __future__ import annotations

from bench.figure import Context, Figure
from bench.oci_run import measure


def run(context: Context) -> Figure:
    """Wall time of one run."""
    # Ours have a network; in the kernel that runsc brings, one that is shared with the machine is refused.
    return measure(context, "runsc", 30, "--network=none")
