"""Another reference of volumes: sha256sum of the same file."""

from __future__ import annotations

from bench.figure import Context, Figure, p50
from bench.volume_file import random_file, size, timed


def run(context: Context) -> Figure:
    """Content per second."""
    with random_file(context) as path:
        rates = [size(context) / 1e6 / timed(["sha256sum", str(path)])[0] for _ in range(context.times(3))]
    return Figure(p50(rates), "MB/s", f"p50 of {len(rates)}")
