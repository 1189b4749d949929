"""Calls while server, agent, spawner and containers are killed at random: how many outputs are lost or come twice."""

from __future__ import annotations

import json

from bench.figure import Absent, Context, Figure

SEED = 4
CHAOS_S = 2_400.0


def run(context: Context) -> Figure:
    """Outputs lost or duplicated of at least 10,000 calls of every kind.

    Raises:
        Absent: it does not run, or a program ended that nobody had killed.
    """
    count = context.times(10_000)
    numbers = context.program("chaos.py", count, SEED, timeout_s=CHAOS_S)
    if numbers["ended_by_itself"]:
        raise Absent(f"ended by itself: {json.dumps(numbers['ended_by_itself'])[-140:]}")
    kills = {name: value for name, value in numbers.items() if name.startswith("kills_")}
    also = {name: numbers[name] for name in ("calls", "lost", "duplicated", "repeated", "calls_s", "seed")}
    note = f"{numbers['calls']:,.0f} calls, {sum(kills.values()):.0f} kills, seed {SEED}"
    return Figure(numbers["lost"] + numbers["duplicated"], "outputs", note, {**also, **kills})
