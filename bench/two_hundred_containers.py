"""Two hundred containers of one function, from zero: steps of the autoscaler, starts side by side."""

from __future__ import annotations

from bench.figure import Absent, Context, Figure


def run(context: Context) -> Figure:
    """Time until the two hundredth container is in user code."""
    count = 20 if context.is_quick else 200
    numbers = context.program("calls.py", "many_containers", count)
    if numbers["containers"] < count:
        raise Absent(f"only {numbers['containers']:.0f} containers served {count} inputs of 15 s")
    return Figure(numbers["last_s"], "s", f"until the last of {count} containers is in user code")
