"""The reference of volume_first_read: a plain file that is not in memory, read once."""

from __future__ import annotations

from bench.figure import Context, Figure, p50
from bench.volume_file import forget, random_file, read_through, size


def run(context: Context) -> Figure:
    """Content per second."""
    took_s: list[float] = []
    with random_file(context) as path:
        for _ in range(context.times(3)):
            forget(path)
            took_s.append(read_through(str(path)))
    return Figure(size(context) / 1e6 / p50(took_s), "MB/s", f"p50 of {len(took_s)}, from the disk")
