"""A file of a volume, read from its begin to its end in a container, again and again: its pages are in memory."""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure
from bench.volume_file import MOUNTED, emptied, random_file, size, volume


def run(context: Context) -> Figure:
    """Content per second."""
    idle_server.start(context)
    with emptied(context), random_file(context) as path:
        volume(context, "put", MOUNTED, str(path), "file")
        numbers = context.program("volume_mounted.py", "cached", context.times(10))
    rate = size(context) / 1e6 / numbers["p50_s"]
    note = f"p50 of {context.times(10)} x {size(context) / 1e9:g} GB in a container, cached on the node"
    return Figure(rate, "MB/s", note, {"slowest_s": numbers["slowest_s"]})
