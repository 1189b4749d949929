"""A file that is new on the node, read in a container that starts with it: from the call to its result.

Its blocks are on the disk of a server on the same machine, and not in memory.
"""

from __future__ import annotations

from bench import idle_server
from bench.figure import Context, Figure, p50
from bench.volume_file import MOUNTED, emptied, forget, random_file, size, volume


def run(context: Context) -> Figure:
    """Content per second."""
    idle_server.start(context)
    took_s: list[float] = []
    with emptied(context):
        # Its image is there afterwards.
        volume(context, "put", MOUNTED, __file__, "file")
        context.program("volume_mounted.py", "first", 1)
        for _ in range(context.times(3)):
            with random_file(context) as path:
                volume(context, "put", "--force", MOUNTED, str(path), "file")
                forget(path)
            forget(context.data_dir / "blobs")
            took_s.append(context.program("volume_mounted.py", "first", 1)["whole_s"])
    note = f"p50 of {len(took_s)} x {size(context) / 1e9:g} GB, the start of the container included"
    return Figure(size(context) / 1e6 / p50(took_s), "MB/s", note, {"slowest_s": max(took_s)})
