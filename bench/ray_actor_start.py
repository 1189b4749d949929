"""A Ray actor that is made and answers: what a cold start is compared with."""

from __future__ import annotations

import os

from bench.figure import Absent, Context, Figure
from bench.oci_run import figure


def run(context: Context) -> Figure:
    """From its creation to its first answer, a trivial one."""
    if not os.path.exists(context.peers_python):
        raise Absent("ray is not installed: make bench-peers")
    numbers = context.program("ray_actor_start.py", context.times(30) + 1, python=context.peers_python)
    return figure(numbers["times_ms"], "p50, a Ray actor is made and answers")
