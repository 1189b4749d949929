"""Calls while server, agent, spawner and containers are killed at random: how many outputs are lost or come twice."""

from __future__ import annotations

from bench.figure import Context, Figure

SEED = 4
CHAOS_S = 2_400.0


def run(context: Context) -> Figure:
    """Outputs lost or duplicated of 10,000 calls of every kind."""
    count = context.times(10_000)
    numbers = context.program("chaos.py", count, SEED, timeout_s=CHAOS_S)
    kills = {name: value for name, value in numbers.items() if name.startswith("kills_")}
    also = {name: numbers[name] for name in ("calls", "lost", "duplicated", "repeated", "calls_s", "seed")}
    note = f"{count:,} calls, {sum(kills.values()):.0f} kills, seed {SEED}"
    return Figure(numbers["lost"] + numbers["duplicated"], "outputs", note, {**also, **kills})
