"""Processor time of a server that has nothing to do."""

from __future__ import annotations

import os
import time

from bench import idle_server
from bench.figure import Context, Figure


def run(context: Context) -> Figure:
    """Share of one core over some seconds."""
    idle_server.start(context)
    idle_server.settle()
    found = idle_server.processes(context)
    before = sum(idle_server.cpu_ticks(path) for path in found)
    started_s = time.monotonic()
    time.sleep(5 if context.is_quick else 30)
    took_s = time.monotonic() - started_s
    used_s = (sum(idle_server.cpu_ticks(path) for path in found) - before) / os.sysconf("SC_CLK_TCK")
    return Figure(100 * used_s / took_s, "% of a core", f"over {took_s:.0f} s, {len(found)} processes")
