"""From a cached image of ten layers to the root file system of a container."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """The runtime's own phase: layers taken and id-mapped, overlay mounted, root entered."""
    numbers = context.program("image_root.py", context.data_dir, context.times(50))
    also = {"first_ms": numbers["first_ms"]}
    return Figure(numbers["p50_ms"], "ms", "p50 of ten layers mounted to a ready root", also)
