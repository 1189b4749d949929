"""A large argument and a large result: what copies, hashes and the disk leave of the memory's bandwidth."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of 200 MB to a container that is there; the way back is another number of the same run."""
    numbers = context.program("calls.py", "argument", context.times(9))
    back = numbers["back_mb_per_s"]
    return Figure(numbers["out_mb_per_s"], "MB/s", f"200 MB out, p50; back {back:.0f} MB/s", {"back_mb_per_s": back})
