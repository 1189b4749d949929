"""From busy to nothing: how long after the scaledown window the last container is gone."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """The window counts from the last output; what comes after it is ours."""
    count = 5 if context.is_quick else 50
    numbers = context.program("scaling.py", "scale_to_zero", count)
    return Figure(numbers["after_s"], "s", f"after the window, the last of {numbers['containers']:.0f} containers")
