"""A hundred containers of one function, from zero: placement, network slots and memory under a burst."""

from __future__ import annotations

from bench.figure import Absent, Context, Figure


def run(context: Context) -> Figure:
    """Time until the hundredth container is in user code."""
    count = 10 if context.is_quick else 100
    numbers = context.program("calls.py", "many_containers", count)
    if numbers["containers"] < count:
        raise Absent(f"only {numbers['containers']:.0f} containers served {count} inputs of 15 s")
    return Figure(numbers["last_s"], "s", f"until the last of {count} containers is in user code")
