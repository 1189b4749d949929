"""How many inputs a container may hold.

It starts with what it can run at once. More is only good while inputs are so short that handing them out one by one
would cost more than running them; a long input with others behind it is a queue in the wrong place.
"""

from __future__ import annotations

from collections.abc import Sequence

AHEAD_US = 10_000
"""Work that may wait in a container: 10 ms of it."""
GROWTH = 2
"""At most, from one batch of outputs to the next."""
INTERRUPTION_US = 10_000
"""For how long the kernel may give the processor to others in the middle of an input: two or three ticks."""
INTERRUPTED_MIN = 8
"""Inputs of a batch from which on the longest is not believed."""


def window(current: int, max_inputs: int, credit_max: int, run_us: float) -> int:
    """The next window, after inputs that ran `run_us` microseconds on average."""
    if run_us * (max_inputs + 1) > AHEAD_US:
        return max_inputs
    wanted = int(AHEAD_US / max(run_us, 1.0))
    return max(max_inputs, min(wanted, current * GROWTH, credit_max))


def smoothed_us(before: float, latest: float) -> float:
    """A running mean that believes bad news at once and good news slowly."""
    if before <= 0.0 or latest > before:
        return latest
    return before * 0.75 + latest * 0.25


def mean_us(run_us: Sequence[int]) -> float:
    """How long the inputs of one batch have run, on average; there is one at least.

    On a busy machine, one of many inputs of a few microseconds seems to have run for thousands: the kernel gave the
    processor to another process meanwhile. Of many, the longest is left out, if that may be why.
    """
    longest = max(run_us)
    if len(run_us) < INTERRUPTED_MIN or longest > INTERRUPTION_US:
        return sum(run_us) / len(run_us)
    return (sum(run_us) - longest) / (len(run_us) - 1)
