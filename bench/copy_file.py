"""The reference of volumes: cp of the same file, on the disk when it ends."""

from __future__ import annotations

import time

from bench.figure import Context, Figure, p50
from bench.volume_file import flush, random_file, size, timed


def run(context: Context) -> Figure:
    """Content per second."""
    rates: list[float] = []
    with random_file(context) as path:
        for number in range(context.times(3)):
            # Each has a name of its own: pages of a file that was just removed are warm, and these are not.
            copy = path.with_name(f"bench-copy-{number}")
            begin_s = time.perf_counter()
            try:
                timed(["cp", str(path), str(copy)])
                timed(["sync", str(copy)])
                rates.append(size(context) / 1e6 / (time.perf_counter() - begin_s))
            finally:
                copy.unlink(missing_ok=True)
                flush()
    return Figure(p50(rates), "MB/s", f"cp and sync, p50 of {len(rates)}", {"least_mb_per_s": min(rates)})
