"""Two hundred clones of one function, from zero: how many a second, when its node has seen that before."""

from __future__ import annotations

from bench.cold_starts import deploy, starting
from bench.figure import Absent, Context, Figure


def run(context: Context) -> Figure:
    """Until the two hundredth is in user code; by whichever path each takes."""
    count = 20 if context.is_quick else 200
    own = starting(context, "auto")
    try:
        deploy(own, "numpy")
        numbers = own.program("clones.py", "burst", count)
    finally:
        own.squall("server", "stop", "--force")
    if numbers["containers"] < count:
        raise Absent(f"only {numbers['containers']:.0f} containers served {count} inputs of 10 s")
    also = {name: numbers[name] for name in ("last_s", "half_s", "first_last_s")}
    first = count / numbers["first_last_s"]
    note = f"until the last of {count} is in user code, the second time; {first:.1f} the first time"
    return Figure(count / numbers["last_s"], "containers/s", note, also)
