"""The reference of volume_read: the same read of a plain file, in no container."""

from __future__ import annotations

from bench.figure import Context, Figure, p50
from bench.volume_file import random_file, read_through, size


def run(context: Context) -> Figure:
    """Content per second."""
    with random_file(context) as path:
        took_s = [read_through(str(path)) for _ in range(context.times(10) + 1)][1:]
    return Figure(size(context) / 1e6 / p50(took_s), "MB/s", f"p50 of {len(took_s)}, from the page cache")
