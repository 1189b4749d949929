"""Which containers are given inputs, where each can run several at once.

Up to `target_inputs` they are packed: the fullest container below its target comes first, so that with little to do the
others run nothing, and reach the end of their scaledown window. What is more than all targets is spread evenly, while
the autoscaler starts more containers.
"""

from __future__ import annotations

from collections.abc import Sequence


def shares(held: Sequence[int], windows: Sequence[int], target: int, queued: int) -> list[int]:
    """How many of the `queued` inputs each container is given, as far as there is room.

    Args:
        held: how much each container holds; of those that hold nothing, the one to be used first comes first.
        windows: how much each may hold.
        target: how far they are packed; 0 spreads everything.
    """
    now = list(held)
    left = queued
    # sorted() is stable: of equally full ones, the first comes first.
    for position in sorted(range(len(now)), key=lambda one: -held[one]):
        count = min(min(windows[position], target) - now[position], left)
        if count > 0:
            now[position] += count
            left -= count
    while left > 0:
        open_ones = [position for position in range(len(now)) if now[position] < windows[position]]
        if not open_ones:
            break
        least = min(now[position] for position in open_ones)
        lowest = [position for position in open_ones if now[position] == least]
        others = [now[position] for position in open_ones if now[position] > least]
        # Up to the next level at once, or to an even share of what is left.
        step = max(1, min(left // len(lowest), (min(others) - least) if others else left))
        for position in lowest:
            count = min(step, windows[position] - now[position], left)
            now[position] += count
            left -= count
    return [after - before for before, after in zip(held, now, strict=True)]
