"""One `spawn_map`, in PostgreSQL."""

from __future__ import annotations

from bench import spawning
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of acknowledgements, while a container runs what was spawned."""
    return spawning.measure(context, "map", "postgres")
