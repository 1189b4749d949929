"""WebSockets that are open and silent."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """What the server needs for each of 2,000."""
    numbers = context.program("web.py", "sockets", context.times(2_000))
    return Figure(numbers["kb_each"], "KB", "of the server, for each of 2,000")
