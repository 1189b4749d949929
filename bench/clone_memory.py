"""What a further clone of a template with 500 MB and torch adds to the memory in use."""

from __future__ import annotations

from bench.cold_starts import deploy, starting
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Proportional set size of all processes in containers, with eight more clones and without them."""
    own = starting(context, "fork")
    try:
        deploy(own, "torch")
        numbers = own.program("clones.py", "memory", 8)
    finally:
        own.squall("server", "stop", "--force")
    also = {"first_mb": numbers["first_mb"]}
    return Figure(numbers["clone_mb"], "MB", "of each of eight further clones, while it runs user code", also)
