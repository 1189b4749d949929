"""The reference of a rebuild: the same app on the plain base, one step."""

from __future__ import annotations

from bench.figure import Context, Figure, p50
from bench.image_rebuild import reached_ms

STEPS = 1


def run(context: Context) -> Figure:
    """From the command to the app's entrypoint."""
    reached_ms(context, STEPS)
    times_ms = [reached_ms(context, STEPS) for _ in range(context.times(10))]
    return Figure(
        p50(times_ms), "ms", "p50 from `squall run` to the entrypoint, image of one step", {"min_ms": min(times_ms)}
    )
