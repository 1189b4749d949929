"""Calls of one app while another app, of another client, maps a million inputs."""

from __future__ import annotations

from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """How much longer the slowest percent of calls takes beside the map."""
    numbers = context.program("scaling.py", "fair_remote", context.times(2_000))
    note = f"p99 {numbers['loaded_p99_ms']:.2f} ms beside the map, {numbers['unloaded_p99_ms']:.2f} ms without"
    return Figure(numbers["ratio"], "x", note, {name: numbers[name] for name in numbers if name != "ratio"})
