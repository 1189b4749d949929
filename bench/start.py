"""A server's start: `squall server start` to its end, when functions can run, with a data directory that is there."""

from __future__ import annotations

import time
from dataclasses import replace

from bench import idle_server
from bench.figure import Absent, Context, Figure, p50


def run(context: Context) -> Figure:
    """A data directory of its own: what others measure goes on running beside it."""
    own = replace(context, data_dir=context.data_dir / "start")
    walls_ms = []
    # The first one makes database and directories, and does not count.
    for _ in range(context.times(10) + 1):
        started_s = time.perf_counter()
        idle_server.start(own)
        walls_ms.append((time.perf_counter() - started_s) * 1000)
        stopped = own.squall("server", "stop")
        if stopped.returncode != 0:
            raise Absent(f"squall server stop: {(stopped.stderr.strip().splitlines() or ['?'])[-1]}")
    return Figure(p50(walls_ms[1:]), "ms", "p50 of `squall server start`", {"first_ms": walls_ms[0]})
