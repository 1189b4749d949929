"""A large download through the ingress."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """One gigabyte, and what the server needs for it."""
    numbers = context.program("web.py", "download", context.times(1_024))
    return Figure(numbers["mb_per_s"], "MB/s", "1 GiB", {"server_mb": numbers["server_mb"]})
