"""Eight clients at one dict: their writes share what each has to wait for."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Rate of gets and puts, as many of each."""
    numbers = context.program("storage.py", "dict_rate", context.times(2_000))
    return Figure(numbers["ops_per_s"], "ops/s", "8 processes, half puts")
